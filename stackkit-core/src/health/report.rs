//! What the engine says of a stack at one moment.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Phase};
use crate::health::{Finding, Observation};
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

/// What is known of one service.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServiceReport {
    /// Its name in the stack.
    pub id: ServiceId,
    /// Its kind.
    pub kind: &'static str,
    /// Where it is, redacted.
    pub endpoint: String,
    /// How it is.
    pub status: Status,
    /// What its status means for the stack.
    pub criticality: Criticality,
    /// Since when it has this status.
    pub since: Timestamp,
    /// When the last probe ended; `None` before the first.
    pub checked_at: Option<Timestamp>,
    /// How long the last probe took, in milliseconds.
    pub latency_ms: Option<f64>,
    /// How many probes in a row could observe.
    pub successes_count: u64,
    /// How many probes in a row could not.
    pub failures_count: u64,
    /// Why the last probe could not observe.
    pub failure: Option<ProbeFailure>,
    /// What the last successful probe saw.
    #[serde(serialize_with = "serialize_shared")]
    pub observation: Option<Arc<Observation>>,
    /// Limits of [`Thresholds`](crate::health::Thresholds) that are exceeded.
    pub exceeded: Vec<Finding>,
    /// The moment from which this report is too old to be believed.
    #[serde(skip)]
    pub(crate) stale_at: Option<Instant>,
}

fn serialize_shared<S: Serializer>(shared: &Option<Arc<Observation>>, serializer: S) -> Result<S::Ok, S::Error> {
    shared.as_deref().serialize(serializer)
}

/// What is known of a stack at one moment. Making it can't fail, and reading it does no I/O.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The stack's name.
    pub stack: String,
    /// When it was made.
    pub generated_at: Timestamp,
    /// How the stack is: the worst of what counts.
    pub status: Status,
    /// Whether the stack may get requests: each required service is healthy or degraded.
    pub ready: bool,
    /// One entry a service, in the stack's order.
    pub services: Vec<ServiceReport>,
}

impl Report {
    /// Folds the services' reports into one.
    pub(crate) fn new(stack: String, generated_at: Timestamp, services: Vec<ServiceReport>) -> Self {
        let status = services.iter().filter_map(weight).max().unwrap_or(Status::Healthy);
        let required = |service: &&ServiceReport| service.criticality == Criticality::Required;
        let ready = services.iter().filter(required).all(|service| service.status.is_ready());
        Self { stack, generated_at, status, ready, services }
    }

    /// The entry of one service.
    #[must_use]
    pub fn service(&self, id: &str) -> Option<&ServiceReport> {
        self.services.iter().find(|service| service.id == id)
    }

    /// The earliest moment at which an entry becomes too old.
    pub(crate) fn stale_at(&self) -> Option<Instant> {
        self.services.iter().filter(|service| service.status != Status::Unknown).filter_map(|s| s.stale_at).min()
    }

    /// The same report with each entry that is too old at `instant` turned to [`Status::Unknown`].
    pub(crate) fn aged(&self, instant: Instant, now: Timestamp) -> Self {
        let mut services = self.services.clone();
        for service in &mut services {
            let Some(stale_for) = service.stale_at.and_then(|stale_at| instant.checked_duration_since(stale_at)) else {
                continue;
            };
            if service.status != Status::Unknown {
                service.status = Status::Unknown;
                service.since = now.checked_sub(stale_for).unwrap_or(now);
            }
        }
        Self::new(self.stack.clone(), now, services)
    }
}

/// What a service's status means for the stack's: an optional failure degrades, an informational one says nothing.
fn weight(service: &ServiceReport) -> Option<Status> {
    match service.criticality {
        Criticality::Required => Some(service.status),
        Criticality::Optional => Some(service.status.min(Status::Degraded)),
        Criticality::Informational => None,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = if self.ready { "ready" } else { "not ready" };
        write!(f, "{}: {}, {ready}", self.stack, self.status)?;
        for service in &self.services {
            write!(f, "\n  {:<16} {:<12} {:<10}", service.id.as_str(), service.kind, service.status)?;
            if let Some(latency_ms) = service.latency_ms {
                write!(f, " {latency_ms:>9.2} ms")?;
            }
            write!(f, "  {}", service.endpoint)?;
            if let Some(failure) = &service.failure {
                write!(f, "\n    {}: {}", failure.kind, failure.message)?;
            }
            let findings = service.observation.iter().flat_map(|seen| &seen.findings).chain(&service.exceeded);
            for finding in findings {
                write!(f, "\n    {}: {}", finding.code, finding.message)?;
            }
        }
        Ok(())
    }
}
