//! `/livez` and `/readyz`: the text that Kubernetes' own endpoints answer with.

use std::fmt::Write as _;

use stackkit_core::health::{ServiceReport, Severity, Status};
use stackkit_core::{Criticality, Report};

/// The body of `/livez`.
pub(crate) const LIVE: &str = "ok\n";

/// One word, for those who only look at the status line.
pub(crate) fn brief(ready: bool) -> &'static str {
    if ready { "ok\n" } else { "not ready\n" }
}

/// One line a service and one for the whole, in the form of Kubernetes' `/readyz?verbose`.
pub(crate) fn verbose(report: &Report) -> String {
    let mut text = String::new();
    for service in &report.services {
        // Writing to a `String` can't fail.
        let _ = writeln!(text, "{}", line(service));
    }
    text.push_str(if report.ready { "readyz check passed\n" } else { "readyz check failed\n" });
    text
}

fn line(service: &ServiceReport) -> String {
    let sign = if service.status.is_ready() { "[+]" } else { "[-]" };
    let note = match service.criticality {
        Criticality::Required => "",
        Criticality::Optional => " (optional)",
        Criticality::Informational => " (informational)",
    };
    let reason = match service.status {
        Status::Healthy => return format!("{sign}{}{note} ok", service.id),
        Status::Degraded => findings(service, Severity::Warning),
        Status::Unhealthy => failure(service).unwrap_or_else(|| findings(service, Severity::Critical)),
        Status::Unknown if service.checked_at.is_none() => "no probe has ended yet".to_owned(),
        Status::Unknown => "the last probe is too old".to_owned(),
    };
    format!("{sign}{}{note} {}: {reason}", service.id, service.status)
}

/// The failure's words without the service's name, which the line has already.
fn failure(service: &ServiceReport) -> Option<String> {
    let message = &service.failure.as_ref()?.message;
    let own = message.strip_prefix(service.id.as_str()).and_then(|rest| rest.strip_prefix(": "));
    Some(own.unwrap_or(message).to_owned())
}

fn findings(service: &ServiceReport, at_least: Severity) -> String {
    let seen = service.observation.iter().flat_map(|observation| &observation.findings);
    let bad = seen.chain(&service.exceeded).filter(|finding| finding.severity >= at_least);
    bad.map(|finding| finding.code.as_ref()).collect::<Vec<_>>().join(", ")
}
