//! What the probes of one service came to, since the process started: for metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{ErrorKind, Phase};
use crate::health::Tier;

/// The upper bounds of the histogram's buckets in seconds: from a warm ping on this machine to the longest inventory.
pub const PROBE_SECONDS_BOUNDS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0];

/// How long the probes of one tier took.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Durations {
    /// How many were within each of [`PROBE_SECONDS_BOUNDS`] and above the one before; the last is for all that took longer.
    pub buckets: [u64; PROBE_SECONDS_BOUNDS.len() + 1],
    /// All of them together, in seconds.
    pub sum_seconds: f64,
    /// How many there were.
    pub count: u64,
}

/// What the probes of one service came to.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ProbeCounts {
    /// How long they took, by tier as in [`Tier::ALL`].
    pub durations: [Durations; 4],
    /// How many could not observe, by kind and phase.
    pub errors: BTreeMap<(&'static str, Option<&'static str>), u64>,
}

impl ProbeCounts {
    pub(crate) fn took(&mut self, tier: Tier, latency: Duration) {
        let seconds = latency.as_secs_f64();
        let bucket = PROBE_SECONDS_BOUNDS.iter().position(|bound| seconds <= *bound);
        let Some(durations) = self.durations.get_mut(tier.index()) else { return };
        if let Some(count) = durations.buckets.get_mut(bucket.unwrap_or(PROBE_SECONDS_BOUNDS.len())) {
            *count += 1;
        }
        durations.sum_seconds += seconds;
        durations.count += 1;
    }

    pub(crate) fn failed(&mut self, kind: ErrorKind, phase: Option<Phase>) {
        *self.errors.entry((kind.as_str(), phase.map(Phase::as_str))).or_default() += 1;
    }
}
