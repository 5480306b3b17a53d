//! What the engine itself tells: statuses, groups, probes.

use jiff::Timestamp;
use stackkit_core::Report;
use stackkit_core::health::{Durations, PROBE_SECONDS_BOUNDS, ServiceReport, Status, Tier};

use super::family::{Families, Head, Type};
use crate::options::Access;

const STATES: [Status; 4] = [Status::Healthy, Status::Degraded, Status::Unknown, Status::Unhealthy];

/// One metric of the engine, as the documents list it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    pub(crate) name: &'static str,
    pub(crate) kind: Type,
    pub(crate) unit: Option<&'static str>,
    pub(crate) help: &'static str,
    pub(crate) labels: &'static [&'static str],
}

impl Own {
    const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, kind: Type::Gauge, unit: None, help, labels }
    }

    const fn unit(self, unit: &'static str) -> Self {
        Self { unit: Some(unit), ..self }
    }

    fn head(&self) -> Head {
        Head { name: self.name.to_owned(), kind: self.kind, unit: self.unit, help: self.help.to_owned() }
    }
}

pub(crate) const STATUS: Own = Own::gauge(
    "stackkit_health_status",
    "1 for the status that the service has, 0 for the others",
    &["service", "kind", "state"],
);
pub(crate) const SERVICE: Own =
    Own::gauge("stackkit_service", "1; what the service is to its stack", &["service", "kind", "criticality"]);
pub(crate) const SINCE: Own =
    Own::gauge("stackkit_health_since_timestamp_seconds", "Since when the service has its status", &["service"])
        .unit("seconds");
pub(crate) const FLAPPING: Own =
    Own::gauge("stackkit_health_flapping", "1 while the service turns too often to be told of", &["service"]);
pub(crate) const MAINTENANCE: Own =
    Own::gauge("stackkit_health_maintenance", "1 while the service is in maintenance", &["service"]);
pub(crate) const AVAILABILITY: Own = Own::gauge(
    "stackkit_health_availability_ratio",
    "For how much of the time that is known the service was ready",
    &["service", "window"],
)
.unit("ratio");
pub(crate) const GROUP: Own = Own::gauge("stackkit_health_group_passing", "1 if the group passes", &["group"]);
pub(crate) const READY: Own =
    Own::gauge("stackkit_health_ready", "1 if the stack may get requests: what /readyz answers", &[]);
pub(crate) const DRAINING: Own = Own::gauge("stackkit_health_draining", "1 once the stack was told to end", &[]);
pub(crate) const DURATION: Own = Own {
    name: "stackkit_probe_duration_seconds",
    kind: Type::Histogram,
    unit: Some("seconds"),
    help: "How long probes took",
    labels: &["service", "tier"],
};
pub(crate) const ERRORS: Own = Own {
    name: "stackkit_probe_errors",
    kind: Type::Counter,
    unit: None,
    help: "Probes that could not observe, by the kind of the error and the phase of the conversation",
    labels: &["service", "class", "phase"],
};
pub(crate) const LAST_SUCCESS: Own = Own::gauge(
    "stackkit_probe_last_success_timestamp_seconds",
    "When the last probe that could observe ended",
    &["service", "tier"],
)
.unit("seconds");
pub(crate) const FINDING: Own = Own::gauge(
    "stackkit_finding",
    "1 for each finding that the service has; only where details are shown",
    &["service", "code", "severity", "axis"],
);

/// All of them, for the documents.
pub(crate) const ALL: [Own; 13] = [
    STATUS,
    SERVICE,
    SINCE,
    FLAPPING,
    MAINTENANCE,
    AVAILABILITY,
    GROUP,
    READY,
    DRAINING,
    DURATION,
    ERRORS,
    LAST_SUCCESS,
    FINDING,
];

/// Adds what the engine tells.
pub(super) fn put(families: &mut Families, report: &Report, access: Access) {
    let mut out = Out(families);
    out.add(&READY, &[], f64::from(u8::from(report.ready)));
    out.add(&DRAINING, &[], f64::from(u8::from(report.draining)));
    for group in &report.groups {
        out.add(&GROUP, &[("group", &group.name)], f64::from(u8::from(group.passing)));
    }
    for service in &report.services {
        out.state(service);
        out.probes(service);
        if access.is_operator() {
            out.findings(service);
        }
    }
}

struct Out<'a>(&'a mut Families);

impl Out<'_> {
    fn add(&mut self, own: &Own, labels: &[(&str, &str)], value: f64) {
        if let Some(mut samples) = self.0.family(&own.head()) {
            samples.add(labels, value);
        }
    }

    fn state(&mut self, service: &ServiceReport) {
        let id = ("service", service.id.as_str());
        let kind = ("kind", service.kind);
        for state in STATES {
            let is = f64::from(u8::from(state == service.status));
            self.add(&STATUS, &[id, kind, ("state", state.as_str())], is);
        }
        self.add(&SERVICE, &[id, kind, ("criticality", service.criticality.as_str())], 1.0);
        self.add(&SINCE, &[id], seconds(service.since));
        self.add(&FLAPPING, &[id], f64::from(u8::from(service.flapping)));
        self.add(&MAINTENANCE, &[id], f64::from(u8::from(!service.counts_now())));
        let availability = &service.availability;
        for (window, ratio) in [("1h", availability.hour_ratio), ("24h", availability.day_ratio)] {
            if let Some(ratio) = ratio {
                self.add(&AVAILABILITY, &[id, ("window", window)], ratio);
            }
        }
    }

    fn probes(&mut self, service: &ServiceReport) {
        let id = ("service", service.id.as_str());
        for (tier, durations) in Tier::ALL.into_iter().zip(&service.counts.durations) {
            if durations.count > 0 {
                self.histogram(&[id, ("tier", tier.as_str())], durations);
            }
        }
        for ((class, phase), count) in &service.counts.errors {
            if let Some(mut samples) = self.0.family(&ERRORS.head()) {
                samples.add(&[id, ("class", class), ("phase", phase.unwrap_or("none"))], count);
            }
        }
        for tier in &service.tiers {
            self.add(&LAST_SUCCESS, &[id, ("tier", tier.tier.as_str())], seconds(tier.checked_at));
        }
    }

    fn histogram(&mut self, labels: &[(&str, &str); 2], durations: &Durations) {
        let Some(mut samples) = self.0.family(&DURATION.head()) else { return };
        let [id, tier] = *labels;
        let mut below = 0;
        let bounds = PROBE_SECONDS_BOUNDS.iter().map(|bound| format!("{bound:?}"));
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(durations.buckets) {
            below += count;
            samples.add_part("_bucket", &[id, tier, ("le", &bound)], below);
        }
        samples.add_part("_sum", labels, durations.sum_seconds);
        samples.add_part("_count", labels, durations.count);
    }

    /// One sample a code: the same code may be found several times, in several tables.
    fn findings(&mut self, service: &ServiceReport) {
        let id = ("service", service.id.as_str());
        let found = service.findings().map(|it| (it.code.as_ref(), it.severity.as_str(), it.axis.as_str()));
        for (code, severity, axis) in found.collect::<std::collections::BTreeSet<_>>() {
            self.add(&FINDING, &[id, ("code", code), ("severity", severity), ("axis", axis)], 1.0);
        }
    }
}

fn seconds(at: Timestamp) -> f64 {
    std::time::Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).map_or(0.0, |since| since.as_secs_f64())
}
