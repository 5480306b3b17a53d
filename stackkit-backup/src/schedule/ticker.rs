//! Waits for the times of a schedule.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use stackkit_core::Clock;

use super::rule::{between, just_before, seconds_before};
use super::{MissedRuns, Schedule};

/// The longest sleep before the wall clock is asked again: a timer does not see that the clock was set, or that the
/// machine slept.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// A run that starts later than this is a missed one. Twice the longest sleep, so that none is missed by waiting.
const LATE_MAX: Duration = Duration::from_secs(60);

/// How far the wall clock may be set back without a time being run twice. A greater step corrects a clock that was wrong,
/// and what ran by it was at no time of the schedule. Vixie cron has the same limit.
const STEP_BACK_MAX_SECONDS: u64 = 3 * 60 * 60;

/// Missed times that are counted one by one. After more, only as many as are run are looked for.
const MISSED_COUNTED_MAX: u32 = 1000;

/// How far back the newest missed times are looked for at first; twice as far each time that there are too few.
const LOOK_BACK_SECONDS: u64 = 3600;

/// A run that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduledRun {
    /// The time of the schedule, without jitter.
    pub due: Timestamp,
    /// How many times before it are not run: they are merged into this run, or skipped. 1000 stands for 1000 or more.
    pub missed: u32,
}

/// Waits for the times of one schedule, and remembers which it has given: no time is given twice.
///
/// ```no_run
/// # async fn example(schedule: stackkit_backup::Schedule) {
/// let mut ticker = schedule.ticker(stackkit_core::Clock::system());
/// while let Some(run) = ticker.next().await {
///     println!("due at {}, {} missed before it", run.due, run.missed);
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a ticker does nothing until it is waited for"]
pub struct Ticker {
    schedule: Schedule,
    clock: Clock,
    /// Every time until here was given or dropped.
    handled: Timestamp,
    /// A run was given and may have been going until now.
    running: bool,
    /// What is to run at once.
    queue: VecDeque<ScheduledRun>,
}

/// Whether a time that is just past still counts as kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grace {
    Given,
    None,
}

impl Ticker {
    pub(super) fn new(schedule: Schedule, clock: Clock) -> Self {
        let handled = clock.now();
        Self { schedule, clock, handled, running: false, queue: VecDeque::new() }
    }

    /// Tells when the last run began, such as the newest backup's [`started`](crate::manifest::Manifest::started): the
    /// times since then were missed, and are dealt with as [`MissedRuns`] says.
    pub fn with_last_run(mut self, began: Timestamp) -> Self {
        self.handled = self.handled_by(began);
        // What is past at the start is missed, however short ago.
        self.running = true;
        self
    }

    /// Waits for the next run. `None` if there is none before the year 10000.
    ///
    /// The run that it gave before is taken for ended: times that came while it was going are missed ones. Times that
    /// come within a minute before the wait is over are not: the machine was only busy.
    ///
    /// # Cancel safety
    /// Cancel safe: no time is lost or given twice.
    pub async fn next(&mut self) -> Option<ScheduledRun> {
        if self.running {
            self.running = false;
            self.settle(self.clock.now(), Grace::None);
        }
        loop {
            if let Some(run) = self.queue.pop_front() {
                // What is still queued waits for this one by itself.
                self.running = true;
                return Some(run);
            }
            let now = self.clock.now();
            if self.handled > now && between(now, self.handled).as_secs() > STEP_BACK_MAX_SECONDS {
                tracing::warn!(from = %self.handled, to = %now, "the clock was set back: the schedule starts from here");
                self.handled = now;
            }
            let start = self.schedule.start_of(self.schedule.next_after(self.handled)?);
            if start > now {
                tokio::time::sleep(between(now, start).min(SLEEP_MAX)).await;
                continue;
            }
            self.settle(now, Grace::Given);
        }
    }

    /// Runs `work` at each time, as [`Schedule::run`].
    ///
    /// # Cancel safety
    /// Dropping the future drops what `work` does.
    pub async fn run<F, W>(mut self, mut work: F)
    where
        F: FnMut(ScheduledRun) -> W,
        W: Future<Output = ()>,
    {
        while let Some(run) = self.next().await {
            work(run).await;
        }
    }

    /// Decides about every time that has come and was not given yet.
    fn settle(&mut self, now: Timestamp, grace: Grace) {
        let keep = match self.schedule.missed {
            MissedRuns::Skip | MissedRuns::RunOnce => 1,
            MissedRuns::RunAll { max } => usize::from(max.get()),
        };
        let Some(past) = self.past(now, keep) else { return };
        let Some(newest) = past.newest.back().copied() else { return };
        self.handled = newest;
        let kept = grace == Grace::Given && between(self.schedule.start_of(newest), now) <= LATE_MAX;
        if self.schedule.missed == MissedRuns::Skip && !kept {
            tracing::debug!(missed = past.count, "times of the schedule are skipped");
            return;
        }
        let mut missed = past.count.saturating_sub(u32::try_from(past.newest.len()).unwrap_or(u32::MAX));
        self.queue
            .extend(past.newest.iter().map(|due| ScheduledRun { due: *due, missed: std::mem::take(&mut missed) }));
    }

    /// The times after the handled ones that have come; the newest `keep` of them.
    fn past(&self, now: Timestamp, keep: usize) -> Option<Past> {
        let past = self.past_since(self.handled, now, keep, MISSED_COUNTED_MAX)?;
        if past.count < MISSED_COUNTED_MAX {
            return Some(past);
        }
        // The machine slept for long, or its clock was wrong. The newest ones are near the end.
        let mut seconds = LOOK_BACK_SECONDS;
        loop {
            let since = seconds_before(now, seconds).max(self.handled);
            let found = self.past_since(since, now, keep, u32::MAX)?;
            if found.newest.len() >= keep || since == self.handled {
                return Some(Past { count: past.count, ..found });
            }
            seconds = seconds.saturating_mul(2);
        }
    }

    fn past_since(&self, since: Timestamp, now: Timestamp, keep: usize, count_max: u32) -> Option<Past> {
        let mut past = Past { newest: VecDeque::new(), count: 0 };
        for due in self.schedule.upcoming(since).take_while(|due| self.schedule.start_of(*due) <= now) {
            if past.newest.len() == keep {
                past.newest.pop_front();
            }
            past.newest.push_back(due);
            past.count += 1;
            if past.count >= count_max {
                break;
            }
        }
        (past.count > 0).then_some(past)
    }

    /// Until where times are handled if a run began at `began`: not those whose jitter ends later.
    fn handled_by(&self, began: Timestamp) -> Timestamp {
        let jitter = self.schedule.jitter.as_secs() + 1;
        let waiting = self.schedule.upcoming(seconds_before(began, jitter));
        let mut waiting = waiting.take_while(|due| *due <= began).filter(|due| self.schedule.start_of(*due) > began);
        waiting.next().map_or(began, just_before)
    }
}

/// Times that have come.
struct Past {
    newest: VecDeque<Timestamp>,
    /// All of them, those that are not kept included.
    count: u32,
}
