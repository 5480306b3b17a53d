//! `/livez`, `/readyz`, `/startupz` and `/groupz/…`: the text that Kubernetes' own endpoints answer with.

use std::fmt::Write as _;

use stackkit_core::health::{GroupReport, READY, ServiceReport, Severity, Status};
use stackkit_core::{Criticality, Report};

use crate::options::Access;

/// One word, for those who only look at the status line.
pub(crate) fn brief(passing: bool) -> &'static str {
    if passing { "ok\n" } else { "not ready\n" }
}

/// Whether a group passes, the stack's drain included.
pub(crate) fn passes(report: &Report, group: &GroupReport) -> bool {
    group.passing && !is_drained(report, &group.name)
}

/// As [`passes`], without some of its members.
pub(crate) fn passes_without(report: &Report, group: &GroupReport, excluded: &[&str]) -> bool {
    let decisive =
        members(report, group).filter(|member| member.is_decisive() && !excluded.contains(&member.id.as_str()));
    decisive.into_iter().all(|member| member.passes(&group.name)) && !is_drained(report, &group.name)
}

/// The members of a group.
pub(crate) fn members<'a>(report: &'a Report, group: &'a GroupReport) -> impl Iterator<Item = &'a ServiceReport> {
    group.members.iter().filter_map(|id| report.service(id.as_str()))
}

/// A stack that drains is not ready, and as alive as before.
fn is_drained(report: &Report, group: &str) -> bool {
    report.draining && group == READY
}

/// A group as one probe tells it.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    /// The word in the last line: `readyz`.
    pub(crate) endpoint: &'a str,
    /// What it tells of.
    pub(crate) group: &'a GroupReport,
    /// The services that do not count.
    pub(crate) excluded: &'a [&'a str],
    /// Whether the reasons are told.
    pub(crate) access: Access,
}

impl Told<'_> {
    /// One line a service and one for the whole, in the form of Kubernetes' `/readyz?verbose`.
    pub(crate) fn verbose(&self, report: &Report) -> String {
        let mut text = String::new();
        let Self { endpoint, group, excluded, access } = self;
        // Writing to a `String` can't fail, here and below.
        for member in members(report, group) {
            match excluded.contains(&member.id.as_str()) {
                true => _ = writeln!(text, "[+]{} excluded: ok", member.id),
                false => line(&mut text, member, &group.name, *access),
            }
        }
        if is_drained(report, &group.name) {
            text.push_str("[-]drain failed: the stack is told to end\n");
        }
        let unknown: Vec<&str> =
            excluded.iter().filter(|id| !group.members.iter().any(|member| *member == **id)).copied().collect();
        if !unknown.is_empty() {
            let list = unknown.iter().map(|id| format!("{id:?}")).collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "warn: some health checks cannot be excluded: no matches for {list}");
        }
        let passing = passes_without(report, group, excluded);
        let _ = writeln!(text, "{endpoint} check {}", if passing { "passed" } else { "failed" });
        text
    }
}

/// One service in one line.
pub(crate) fn line(text: &mut String, service: &ServiceReport, group: &str, access: Access) {
    let sign = if service.passes(group) { "[+]" } else { "[-]" };
    let note = match service.criticality {
        _ if !service.counts_now() => " (maintenance)",
        Criticality::Required => "",
        Criticality::Optional => " (optional)",
        Criticality::Informational => " (informational)",
    };
    let (id, status) = (&service.id, service.status);
    let _ = match (status, access) {
        (Status::Healthy, _) => writeln!(text, "{sign}{id}{note} ok"),
        (_, Access::Public) => writeln!(text, "{sign}{id}{note} {status}: reason withheld"),
        (_, Access::Operator) => writeln!(text, "{sign}{id}{note} {status}: {}", reason(service)),
    };
}

/// Why a service is not healthy, in one line of own words.
pub(crate) fn reason(service: &ServiceReport) -> String {
    match service.status {
        Status::Healthy => String::new(),
        Status::Degraded => findings(service, Severity::Warning),
        Status::Unhealthy => failure(service).unwrap_or_else(|| findings(service, Severity::Critical)),
        Status::Unknown if service.checked_at.is_none() => "no probe has ended yet".to_owned(),
        Status::Unknown if !service.caused_by.is_empty() => {
            let causes: Vec<&str> = service.caused_by.iter().map(|id| id.as_str()).collect();
            format!("because of {}", causes.join(", "))
        }
        Status::Unknown => "the last probe is too old".to_owned(),
    }
}

/// The failure's words without the service's name, which the line has already.
fn failure(service: &ServiceReport) -> Option<String> {
    let message = &service.failure.as_ref()?.message;
    let own = message.strip_prefix(service.id.as_str()).and_then(|rest| rest.strip_prefix(": "));
    Some(own.unwrap_or(message).to_owned())
}

fn findings(service: &ServiceReport, at_least: Severity) -> String {
    let bad: Vec<&str> =
        service.findings().filter(|found| found.severity >= at_least).map(|found| found.code.as_ref()).collect();
    match bad.is_empty() {
        // A service that failed less often than it takes to be unhealthy has no finding.
        true => failure(service).unwrap_or_else(|| "no finding".to_owned()),
        false => bad.join(", "),
    }
}
