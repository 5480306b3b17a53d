//! The loop that probes one service, each tier at its own interval.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::health::Intervals;
use crate::health::board::Board;
use crate::health::intervals::STALE_POLLS;
use crate::health::{Prober, ServiceReport, Tier};

/// The first wait between probes of a service that was never up: servers start within tens of milliseconds.
const STARTUP_POLL_FIRST: Duration = Duration::from_millis(20);
/// By which factor that wait grows, up to [`Intervals::poll_failing`].
const STARTUP_POLL_FACTOR: f64 = 1.5;
/// The wait after an error that waiting can't mend: repeated wrong passwords lock accounts.
const PERMANENT_FAILURE_POLL: Duration = Duration::from_secs(30);
/// Up to how many times [`Intervals::poll_failing`] the wait grows: one more for each failure.
const FAILING_POLL_FACTOR_MAX: u64 = 5;
/// How far a wait strays from its interval, so that many monitors do not probe in step.
const JITTER_RATIO: f64 = 0.1;
/// Longer waits stray no further than this one does: what is far apart is not in step.
const JITTER_BASE_MAX: Duration = Duration::from_secs(3600);

/// Probes one service until the task is aborted.
pub(crate) async fn poll(board: Arc<Board>, position: usize) {
    let Some(prober) = board.probers.get(position).cloned() else { return };
    let mut plan = Plan::new(&prober);
    loop {
        let tier = plan.due(board.clock.instant());
        let mut report = prober.probe(tier).await;
        let fails = !prober.last().is_ready();
        let wait = plan.next(tier, fails, &report, board.clock.instant());
        report.stale_at = Some(board.clock.deadline(plan.believed_for(wait, board.clock.instant())));
        board.put(position, report);
        if fails {
            look_at_causes(&board, position);
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = prober.nudge.notified() => plan.look_now(board.clock.instant()),
        }
    }
}

/// Asks for a probe of what a failing service needs and what seems to be well, so that the cause is seen at once.
fn look_at_causes(board: &Board, position: usize) {
    let causes = board.shape.causes_of(position).iter().filter_map(|cause| board.probers.get(*cause));
    causes.filter(|cause| cause.last().is_ready()).for_each(|cause| cause.nudge.notify_one());
}

/// When to probe which tier.
struct Plan {
    intervals: Intervals,
    tiers: &'static [Tier],
    /// The highest tier but the inventory.
    deciding: Tier,
    /// When each tier is next, as in [`Tier::ALL`]; `None` for one that the check does not know, and for the inventory before
    /// the first answer.
    next: [Option<Instant>; 4],
    fails: bool,
    /// The wait between probes of a service that was never up.
    startup: Option<Duration>,
}

impl Plan {
    fn new(prober: &Prober) -> Self {
        Self {
            intervals: prober.entry().intervals,
            tiers: prober.tiers(),
            deciding: prober.deciding_tier(),
            next: [None; 4],
            fails: true,
            startup: Some(STARTUP_POLL_FIRST),
        }
    }

    /// The tier to probe: the deciding one while the service fails, else the highest that is due.
    fn due(&self, now: Instant) -> Tier {
        if self.fails {
            return self.deciding;
        }
        let due = self.tiers.iter().copied().filter(|tier| self.at(*tier).is_some_and(|at| at <= now)).max();
        due.or_else(|| self.tiers.iter().copied().min_by_key(|tier| self.at(*tier))).unwrap_or_default()
    }

    fn at(&self, tier: Tier) -> Option<Instant> {
        self.next.get(tier.index()).copied().flatten()
    }

    fn set(&mut self, tier: Tier, at: Instant) {
        if let Some(slot) = self.next.get_mut(tier.index()).filter(|_| self.tiers.contains(&tier)) {
            *slot = Some(at);
        }
    }

    /// Makes every tier but the inventory due.
    fn look_now(&mut self, now: Instant) {
        for tier in [Tier::Process, Tier::Ping, Tier::Vitals] {
            self.set(tier, now);
        }
    }

    /// Plans on after a probe of `tier`, and gives the wait until the next one.
    fn next(&mut self, tier: Tier, fails: bool, report: &ServiceReport, now: Instant) -> Duration {
        self.fails = fails;
        if fails {
            return strayed(self.failing_wait(report));
        }
        self.startup = None;
        // The first answer is followed by an inventory at the next turn.
        let first_inventory = self.at(Tier::Inventory).is_none();
        for cheaper in Tier::ALL.into_iter().filter(|cheaper| *cheaper <= tier) {
            // An inventory says that the service answers, but not how it is.
            if tier != Tier::Inventory || cheaper != Tier::Vitals {
                let interval = self.intervals.interval_of(cheaper);
                self.set(cheaper, now + strayed(interval.min(FOREVER)));
            }
        }
        let wait = self.wait(now);
        if first_inventory && tier != Tier::Inventory {
            self.set(Tier::Inventory, now + wait);
            return self.wait(now);
        }
        wait
    }

    /// The time until the first tier that is due.
    fn wait(&self, now: Instant) -> Duration {
        let next = self.next.iter().flatten().min().copied();
        next.map_or(self.intervals.interval_of(self.deciding), |at| at.saturating_duration_since(now))
    }

    fn failing_wait(&mut self, report: &ServiceReport) -> Duration {
        let failing = self.intervals.poll_failing;
        let times = report.failures_count.clamp(1, FAILING_POLL_FACTOR_MAX);
        match (&report.failure, self.startup.as_mut()) {
            (Some(failure), _) if !failure.kind.mends_by_waiting() => PERMANENT_FAILURE_POLL.max(failing),
            (Some(_), Some(startup)) => {
                let wait = *startup;
                *startup = startup.mul_f64(STARTUP_POLL_FACTOR).min(failing);
                wait
            }
            // What answers and can't serve is looked at no faster than that, and no slower than when it serves.
            _ => failing.saturating_mul(u32::try_from(times).unwrap_or(1)).min(self.longest_poll().max(failing)),
        }
    }

    /// The interval of the deciding tier.
    fn longest_poll(&self) -> Duration {
        self.intervals.interval_of(self.deciding)
    }

    /// How long a result is believed: [`Intervals::stale_after`], and longer if the next one can't be there by then, as
    /// after a failure that is looked at rarely, or before an inventory that may take its time.
    fn believed_for(&self, wait: Duration, now: Instant) -> Duration {
        let cheapest = self.tiers.first().map_or(self.intervals.ping, |tier| self.intervals.interval_of(*tier));
        let polls = cheapest.max(wait).saturating_mul(STALE_POLLS);
        let slow = |tier: &Tier| self.at(*tier).is_some_and(|at| at.saturating_duration_since(now) <= polls);
        let timeout = self.tiers.iter().filter(|tier| **tier == self.deciding || slow(tier));
        let timeout = timeout.map(|tier| self.intervals.timeout_of(*tier)).max().unwrap_or(self.intervals.timeout);
        polls.saturating_add(timeout)
    }
}

/// Longer intervals mean never, and must not overflow a clock: a century.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn strayed(wait: Duration) -> Duration {
    let stray = wait.min(JITTER_BASE_MAX).mul_f64(JITTER_RATIO);
    wait.saturating_sub(stray).saturating_add(stray.mul_f64(2.0 * fastrand::f64()))
}
