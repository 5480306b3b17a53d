//! How often a service is probed, how long a probe may take, and how much it takes to change a verdict.

use std::time::Duration;

use crate::health::Tier;
use crate::service::{ConfigFault, ServiceId};

/// After how many polls without a result the last one is not believed any more: one may be late, two in a row hardly.
pub(crate) const STALE_POLLS: u32 = 3;

/// How often a service is probed, how long a probe may take, and how many results change its status.
///
/// ```
/// use stackkit_core::Intervals;
/// use std::time::Duration;
/// let intervals = Intervals::new().with_poll(Duration::from_secs(2));
/// assert_eq!((intervals.ping, intervals.vitals), (Duration::from_secs(2), Duration::from_secs(2)));
/// assert_eq!(intervals.stale_after(), Duration::from_secs(9));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Intervals {
    /// Between two probes of the tier process; 5 s unless set.
    pub process: Duration,
    /// Between two probes of the tier ping; 5 s unless set.
    pub ping: Duration,
    /// Between two probes of the tier vitals; 15 s unless set.
    pub vitals: Duration,
    /// Between two probes of the inventory tier; 10 min unless set.
    pub inventory: Duration,
    /// Between two probes of a service that does not answer or can't serve; 1 s unless set. Each failure in a row adds as much
    /// again, up to five times, but never more than the interval of its highest tier below the inventory.
    pub poll_failing: Duration,
    /// The deadline of a probe of the tiers process and ping; 1 s unless set.
    pub ping_timeout: Duration,
    /// The deadline of a probe of the tier vitals; 3 s unless set.
    pub timeout: Duration,
    /// The deadline of a probe of the inventory tier; 30 s unless set.
    pub inventory_timeout: Duration,
    /// How many probes in a row must fail before a service that was ready is unhealthy; 3 unless set. An error that waiting
    /// can't mend, such as a wrong password, needs no second one.
    pub fall: u32,
    /// How many probes in a row must succeed before a service that was unhealthy is ready again; 1 unless set.
    pub rise: u32,
    /// For how long after the start a service that was never up is `unknown` instead of unhealthy; 0 unless set.
    pub startup_grace: Duration,
}

impl Intervals {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time between two probes of a service that answers, on every tier but the inventory.
    #[must_use]
    pub fn with_poll(self, poll: Duration) -> Self {
        Self { process: poll, ping: poll, vitals: poll, ..self }
    }

    /// Sets the time between two probes of one tier.
    #[must_use]
    pub fn with_interval(mut self, tier: Tier, interval: Duration) -> Self {
        match tier {
            Tier::Process => self.process = interval,
            Tier::Ping => self.ping = interval,
            Tier::Vitals => self.vitals = interval,
            Tier::Inventory => self.inventory = interval,
        }
        self
    }

    /// Sets the time between two probes of a service that does not answer.
    #[must_use]
    pub fn with_poll_failing(mut self, poll_failing: Duration) -> Self {
        self.poll_failing = poll_failing;
        self
    }

    /// Sets the deadline of a probe, on every tier but the inventory.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { ping_timeout: timeout, timeout, ..self }
    }

    /// Sets the deadline of a probe of the inventory tier.
    #[must_use]
    pub fn with_inventory_timeout(mut self, timeout: Duration) -> Self {
        self.inventory_timeout = timeout;
        self
    }

    /// Sets how many failures in a row it takes to be unhealthy; 0 counts as 1.
    #[must_use]
    pub fn with_fall(mut self, fall: u32) -> Self {
        self.fall = fall;
        self
    }

    /// Sets how many successes in a row it takes to be ready again; 0 counts as 1.
    #[must_use]
    pub fn with_rise(mut self, rise: u32) -> Self {
        self.rise = rise;
        self
    }

    /// Sets for how long after the start a service that was never up is `unknown` instead of unhealthy.
    #[must_use]
    pub fn with_startup_grace(mut self, grace: Duration) -> Self {
        self.startup_grace = grace;
        self
    }

    /// The age from which a result is not believed any more: three polls and one deadline of a service that is pinged.
    #[must_use]
    pub fn stale_after(&self) -> Duration {
        self.ping.saturating_mul(STALE_POLLS).saturating_add(self.timeout)
    }

    /// The time between two probes of a tier.
    #[must_use]
    pub fn interval_of(&self, tier: Tier) -> Duration {
        match tier {
            Tier::Process => self.process,
            Tier::Ping => self.ping,
            Tier::Vitals => self.vitals,
            Tier::Inventory => self.inventory,
        }
    }

    /// The deadline of a probe of a tier.
    #[must_use]
    pub fn timeout_of(&self, tier: Tier) -> Duration {
        match tier {
            Tier::Process | Tier::Ping => self.ping_timeout,
            Tier::Vitals => self.timeout,
            Tier::Inventory => self.inventory_timeout,
        }
    }

    /// A loop without a pause would load the server that it watches; a deadline that has passed fails every probe.
    pub(crate) fn faults(&self, id: &ServiceId) -> Vec<ConfigFault> {
        let fields = [
            ("process", self.process),
            ("ping", self.ping),
            ("vitals", self.vitals),
            ("inventory", self.inventory),
            ("poll_failing", self.poll_failing),
            ("ping_timeout", self.ping_timeout),
            ("timeout", self.timeout),
            ("inventory_timeout", self.inventory_timeout),
        ];
        let zero = fields.into_iter().filter(|(_, value)| value.is_zero());
        zero.map(|(name, _)| ConfigFault::error("stack.interval.zero", format!("{id}: {name} is 0"))).collect()
    }
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            process: Duration::from_secs(5),
            ping: Duration::from_secs(5),
            vitals: Duration::from_secs(15),
            inventory: Duration::from_secs(600),
            poll_failing: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(3),
            inventory_timeout: Duration::from_secs(30),
            fall: 3,
            rise: 1,
            startup_grace: Duration::ZERO,
        }
    }
}
