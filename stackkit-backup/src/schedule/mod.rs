//! When backups are made: a schedule is plain data, and a ticker waits for it. Nothing runs by itself: the application
//! drives it.

mod cron;
mod rule;
#[cfg(test)]
mod tests;
mod ticker;

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use stackkit_core::{Clock, Error, Result};

pub use cron::{CronError, CronFault, CronField};
pub use ticker::{ScheduledRun, Ticker};

use self::cron::Cron;
use self::rule::Rule;

/// The shortest interval: a shorter one is no schedule but a loop.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The longest interval: a year. Longer ones are better said by a date.
const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The longest jitter. It is there to spread load, and a day does that.
const JITTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What is done about times at which nothing ran: the machine slept or was off, or the run before was still going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MissedRuns {
    /// Nothing: the next run is at the next time.
    Skip,
    /// One run at once for all of them together.
    #[default]
    RunOnce,
    /// A run for each, one after the other, for the newest ones.
    RunAll {
        /// How many at most.
        max: NonZeroU16,
    },
}

/// Times at which a backup is due: a cron expression in a time zone, or an interval.
///
/// ```
/// use stackkit_backup::Schedule;
/// use jiff::tz::TimeZone;
///
/// let nightly = Schedule::cron("30 2 * * mon-fri", TimeZone::UTC)?;
/// let friday = "2026-11-20T02:30:00Z".parse().unwrap();
/// assert_eq!(nightly.next_after(friday).unwrap().to_string(), "2026-11-23T02:30:00Z");
/// # Ok::<(), stackkit_core::Error>(())
/// ```
///
/// # Cron expressions
/// Five fields: minute, hour, day of month, month, day of week. Each is `*`, a number, a name (`jan`, `mon`), a range
/// `a-b`, a range with a step `a-b/n` or `*/n`, or a list of these. Sunday is 0 and 7. `@yearly`, `@annually`,
/// `@monthly`, `@weekly`, `@daily`, `@midnight` and `@hourly` are known. If both day fields are restricted, a day needs
/// to fit only one of them; a field that begins with `*` is not restricted, so `*/2` in one of them must fit too: the
/// rule of Vixie cron. An expression that no day fits, such as February 30, is refused.
///
/// # Changes of the clock in the time zone
/// What names its hours runs once for each of them, every day: a time that the change to summer time leaves out runs at
/// the first moment after the gap, once for all that are left out, and a time that exists twice runs the first time
/// only. What runs at any hour (an hour field that begins with `*`, such as `*/30 * * * *`) follows the wall clock
/// through both changes, so half-hourly stays half-hourly. (Vixie cron also counts a `*` in the minutes as the second
/// kind, so that `*/15 2 * * *` would not run at all on one night of the year.) An interval is real time and knows no
/// zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    rule: Rule,
    jitter: Duration,
    seed: u64,
    missed: MissedRuns,
}

impl Schedule {
    /// A schedule by a cron expression, in the civil time of `zone`.
    ///
    /// # Errors
    /// `Config` with a [`CronError`] as its source, which names the field.
    pub fn cron(expression: &str, zone: TimeZone) -> Result<Self> {
        Ok(Self::new(Rule::Cron { cron: Cron::parse(expression).map_err(CronError::into_error)?, zone }))
    }

    /// A schedule of real time: every multiple of `interval` since the start of 1970 in UTC, so that a restart of the
    /// process changes nothing; see [`anchored_at`](Self::anchored_at).
    ///
    /// # Errors
    /// `Config` if it is shorter than a second or longer than a year.
    pub fn every(interval: Duration) -> Result<Self> {
        if interval < INTERVAL_MIN || interval > INTERVAL_MAX {
            return Err(Error::config("the interval of a schedule is between a second and a year")
                .with_context("interval_s", interval.as_secs_f64()));
        }
        Ok(Self::new(Rule::Interval { every: interval, anchor: Timestamp::UNIX_EPOCH }))
    }

    /// Reads a schedule as configurations have it: `every 6h`, `every 90 minutes`, or a cron expression, in the civil
    /// time of `zone`.
    ///
    /// ```
    /// # use stackkit_backup::Schedule;
    /// # use std::time::Duration;
    /// let zone = Schedule::time_zone("UTC")?;
    /// assert_eq!(Schedule::parse("every 6h", zone.clone())?, Schedule::every(Duration::from_secs(6 * 3600))?);
    /// assert_eq!(Schedule::parse("@daily", zone.clone())?, Schedule::cron("@daily", zone)?);
    /// # Ok::<(), stackkit_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`cron`](Self::cron) and [`every`](Self::every).
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self> {
        let Some(interval) = text.trim().strip_prefix("every ") else {
            return Self::cron(text, zone);
        };
        let wrong = || Error::config(format!("{interval:?} is no interval such as 6h or 90 minutes"));
        let interval: SignedDuration = interval.trim().parse().map_err(|e| wrong().with_source(e))?;
        Self::every(interval.try_into().map_err(|e| wrong().with_source(e))?)
    }

    /// A time zone by its name in the system's database, such as `Europe/Berlin`; `system` is the machine's own.
    ///
    /// # Errors
    /// `Config` if the machine knows no such zone, or not its own.
    pub fn time_zone(name: &str) -> Result<TimeZone> {
        let zone = if name == "system" { TimeZone::try_system() } else { TimeZone::get(name) };
        zone.map_err(|e| Error::config("the machine has no such time zone").with_context("zone", name).with_source(e))
    }

    fn new(rule: Rule) -> Self {
        Self { rule, jitter: Duration::ZERO, seed: 0, missed: MissedRuns::default() }
    }

    /// Counts an interval from `anchor` instead of 1970; a cron expression has no use for it.
    #[must_use]
    pub fn anchored_at(mut self, time: Timestamp) -> Self {
        if let Rule::Interval { anchor, .. } = &mut self.rule {
            *anchor = time;
        }
        self
    }

    /// Delays each run by up to `max` (at most a day), so that many machines with one schedule do not start together.
    /// The delay depends on `seed` and on the time only: give each machine a seed of its own. It never reaches the next
    /// time.
    #[must_use]
    pub fn with_jitter(mut self, max: Duration, seed: u64) -> Self {
        (self.jitter, self.seed) = (max.min(JITTER_MAX), seed);
        self
    }

    /// Sets what is done about missed times; [`MissedRuns::RunOnce`] unless set.
    #[must_use]
    pub fn with_missed(mut self, missed: MissedRuns) -> Self {
        self.missed = missed;
        self
    }

    /// The first time after `after`, without jitter; `None` when there is none before the year 10000.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.rule.next_after(after)
    }

    /// All times after `after`, in order, without jitter.
    pub fn upcoming(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + use<'_> {
        std::iter::successors(self.next_after(after), |time| self.next_after(*time))
    }

    /// When the run that is due at `time` starts: `time`, and its jitter.
    #[must_use]
    pub fn start_of(&self, time: Timestamp) -> Timestamp {
        if self.jitter.is_zero() {
            return time;
        }
        let room = self.next_after(time).map_or(self.jitter, |next| rule::between(time, next));
        let room = u64::try_from(self.jitter.min(room).as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut hash = blake3::Hasher::new();
        hash.update(&self.seed.to_le_bytes()).update(&time.as_nanosecond().to_le_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.finalize().as_bytes();
        rule::moved(time, Duration::from_nanos(u64::from_le_bytes([a, b, c, d, e, f, g, h]) % room))
    }

    /// Waits for the times by `clock`. Times until now are past: see [`Ticker::with_last_run`].
    pub fn ticker(&self, clock: Clock) -> Ticker {
        Ticker::new(self.clone(), clock)
    }

    /// Runs `work` at each time until there is none left, which is in the year 10000: the caller ends it by dropping
    /// the future. Never two at once. `work` deals with its own errors: whether a failed backup is tried again before
    /// its next time is the application's to say.
    ///
    /// ```no_run
    /// use stackkit_backup::{Repository, Schedule, Trigger};
    /// use stackkit_core::{Result, Stack};
    ///
    /// # async fn example(repository: Repository, stack: Stack) -> Result<()> {
    /// let nightly = Schedule::cron("30 2 * * *", Schedule::time_zone("Europe/Berlin")?)?;
    /// let (repository, stack) = (&repository, &stack);
    /// nightly
    ///     .run(stack.clock().clone(), |_run| async move {
    ///         match repository.backup(stack).with_trigger(Trigger::Schedule).run().await {
    ///             Ok(backup) => println!("{backup}"),
    ///             Err(error) => eprintln!("{}", error.chain()),
    ///         }
    ///     })
    ///     .await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future drops what `work` does. A new one starts anew: times in between are past.
    pub async fn run<F, W>(&self, clock: Clock, work: F)
    where
        F: FnMut(ScheduledRun) -> W,
        W: Future<Output = ()>,
    {
        self.ticker(clock).run(work).await;
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Cron { cron, zone } => {
                write!(f, "{} ({})", cron.text(), zone.iana_name().unwrap_or("a zone without a name"))
            }
            Rule::Interval { every, .. } => match SignedDuration::try_from(*every) {
                Ok(every) => write!(f, "every {every:#}"),
                Err(_) => write!(f, "every {} s", every.as_secs()),
            },
        }
    }
}
