//! When to probe which tier of one service. Pure, but for the jitter.

use std::time::Duration;

use tokio::time::Instant;

use crate::health::intervals::STALE_POLLS;
use crate::health::{Intervals, Prober, ServiceReport, Tier};

/// The first wait between probes of a service that was never up: servers start within tens of milliseconds.
const STARTUP_POLL_FIRST: Duration = Duration::from_millis(20);
/// By which factor that wait grows, up to [`Intervals::poll_failing`].
const STARTUP_POLL_FACTOR: f64 = 1.5;
/// The wait after an error that waiting can't mend: repeated wrong passwords lock accounts.
const PERMANENT_FAILURE_POLL: Duration = Duration::from_secs(30);
/// Up to how many times [`Intervals::poll_failing`] the wait grows: one more for each failure.
const FAILING_POLL_FACTOR_MAX: u32 = 5;
/// How far a wait strays from its interval, so that many checks do not get in step.
const JITTER_RATIO: f64 = 0.1;
/// The first wait of a tier is between this part of its interval and the whole: many checks that are started at once do not
/// stay in step.
const FIRST_WAIT_RATIO: f64 = 0.5;
/// Longer waits stray no further than this one does: what is far apart is not in step.
const JITTER_BASE_MAX: Duration = Duration::from_secs(3600);
/// Longer intervals mean never, and must not overflow a clock: a century.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// When to probe which tier.
#[derive(Debug)]
pub(crate) struct Plan {
    intervals: Intervals,
    tiers: &'static [Tier],
    deciding: Tier,
    ping_tells_more: bool,
    /// When each tier is next, as in [`Tier::ALL`]; `None` for one that the check does not know or that was not planned yet.
    next: [Option<Instant>; 4],
    /// Whether the last probe could observe.
    answers: bool,
    /// How many results in a row were not ready.
    failing_count: u32,
    /// The wait between probes of a service that was never up.
    startup: Option<Duration>,
}

impl Plan {
    pub(crate) fn new(prober: &Prober) -> Self {
        Self {
            intervals: prober.entry().intervals,
            tiers: prober.tiers(),
            deciding: prober.deciding_tier(),
            ping_tells_more: prober.tells_more(Tier::Ping),
            next: [None; 4],
            answers: false,
            failing_count: 0,
            startup: Some(STARTUP_POLL_FIRST),
        }
    }

    /// How many results in a row were not ready.
    pub(crate) fn failing_count(&self) -> u32 {
        self.failing_count
    }

    /// The tier to probe: the deciding one while the service does not answer, else the highest that is due.
    pub(crate) fn due(&self, now: Instant) -> Tier {
        if !self.answers {
            return self.deciding;
        }
        let due = self.tiers.iter().copied().filter(|tier| self.at(*tier).is_some_and(|at| at <= now)).max();
        let planned = self.tiers.iter().copied().filter(|tier| self.at(*tier).is_some());
        due.or_else(|| planned.min_by_key(|tier| self.at(*tier))).unwrap_or(self.deciding)
    }

    fn at(&self, tier: Tier) -> Option<Instant> {
        self.next.get(tier.index()).copied().flatten()
    }

    fn set(&mut self, tier: Tier, at: Instant) {
        if let Some(slot) = self.next.get_mut(tier.index()).filter(|_| self.tiers.contains(&tier)) {
            *slot = Some(at);
        }
    }

    /// Makes the deciding tier due.
    pub(crate) fn look_now(&mut self, now: Instant) {
        self.set(self.deciding, now);
    }

    /// Plans on after a probe of `tier`, and gives the wait until the next one.
    pub(crate) fn next(&mut self, tier: Tier, report: &ServiceReport, now: Instant) -> Duration {
        // What is well again but not often enough yet is looked at as what fails.
        let fails = !report.last.status.is_ready() || !report.status.is_ready();
        self.failing_count = if fails { self.failing_count.saturating_add(1) } else { 0 };
        if report.failure.is_some() {
            self.answers = false;
            let wait = self.failing_wait(report);
            return strayed(wait);
        }
        self.startup = None;
        self.plan_interval(tier, now);
        if !self.answers {
            self.answers = true;
            self.plan_others(tier, now);
        }
        // What answers and can't serve is looked at sooner, and its other tiers as ever: the reason may be theirs.
        if fails {
            let wait = strayed(self.failing_wait(report));
            self.set(self.deciding, now + wait);
        }
        self.wait(now)
    }

    /// Plans the next probe of a tier that was probed now.
    fn plan_interval(&mut self, tier: Tier, now: Instant) {
        let covers_ping = tier == Tier::Vitals && !self.ping_tells_more;
        for tier in [Some(tier), covers_ping.then_some(Tier::Ping)].into_iter().flatten() {
            let interval = self.intervals.interval_of(tier).min(FOREVER);
            let wait = if self.at(tier).is_some() { strayed(interval) } else { first_wait(interval) };
            self.set(tier, now + wait);
        }
    }

    /// Makes the other tiers due after a service began to answer; the first inventory follows at the next turn.
    fn plan_others(&mut self, probed: Tier, now: Instant) {
        for tier in [Tier::Process, Tier::Ping, Tier::Vitals] {
            if tier != probed && (tier != Tier::Ping || self.ping_tells_more) {
                self.set(tier, now);
            }
        }
        if self.at(Tier::Inventory).is_none() {
            self.set(Tier::Inventory, now + self.wait_of(self.deciding, now));
        }
    }

    /// The time until the first tier that is due.
    fn wait(&self, now: Instant) -> Duration {
        let next = self.next.iter().flatten().min().copied();
        next.map_or(self.intervals.interval_of(self.deciding), |at| at.saturating_duration_since(now))
    }

    fn wait_of(&self, tier: Tier, now: Instant) -> Duration {
        self.at(tier).map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    fn failing_wait(&mut self, report: &ServiceReport) -> Duration {
        let failing = self.intervals.poll_failing;
        if report.failure.as_ref().is_some_and(|failure| !failure.kind.mends_by_waiting()) {
            return PERMANENT_FAILURE_POLL.max(failing);
        }
        if let Some(wait) = self.startup.filter(|wait| *wait < failing) {
            self.startup = Some(wait.mul_f64(STARTUP_POLL_FACTOR).min(failing));
            return wait;
        }
        // No slower than when it serves.
        let times = self.failing_count.clamp(1, FAILING_POLL_FACTOR_MAX);
        failing.saturating_mul(times).min(self.intervals.interval_of(self.deciding).max(failing))
    }

    /// How long a result is believed: [`Intervals::stale_after`], and longer if the next one can't be there by then, as
    /// after a failure that is looked at rarely, or before an inventory that may take its time.
    pub(crate) fn believed_for(&self, wait: Duration, now: Instant) -> Duration {
        let intervals = self.tiers.iter().map(|tier| self.intervals.interval_of(*tier));
        let polls = intervals.min().unwrap_or(self.intervals.ping).max(wait).saturating_mul(STALE_POLLS);
        let slow = |tier: &Tier| self.at(*tier).is_some_and(|at| at.saturating_duration_since(now) <= polls);
        let timeout = self.tiers.iter().filter(|tier| **tier == self.deciding || slow(tier));
        let timeout = timeout.map(|tier| self.intervals.timeout_of(*tier)).max().unwrap_or(self.intervals.timeout);
        polls.saturating_add(timeout)
    }
}

fn strayed(wait: Duration) -> Duration {
    let stray = wait.min(JITTER_BASE_MAX).mul_f64(JITTER_RATIO);
    wait.saturating_sub(stray).saturating_add(stray.mul_f64(2.0 * fastrand::f64()))
}

fn first_wait(interval: Duration) -> Duration {
    let spread = interval.min(JITTER_BASE_MAX).mul_f64(FIRST_WAIT_RATIO);
    interval.saturating_sub(spread.mul_f64(fastrand::f64()))
}
