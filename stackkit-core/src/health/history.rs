//! The last 24 hours of one service, in a ring of fixed size: one slot a minute.

use jiff::Timestamp;
use serde::Serialize;

use crate::health::Status;

/// How many minutes are kept: a day.
pub const HISTORY_MINUTES: usize = 24 * 60;
/// How many changes of the status are kept: a service that changes more often in a day flaps.
pub const HISTORY_CHANGES_MAX: usize = 64;

/// One minute of one service.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Minute {
    /// When it began.
    pub at: Timestamp,
    /// The worst status in it; `None` if nothing was known.
    pub status: Option<Status>,
    /// For which part of what is known of it the service was ready, in 0..=1.
    pub ready_ratio: Option<f64>,
    /// The median latency of its probes, in milliseconds.
    pub latency_p50_ms: Option<f64>,
    /// The 95th percentile of them.
    pub latency_p95_ms: Option<f64>,
}

/// A change of a service's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StatusChange {
    /// When.
    pub at: Timestamp,
    /// To what.
    pub to: Status,
}

/// How much of the time a service was ready, of the time in which that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Availability {
    /// Over the last hour, in 0..=1; `None` before the first probe.
    pub hour_ratio: Option<f64>,
    /// Over the last 24 hours.
    pub day_ratio: Option<f64>,
}

/// The last 24 hours of one service.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct History {
    /// How much of the time it was ready.
    pub availability: Availability,
    /// The minutes, oldest first, the running one last; none from before the first probe.
    pub minutes: Vec<Minute>,
    /// The last changes of its status, oldest first; [`HISTORY_CHANGES_MAX`] at most.
    pub changes: Vec<StatusChange>,
}
