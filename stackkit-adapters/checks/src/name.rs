//! What every check has: a name in its stack, and what is wrong with it.

use std::time::Duration;

use stackkit_core::{ConfigFault, ProbeContext, ServiceId};
use tokio::time::Instant;

/// The part of the time left that is kept for answering: a check that says by itself in which phase its time ran out says
/// more than one that is dropped at its deadline.
const ANSWER_SHARE: u32 = 10;
/// More than this is never kept: the answer takes microseconds, and a busy machine some milliseconds.
const ANSWER_MAX: Duration = Duration::from_millis(100);

/// The name that a constructor was given.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) id: ServiceId,
    fault: Option<ConfigFault>,
}

impl Name {
    /// `default` and `code` are literals of the check.
    pub(crate) fn new(id: &str, default: &'static str, code: &'static str) -> Self {
        let (id, fault) = ServiceId::or_fault(id, default, code);
        Self { id, fault }
    }

    /// What is wrong with the name, and `others`.
    pub(crate) fn faults(&self, others: impl IntoIterator<Item = ConfigFault>) -> Vec<ConfigFault> {
        self.fault.iter().cloned().chain(others).collect()
    }
}

/// Until when a probe may work, so that it can answer before it is dropped.
pub(crate) fn answer_by(cx: &ProbeContext) -> Instant {
    let kept = (cx.remaining() / ANSWER_SHARE).min(ANSWER_MAX);
    cx.deadline().checked_sub(kept).unwrap_or_else(|| cx.deadline())
}

/// The milliseconds since `start`.
pub(crate) fn ms_since(cx: &ProbeContext, start: Instant) -> f64 {
    cx.clock().instant().saturating_duration_since(start).as_secs_f64() * 1e3
}

/// A count as measurements carry it; exact below 2^53.
#[allow(clippy::cast_precision_loss, reason = "a measurement is a float, and no count here reaches 2^53")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
