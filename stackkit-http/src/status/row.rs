//! One service as a row.

use std::fmt::Write as _;

use jiff::Timestamp;
use stackkit_core::Criticality;
use stackkit_core::health::{Finding, History, ServiceReport, Severity, Status};

use super::charts::{self, Probed};
use super::html::{Span, Text, ago, class, icon, moment, word};

/// What a row is made of.
pub(super) struct Row<'a> {
    pub(super) service: &'a ServiceReport,
    pub(super) history: Option<&'a History>,
    pub(super) now: Timestamp,
    pub(super) details: bool,
}

impl Row<'_> {
    /// The row as a list item; its `id` stays the same, so that the page's script finds it again.
    pub(super) fn html(&self) -> String {
        let service = self.service;
        let id = Text(service.id.as_str());
        let class = self.class();
        let last = service.latency_ms.map(|ms| if service.failure.is_some() { Probed::Failed } else { Probed::In(ms) });
        let latencies = charts::latencies(self.history, last, self.now);
        let bar = self.history.map_or_else(String::new, |history| charts::availability(history, self.now));
        format!(
            r#"<li class="row {class}" id="service-{id}" tabindex="-1" aria-labelledby="name-{id}"><div class="who">{icon}<div><h3 id="name-{id}">{id}</h3>{about}</div></div><div class="state"><p class="word">{word}</p><p class="faint">{since}</p></div><div class="chart">{latencies}</div><div class="chart">{bar}</div>{notes}</li>"#,
            icon = icon(class),
            about = self.about(),
            word = self.word(),
            since = self.since(),
            notes = self.notes(),
        )
    }

    fn in_maintenance(&self) -> bool {
        self.service.maintenance_until.is_some()
    }

    fn class(&self) -> &'static str {
        if self.in_maintenance() { "maintenance" } else { class(self.service.status) }
    }

    fn word(&self) -> &'static str {
        if self.in_maintenance() { "Maintenance" } else { word(self.service.status) }
    }

    /// Its kind, what it means for the stack and what it needs.
    fn about(&self) -> String {
        let service = self.service;
        let mut parts = vec![Text(service.kind).to_string()];
        match service.criticality {
            Criticality::Required => {}
            Criticality::Optional => parts.push("optional".to_owned()),
            Criticality::Informational => parts.push("informational".to_owned()),
        }
        if !service.dependencies.is_empty() {
            let needs: Vec<String> = service.dependencies.iter().map(|id| link(id)).collect();
            parts.push(format!("needs {}", needs.join(", ")));
        }
        let endpoint = match self.details {
            true => format!(r#"<p class="faint">{}</p>"#, Text(&service.endpoint)),
            false => String::new(),
        };
        format!(r#"<p class="faint">{}</p>{endpoint}"#, parts.join(" · "))
    }

    fn since(&self) -> String {
        let service = self.service;
        match service.maintenance_until {
            Some(until) => format!("until {} · is {}", moment(until, self.now), class(service.status)),
            None if service.checked_at.is_none() => "not probed yet".to_owned(),
            None => format!("for {}", ago(service.since, self.now)),
        }
    }

    fn notes(&self) -> String {
        let mut notes = String::new();
        self.cause(&mut notes);
        if let Some(since) = self.service.stuck_since {
            note(&mut notes, "unhealthy", &format!("A probe is stuck for {}.", ago(since, self.now)));
        }
        if self.service.flapping {
            note(&mut notes, "degraded", "It flaps: it turns too often for each turn to be told.");
        }
        if self.details {
            self.service.findings().for_each(|finding| note(&mut notes, severity(finding.severity).0, &said(finding)));
            self.backups(&mut notes);
        }
        if notes.is_empty() { notes } else { format!(r#"<ul class="notes" role="list">{notes}</ul>"#) }
    }

    /// Why nothing is known of it, or why it fails. A failure that another service causes is told there.
    fn cause(&self, notes: &mut String) {
        let service = self.service;
        if !service.caused_by.is_empty() {
            let causes: Vec<String> = service.caused_by.iter().map(|id| link(id.as_str())).collect();
            note(notes, "unknown", &format!("{} because of {}.", word(service.status), causes.join(" and ")));
            return;
        }
        if service.status == Status::Unknown
            && let Some(checked_at) = service.checked_at
        {
            note(notes, "unknown", &format!("The last probe ended {} ago.", ago(checked_at, self.now)));
        }
        if let Some(failure) = service.failure.as_ref().filter(|_| self.details) {
            let own = failure.message.strip_prefix(service.id.as_str()).and_then(|rest| rest.strip_prefix(": "));
            let phase = failure.phase.map(|phase| format!("in phase {}", phase.as_str()));
            let facts: Vec<String> = [Some(failure.kind.as_str().to_owned()), phase].into_iter().flatten().collect();
            let (own, facts) = (own.unwrap_or(&failure.message), facts.join(" · "));
            let text = format!(r#"<b>{}</b><span class="code">{}</span>"#, Text(own), Text(&facts));
            note(notes, "unhealthy", &text);
        }
    }

    /// How old the last backup, check and drill are, of a service that watches backups.
    fn backups(&self, notes: &mut String) {
        let Some(seen) = self.service.observation.as_ref().filter(|_| self.service.kind == "backup") else { return };
        let parts = [
            ("backup_age_seconds", "Last backup"),
            ("verify_age_seconds", "verified"),
            ("drill_age_seconds", "drilled"),
        ]
        .into_iter()
        .filter_map(|(name, what)| Some((what, seen.value(name)?)));
        let parts: Vec<String> = parts.map(|(what, seconds)| self.age(what, seconds)).collect();
        if !parts.is_empty() {
            note(notes, "backup", &parts.join(" · "));
        }
    }

    /// An age that was measured when the service was probed, as the moment that it counts from.
    fn age(&self, what: &str, seconds: f64) -> String {
        let age = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let seen_at = self.service.checked_at.unwrap_or(self.now);
        match seen_at.checked_sub(age) {
            Ok(at) => format!("{what} {} ago", ago(at, self.now)),
            Err(_before_time) => format!("{what} {} ago", Span(age.as_secs())),
        }
    }
}

fn note(notes: &mut String, class: &str, text: &str) {
    // Writing to a `String` can't fail.
    let _ = write!(notes, r#"<li class="note {class}">{}<div>{text}</div></li>"#, icon(class));
}

fn link(id: &str) -> String {
    let id = Text(id);
    format!(r##"<a href="#service-{id}">{id}</a>"##)
}

/// The style of a severity, and its word.
fn severity(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Info => ("info", "Info"),
        Severity::Warning => ("degraded", "Warning"),
        Severity::Critical => ("unhealthy", "Critical"),
    }
}

fn said(finding: &Finding) -> String {
    let (_, severity) = severity(finding.severity);
    let hint = finding.hint.as_ref().map_or_else(String::new, |hint| format!(r#"<p class="hint">{}</p>"#, Text(hint)));
    format!(r#"<b>{severity}: {}</b><span class="code">{}</span>{hint}"#, Text(&finding.message), Text(&finding.code))
}
