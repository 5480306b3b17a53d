//! The contract of a probe.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error::Result;
use crate::health::{Measurement, MeasurementValue, Metric, Observation, Rule};
use crate::service::Service;

/// How much a probe looks at, by what it costs. A probe of one tier tells what belongs to that tier; the report merges the
/// latest of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Tier {
    /// What this process and this machine can tell without asking a server: a heartbeat, a disk. The only tier that the
    /// group `live` may hold.
    Process,
    /// Does it answer: the cheapest round trip there is.
    Ping,
    /// What one round trip can tell: memory, connections, roles.
    #[default]
    Vitals,
    /// Sizes per database, table or key space: may cost tens of milliseconds on the server. One that fails is told by
    /// a finding, and the other tiers decide: a store that is too large to be counted in time still serves.
    Inventory,
}

impl Tier {
    /// All tiers, the cheapest first.
    pub const ALL: [Self; 4] = [Self::Process, Self::Ping, Self::Vitals, Self::Inventory];

    /// The tier as the word that views print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Ping => "ping",
            Self::Vitals => "vitals",
            Self::Inventory => "inventory",
        }
    }

    /// The position in [`Tier::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Process => 0,
            Self::Ping => 1,
            Self::Vitals => 2,
            Self::Inventory => 3,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How much a counter grew since the last probe of the same tier.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Growth {
    /// By this much, in this time.
    Since {
        /// How much more it is.
        amount: f64,
        /// In how long.
        elapsed: Duration,
    },
    /// It is smaller than before: the server started anew, or its statistics were reset. Not a spike.
    Reset,
    /// There is nothing to compare with yet.
    First,
}

impl Growth {
    /// How much it grew, if that can be said.
    #[must_use]
    pub fn amount(self) -> Option<f64> {
        match self {
            Self::Since { amount, .. } => Some(amount),
            Self::Reset | Self::First => None,
        }
    }

    /// The growth as a measurement: a reset and a first probe have no number, and say why.
    #[must_use]
    pub fn value(self) -> MeasurementValue {
        match self {
            Self::Since { amount, .. } => amount.into(),
            Self::Reset => MeasurementValue::Unavailable("the counter was reset".to_owned()),
            Self::First => MeasurementValue::Unavailable("needs a previous observation".to_owned()),
        }
    }

    /// The growth in a second as a measurement.
    #[must_use]
    pub fn per_second(self) -> MeasurementValue {
        match self {
            Self::Since { amount, elapsed } => (amount / elapsed.as_secs_f64()).into(),
            other => other.value(),
        }
    }
}

/// What the runner tells a probe.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProbeContext {
    tier: Tier,
    deadline: Instant,
    previous: Option<Arc<Observation>>,
    previous_at: Option<Instant>,
    clock: Clock,
}

impl ProbeContext {
    /// A context of the given tier that ends at `deadline`, without a previous observation.
    #[must_use]
    pub fn new(tier: Tier, deadline: Instant) -> Self {
        Self { tier, deadline, previous: None, previous_at: None, clock: Clock::system() }
    }

    /// Hands the last observation in, for rates.
    #[must_use]
    pub fn with_previous(mut self, previous: Option<Arc<Observation>>) -> Self {
        self.previous = previous;
        self
    }

    /// Says when that observation was made.
    #[must_use]
    pub fn with_previous_at(mut self, previous_at: Option<Instant>) -> Self {
        self.previous_at = previous_at;
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

    /// When the probe must have ended, with an error that says in which phase it waited. One that has not is dropped
    /// some milliseconds later.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time that is left until the deadline; zero when it passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(self.clock.instant())
    }

    /// The last successful observation of this service on the same tier, if there is one.
    #[must_use]
    pub fn previous(&self) -> Option<&Observation> {
        self.previous.as_deref()
    }

    /// How long ago that was, on the monotonic clock.
    #[must_use]
    pub fn elapsed(&self) -> Option<Duration> {
        self.previous_at.map(|at| self.clock.instant().saturating_duration_since(at))
    }

    /// How much the counter `name`, which is now `value`, grew since [`ProbeContext::previous`].
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use stackkit_core::health::{Growth, Tier};
    /// use stackkit_core::{Clock, Observation, ProbeContext};
    /// let now = Clock::system().instant();
    /// let before = Observation::new().counter("evictions_count", 5.0);
    /// let cx = ProbeContext::new(Tier::Vitals, now).with_previous(Some(Arc::new(before))).with_previous_at(Some(now));
    /// assert_eq!(cx.growth("evictions_count", 7.0).amount(), Some(2.0));
    /// assert_eq!(cx.growth("evictions_count", 1.0), Growth::Reset);
    /// assert_eq!(cx.growth("misses_count", 1.0), Growth::First);
    /// ```
    #[must_use]
    pub fn growth(&self, name: &str, value: f64) -> Growth {
        let before = self.previous().and_then(|previous| previous.value(name));
        self.grown(before, value)
    }

    /// As [`ProbeContext::growth`], of the counter with the same name and the same labels; [`Growth::First`] if it has no number.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use stackkit_core::health::{Measurement, MeasurementKind, Tier};
    /// use stackkit_core::{Clock, Observation, ProbeContext};
    /// let hits = |db: &str, count: f64| Measurement::new("hits_count", MeasurementKind::Counter, count.into()).with_label("db", db);
    /// let now = Clock::system().instant();
    /// let before = Observation::new().measurement(hits("0", 5.0)).measurement(hits("1", 7.0));
    /// let cx = ProbeContext::new(Tier::Vitals, now).with_previous(Some(Arc::new(before))).with_previous_at(Some(now));
    /// assert_eq!(cx.growth_of(&hits("1", 8.0)).amount(), Some(1.0));
    /// ```
    #[must_use]
    pub fn growth_of(&self, counter: &Measurement) -> Growth {
        let Some(value) = counter.number() else { return Growth::First };
        let before =
            self.previous().and_then(|previous| previous.measurements.iter().find(|seen| seen.is_same(counter)));
        self.grown(before.and_then(Measurement::number), value)
    }

    fn grown(&self, before: Option<f64>, value: f64) -> Growth {
        match before.zip(self.elapsed()) {
            None => Growth::First,
            Some((before, _)) if value < before => Growth::Reset,
            Some((before, elapsed)) => Growth::Since { amount: value - before, elapsed },
        }
    }

    /// Where time comes from.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// Something that can be looked at: a datastore, an application, a disk.
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

    /// The tiers that this check knows, the cheapest first; the runner asks for no other. [`Tier::Ping`] alone unless
    /// overridden. A check of [`Tier::Process`] alone asks no server, and may be in the group `live`.
    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Ping]
    }

    /// What it measures: one entry a name. Views take help and source from it; the documents, alert rules and dashboard
    /// are generated from it.
    fn metrics(&self) -> &'static [Metric] {
        &[]
    }

    /// From which values on its measurements are bad, unless [`Thresholds`](crate::health::Thresholds) say otherwise.
    fn rules(&self) -> Vec<Rule> {
        Vec::new()
    }
}
