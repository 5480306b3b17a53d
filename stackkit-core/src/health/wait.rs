//! Waiting until a stack is ready, and the words that say why it is not.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::health::{READY, Report, ServiceReport, Status};
use crate::service::ServiceId;
use crate::stack::Criticality;

/// What is waited for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// These services and all that they need; empty for the group `ready`.
    pub(crate) ids: &'a [String],
}

impl Wanted<'_> {
    fn has(&self, service: &ServiceReport) -> bool {
        match self.ids.is_empty() {
            true => {
                service.criticality == Criticality::Required
                    && service.counts_now()
                    && service.groups.iter().any(|group| group == READY)
            }
            false => self.ids.iter().any(|id| service.id == id.as_str()),
        }
    }

    /// Whether all of it is ready.
    pub(crate) fn is_ready(&self, report: &Report) -> bool {
        match self.ids.is_empty() {
            true => report.ready,
            false => self.missing(report).next().is_none(),
        }
    }

    /// What is not ready, and what causes that.
    fn missing<'a>(&'a self, report: &'a Report) -> impl Iterator<Item = &'a ServiceReport> {
        let services = || report.services.iter().map(AsRef::as_ref);
        let missing = move |service: &&ServiceReport| self.has(service) && !service.status.is_ready();
        let causes: HashSet<&ServiceId> = services().filter(missing).flat_map(|service| &service.caused_by).collect();
        services().filter(move |service| missing(service) || causes.contains(&service.id))
    }

    /// The failure that waiting can't mend, if there is one. Its text names the service, the code and the facts already,
    /// as every probe failure does. A service whose dependency is not ready yet may still be mended by it.
    pub(crate) fn permanent_failure(&self, report: &Report) -> Option<Error> {
        if report.draining && self.ids.is_empty() {
            return Some(Error::new(ErrorKind::Cancelled, "the stack drains: it will not be ready again"));
        }
        let is_ready = |id: &String| report.service(id).is_none_or(|service| service.status.is_ready());
        let alone = self.missing(report).filter(|service| service.dependencies.iter().all(is_ready));
        let failures = alone.filter_map(|service| service.failure.as_ref());
        let failure = failures.into_iter().find(|failure| !failure.kind.mends_by_waiting())?;
        let message = match &failure.code {
            // The error tells its code by itself.
            Some(code) => {
                failure.message.replace(&format!(" (code={code})"), "").replace(&format!(", code={code})"), ")")
            }
            None => failure.message.clone(),
        };
        let mut error = Error::new(failure.kind, format!("waiting can't mend this: {message}"));
        if let Some(phase) = failure.phase {
            error = error.with_phase(phase);
        }
        Some(match &failure.code {
            Some(code) => error.with_code(code.clone()),
            None => error,
        })
    }

    /// Names each service that is not ready, and why.
    pub(crate) fn not_ready(&self, report: &Report, timeout: Duration, now: Instant) -> Error {
        let missing: Vec<String> = self.missing(report).map(|service| words(service, now)).collect();
        Error::new(ErrorKind::Timeout, format!("not ready after {timeout:?}: {}", missing.join("; ")))
            .with_operation("wait until ready")
    }
}

/// `db: unhealthy for 4.2 s after 7 probes, unreachable at connect, ECONNREFUSED: …`.
fn words(service: &ServiceReport, now: Instant) -> String {
    let mut words = format!("{}: {}", service.id, service.status);
    if service.attempts_count == 0 {
        words.push_str(", no probe has ended yet");
        return words;
    }
    let seconds = now.saturating_duration_since(service.since_at).as_secs_f64();
    let probes = if service.attempts_count == 1 { "probe" } else { "probes" };
    // Writing to a `String` can't fail.
    let _ = write!(words, " for {seconds:.1} s after {} {probes}", service.attempts_count);
    if let Some(causes) = service.causes() {
        let _ = write!(words, " because of {causes}");
    }
    if let Some(failure) = &service.failure {
        let _ = write!(words, ", {}", failure.kind);
        if let Some(phase) = failure.phase {
            let _ = write!(words, " at {}", phase.as_str());
        }
        if let Some(code) = &failure.code {
            let _ = write!(words, ", {code}");
        }
        let own = failure.message.strip_prefix(service.id.as_str()).and_then(|rest| rest.strip_prefix(": "));
        let _ = write!(words, ": {}", own.unwrap_or(&failure.message));
    } else if service.status == Status::Unhealthy {
        let codes: Vec<&str> = service.findings().map(|finding| finding.code.as_ref()).collect();
        let _ = write!(words, ": {}", codes.join(", "));
    }
    words
}
