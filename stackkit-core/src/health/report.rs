//! What the engine says of a stack at one moment.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Phase};
use crate::health::state::Last;
use crate::health::{Availability, Finding, LIVE, Observation, ProbeCounts, STARTUP, Tier};
use crate::service::ServiceId;
use crate::stack::Criticality;

/// How a service or a stack is. Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It serves.
    Healthy,
    /// It serves, and something should be looked at.
    Degraded,
    /// Nobody knows: not probed yet, or the last probe is too old.
    Unknown,
    /// It does not serve.
    Unhealthy,
}

impl Status {
    /// Whether a service of this status may get requests.
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }

    /// The status as the word that views print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a probe could not observe: the public part of its error, without any driver's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProbeFailure {
    /// What went wrong.
    pub kind: ErrorKind,
    /// In which phase of the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The vendor's own code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// One line of own words, with its facts.
    pub message: String,
}

impl From<&Error> for ProbeFailure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            phase: error.phase(),
            code: error.code().map(str::to_owned),
            message: error.to_string(),
        }
    }
}

/// A service's status on each axis; the three are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Axes {
    /// Whether it answers.
    pub reach: Status,
    /// Whether it can serve.
    pub ready: Status,
    /// Whether it will be in trouble later.
    pub risk: Status,
}

impl Axes {
    /// The same on each.
    pub(crate) const fn all(status: Status) -> Self {
        Self { reach: status, ready: status, risk: status }
    }
}

/// The last probe of one tier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TierReport {
    /// The tier.
    pub tier: Tier,
    /// When the last probe that could observe ended.
    pub checked_at: Timestamp,
    /// How long it took, in milliseconds.
    pub latency_ms: f64,
}

/// What is known of one service.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServiceReport {
    /// Its name in the stack.
    pub id: ServiceId,
    /// Its kind.
    pub kind: &'static str,
    /// Where it is, redacted.
    pub endpoint: Arc<str>,
    /// How it is.
    pub status: Status,
    /// How it is on each axis; held by rise, fall and grace as the status is.
    pub axes: Axes,
    /// What its status means for the stack.
    pub criticality: Criticality,
    /// Since when it has this status.
    pub since: Timestamp,
    /// When the last probe ended; `None` before the first.
    pub checked_at: Option<Timestamp>,
    /// How long the last probe took, in milliseconds; an inventory does not count.
    pub latency_ms: Option<f64>,
    /// The last probe of each tier that could observe.
    pub tiers: Vec<TierReport>,
    /// How many probes there were.
    pub attempts_count: u64,
    /// How many probes in a row could observe.
    pub successes_count: u64,
    /// How many probes in a row could not.
    pub failures_count: u64,
    /// Why the last probe could not observe.
    pub failure: Option<ProbeFailure>,
    /// Since when a probe holds its thread, if one does: no other is started beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck_since: Option<Timestamp>,
    /// Whether it turns so often that its transitions are not told.
    pub flapping: bool,
    /// The services that are the cause of its being unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caused_by: Vec<ServiceId>,
    /// Until when it counts for nothing, if its maintenance was announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<Timestamp>,
    /// How much of the time it was ready.
    pub availability: Availability,
    /// The groups that it is in.
    pub groups: Arc<[String]>,
    /// The services that must be ready before it.
    pub dependencies: Arc<[String]>,
    /// What the last successful probes saw, one of each tier.
    pub observation: Option<Arc<Observation>>,
    /// What the rules and [`Thresholds`](crate::health::Thresholds) found in it.
    pub exceeded: Vec<Finding>,
    /// What its probes came to since the process started.
    #[serde(skip)]
    pub counts: Arc<ProbeCounts>,
    /// The moment from which this report is too old to be believed.
    #[serde(skip)]
    pub(crate) stale_at: Option<Instant>,
    /// Whether that moment has passed.
    #[serde(skip)]
    pub(crate) is_stale: bool,
    /// Whether it was ever ready.
    #[serde(skip)]
    pub(crate) was_ready: bool,
    /// Since when it has this status, by the time that passes.
    #[serde(skip)]
    pub(crate) since_at: Instant,
    /// What the last result meant by itself.
    #[serde(skip)]
    pub(crate) last: Last,
    /// When the last probe started.
    #[serde(skip)]
    pub(crate) probed_at: Option<Instant>,
    /// When the causes of its being unknown were over, until it has been probed since.
    #[serde(skip)]
    pub(crate) healed_at: Option<Instant>,
}

impl ServiceReport {
    /// All findings: what the probes found, and what the rules found in their measurements.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.observation.iter().flat_map(|seen| &seen.findings).chain(&self.exceeded)
    }

    /// Whether a group may pass with it: it is ready; for [`LIVE`] it is not unhealthy, for [`STARTUP`] it was ready once.
    #[must_use]
    pub fn passes(&self, group: &str) -> bool {
        match group {
            LIVE => self.status != Status::Unhealthy,
            STARTUP => self.was_ready,
            _ => self.status.is_ready(),
        }
    }

    /// Whether the group hangs on it: it is required, and not in maintenance.
    #[must_use]
    pub fn is_decisive(&self) -> bool {
        self.criticality == Criticality::Required && self.counts_now()
    }

    /// As the last result means by itself, whatever rise, fall and grace make of it.
    pub(crate) fn at_face_value(mut self) -> Self {
        if self.last.status != Status::Unknown {
            (self.status, self.axes) = (self.last.status, self.last.axes);
        }
        self
    }

    /// Whether this one and another are the same result at different moments.
    pub(crate) fn is_same_result(&self, other: &Self) -> bool {
        self.attempts_count == other.attempts_count
            && self.stale_at == other.stale_at
            && self.maintenance_until == other.maintenance_until
    }

    /// The causes of its being unknown, if there are any: `db, cache`.
    pub(crate) fn causes(&self) -> Option<String> {
        let causes: Vec<&str> = self.caused_by.iter().map(ServiceId::as_str).collect();
        (!causes.is_empty()).then(|| causes.join(", "))
    }

    /// Whether it counts for the status of its stack and groups: it does not while it is in maintenance.
    #[must_use]
    pub fn counts_now(&self) -> bool {
        self.maintenance_until.is_none()
    }
}

/// A group of services, such as `ready`, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupReport {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it passes: each required member is ready. `startup` passes once each was; `live` passes unless one is
    /// unhealthy.
    pub passing: bool,
    /// The worst of its members that count.
    pub status: Status,
    /// Its members.
    pub members: Arc<[ServiceId]>,
}

/// What is known of a stack at one moment. Making it can't fail, and reading it does no I/O.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The stack's name.
    pub stack: Arc<str>,
    /// When it was made.
    pub generated_at: Timestamp,
    /// How the stack is: the worst of what counts.
    pub status: Status,
    /// Whether the stack may get requests: its group `ready` passes, and it does not drain.
    pub ready: bool,
    /// Whether [`begin_drain`](crate::Monitor::begin_drain) was called: it is not ready whatever its services are.
    pub draining: bool,
    /// How many reports the monitor published before this one.
    pub sequence: u64,
    /// `live`, `ready` and `startup`, then the stack's own groups.
    pub groups: Vec<GroupReport>,
    /// One entry a service, in the stack's order.
    pub services: Vec<Arc<ServiceReport>>,
    /// The earliest moment at which an entry becomes too old.
    #[serde(skip)]
    pub(crate) stale_at: Option<Instant>,
    /// Where each service is in `services`.
    #[serde(skip)]
    pub(crate) positions: Arc<HashMap<ServiceId, usize>>,
}

impl Report {
    /// The entry of one service.
    #[must_use]
    pub fn service(&self, id: &str) -> Option<&ServiceReport> {
        self.services.get(*self.positions.get(id)?).map(Arc::as_ref)
    }

    /// The entry of one group.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupReport> {
        self.groups.iter().find(|group| group.name.as_ref() == name)
    }
}

impl fmt::Display for Report {
    /// One line for the stack, then one for each service with what is to be said of it below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = if self.ready { "ready" } else { "not ready" };
        write!(f, "{}: {}, {ready}", self.stack, self.status)?;
        if self.draining {
            f.write_str(", draining")?;
        }
        self.services.iter().try_for_each(|service| write!(f, "\n{service}"))
    }
}

impl fmt::Display for ServiceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<16} {:<12} {:<10}", self.id.as_str(), self.kind, self.status)?;
        if let Some(latency_ms) = self.latency_ms {
            write!(f, " {latency_ms:>9.2} ms")?;
        }
        write!(f, "  {}", self.endpoint)?;
        if let Some(until) = self.maintenance_until {
            write!(f, "\n    in maintenance until {until:.0}")?;
        }
        if let Some(causes) = self.causes() {
            write!(f, "\n    because of {causes}")?;
        }
        if let Some(failure) = &self.failure {
            write!(f, "\n    {}: {}", failure.kind, failure.message)?;
        }
        for finding in self.findings() {
            write!(f, "\n    {}: {}", finding.code, finding.message)?;
        }
        Ok(())
    }
}
