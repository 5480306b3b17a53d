//! Where all time comes from.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The furthest that a deadline lies in the future: a century, which every system's monotonic clock can hold.
const DEADLINE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The source of wall-clock and monotonic time; cheap to clone.
///
/// Wall time can be set by hand in tests; monotonic time follows the runtime, so a paused runtime pauses it.
///
/// ```
/// use stackkit_core::Clock;
/// use std::time::Duration;
/// let clock = Clock::fixed("2026-11-21T06:15:30Z".parse().unwrap());
/// clock.advance(Duration::from_secs(30));
/// assert_eq!(clock.now().to_string(), "2026-11-21T06:16:00Z");
/// ```
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Mutex<Timestamp>>>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `now` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn fixed(now: Timestamp) -> Self {
        Self(Some(Arc::new(Mutex::new(now))))
    }

    /// The wall-clock time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => Timestamp::now(),
            Some(fixed) => *fixed.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Monotonic time, for deadlines and durations.
    #[must_use]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// The moment that is `after` from now, for a deadline. More than a century is taken for a century, so
    /// [`Duration::MAX`] means never.
    #[must_use]
    pub fn deadline(&self, after: Duration) -> Instant {
        self.instant() + after.min(DEADLINE_MAX)
    }

    /// Sets a fixed clock, as somebody sets the clock of a machine, forward or back; the system's clock does not care.
    pub fn set(&self, to: Timestamp) {
        if let Some(fixed) = &self.0 {
            *fixed.lock().unwrap_or_else(PoisonError::into_inner) = to;
        }
    }

    /// Moves a fixed clock forward; the system's clock does not care. Saturates at the end of time.
    pub fn advance(&self, by: Duration) {
        if let Some(fixed) = &self.0 {
            let mut now = fixed.lock().unwrap_or_else(PoisonError::into_inner);
            *now = now.checked_add(by).unwrap_or(Timestamp::MAX);
        }
    }
}

/// How far the wall clock may stray from what is expected before it counts as set: more than reading two clocks one after
/// the other takes, less than anybody would set a clock by.
const STEP_MIN: Duration = Duration::from_secs(1);

/// A moment on both clocks. It is told in the wall time that the clock shows by then: so an age stays true when somebody sets
/// the clock meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) at: Instant,
    pub(crate) wall: Timestamp,
}

impl Stamp {
    /// This moment.
    pub(crate) fn now(clock: &Clock) -> Self {
        Self { at: clock.instant(), wall: clock.now() }
    }

    /// Its wall time, as the clock goes at `now`.
    pub(crate) fn wall_by(&mut self, now: Self) -> Timestamp {
        let age = now.at.saturating_duration_since(self.at);
        let expected = now.wall.checked_sub(age).unwrap_or(Timestamp::MIN);
        if expected.duration_since(self.wall).unsigned_abs() > STEP_MIN {
            self.wall = expected;
        }
        self.wall
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Clock::fixed" } else { "Clock::system" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_follows_a_clock_that_was_set_and_no_other() {
        let clock = Clock::fixed("2026-11-21T06:00:00Z".parse().unwrap());
        let mut stamp = Stamp::now(&clock);
        let after = |seconds: u64, wall: &str| Stamp {
            at: stamp.at + Duration::from_secs(seconds),
            wall: wall.parse().unwrap(),
        };
        let (slower, set) = (after(60, "2026-11-21T06:00:59.5Z"), after(120, "2026-11-21T09:02:00Z"));
        assert_eq!(stamp.wall_by(slower).to_string(), "2026-11-21T06:00:00Z");
        assert_eq!(stamp.wall_by(set).to_string(), "2026-11-21T09:00:00Z");
    }
}
