//! The contract of a probe.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error::Result;
use crate::health::Observation;
use crate::service::Service;

/// How much a probe looks at. Each tier includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Tier {
    /// Does it answer: the cheapest round trip there is.
    Ping,
    /// What one round trip can tell: memory, connections, roles.
    #[default]
    Vitals,
    /// Sizes per database, table or key space: may cost tens of milliseconds on the server. One that fails is told by
    /// a finding, and the vitals decide: a store that is too large to be counted in time still serves.
    Inventory,
}

/// What the runner tells a probe.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProbeContext {
    tier: Tier,
    deadline: Instant,
    previous: Option<Arc<Observation>>,
    clock: Clock,
}

impl ProbeContext {
    /// A context of the given tier that ends at `deadline`, without a previous observation.
    #[must_use]
    pub fn new(tier: Tier, deadline: Instant) -> Self {
        Self { tier, deadline, previous: None, clock: Clock::system() }
    }

    /// Hands the last observation in, for rates.
    #[must_use]
    pub fn with_previous(mut self, previous: Option<Arc<Observation>>) -> Self {
        self.previous = previous;
        self
    }

    /// Takes time from `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How much to look at.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// When the probe is dropped if it has not ended by itself.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time that is left until the deadline; zero when it passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(self.clock.instant())
    }

    /// The last successful observation of this service, if there is one.
    #[must_use]
    pub fn previous(&self) -> Option<&Observation> {
        self.previous.as_deref()
    }

    /// Where time comes from.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// A datastore that can be looked at.
#[async_trait]
pub trait HealthCheck: Service {
    /// Looks once. Read-only; never retries, sleeps or spawns; sets a server-side deadline from
    /// [`ProbeContext::deadline`] where the server knows one.
    ///
    /// # Errors
    /// An error means *could not observe*. What was observed and is bad is a finding in the observation.
    ///
    /// # Cancel safety
    /// Cancel safe: a probe takes the connection out of its slot and puts it back only when it is clean, so
    /// dropping the future drops the connection.
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation>;

    /// Drops what may be stuck; called by the runner after a timeout or a panic, unless the probe still blocks its
    /// thread: then nothing more is called until it lets go. Does nothing unless overridden.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn reset(&self) {}
}
