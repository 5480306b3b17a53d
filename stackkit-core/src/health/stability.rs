//! From single results to a status that does not jump: rise, fall, start-up grace and flap detection. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::health::{Intervals, Status};

/// The time in which changes are counted: long enough to see a server that is restarted every few minutes.
pub(crate) const FLAP_WINDOW: Duration = Duration::from_secs(600);
/// So many changes of the status in [`FLAP_WINDOW`] are flapping: three times down and up again, or across a threshold.
pub(crate) const FLAP_CHANGES: usize = 6;
/// Below this many it is over. Lower than the limit above, so that flapping itself does not flap.
const CALM_CHANGES: usize = 2;

/// What single results came to.
#[derive(Debug)]
pub(crate) struct Stability {
    status: Status,
    /// Results in a row that said the same.
    good: u32,
    bad: u32,
    was_ready: bool,
    started_at: Option<Instant>,
    turns: VecDeque<Instant>,
    flapping: bool,
}

/// One result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// What it means by itself.
    pub(crate) status: Status,
    /// Whether waiting can't mend it.
    pub(crate) permanent: bool,
    /// When it came.
    pub(crate) at: Instant,
}

impl Stability {
    pub(crate) fn new() -> Self {
        Self {
            status: Status::Unknown,
            good: 0,
            bad: 0,
            was_ready: false,
            started_at: None,
            turns: VecDeque::new(),
            flapping: false,
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn is_flapping(&self) -> bool {
        self.flapping
    }

    /// Whether it was ready at any time.
    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready
    }

    /// Forgets the verdict, as when polling starts anew: what was seen hours ago counts for nothing.
    pub(crate) fn forget(&mut self, at: Instant) {
        *self = Self { started_at: Some(at), was_ready: self.was_ready, ..Self::new() };
    }

    /// Takes one result in, and gives the status that follows.
    pub(crate) fn take(&mut self, outcome: Outcome, intervals: &Intervals) -> Status {
        let started_at = *self.started_at.get_or_insert(outcome.at);
        let next = if outcome.status.is_ready() {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
            let waits = self.status == Status::Unhealthy && self.good < intervals.rise;
            if waits { self.status } else { outcome.status }
        } else {
            (self.good, self.bad) = (0, self.bad.saturating_add(1));
            let in_grace = !self.was_ready && outcome.at.duration_since(started_at) < intervals.startup_grace;
            let waits = match self.status {
                Status::Healthy | Status::Degraded => self.bad < intervals.fall,
                Status::Unknown => in_grace,
                Status::Unhealthy => true,
            };
            if waits && !outcome.permanent { self.status } else { outcome.status }
        };
        self.count_turn(next, outcome.at);
        self.status = next;
        self.was_ready |= next.is_ready();
        next
    }

    fn count_turn(&mut self, next: Status, at: Instant) {
        let turned = self.status != Status::Unknown && next != Status::Unknown && self.status != next;
        if turned {
            // More are not needed to know that it flaps.
            if self.turns.len() == FLAP_CHANGES {
                self.turns.pop_front();
            }
            self.turns.push_back(at);
        }
        while self.turns.front().is_some_and(|turn| at.duration_since(*turn) > FLAP_WINDOW) {
            self.turns.pop_front();
        }
        self.flapping = match self.flapping {
            true => self.turns.len() > CALM_CHANGES,
            false => self.turns.len() >= FLAP_CHANGES,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const BAD: Status = Status::Unhealthy;
    const GOOD: Status = Status::Healthy;

    /// Feeds one result a second.
    fn run(intervals: Intervals, results: &[Status]) -> (Vec<Status>, Stability) {
        let start = Clock::system().instant();
        let mut stability = Stability::new();
        let statuses = results.iter().zip(0..).map(|(status, second)| {
            let at = start + Duration::from_secs(second);
            stability.take(Outcome { status: *status, permanent: false, at }, &intervals)
        });
        (statuses.collect(), stability)
    }

    #[test]
    fn it_takes_fall_failures_to_be_unhealthy_and_rise_successes_to_be_ready() {
        let intervals = Intervals::new().with_fall(3).with_rise(2);
        let (statuses, _) = run(intervals, &[GOOD, BAD, BAD, GOOD, BAD, BAD, BAD, GOOD, BAD, GOOD, GOOD]);
        assert_eq!(statuses, [GOOD, GOOD, GOOD, GOOD, GOOD, GOOD, BAD, BAD, BAD, BAD, GOOD]);
    }

    #[test]
    fn the_first_result_decides() {
        assert_eq!(run(Intervals::new(), &[BAD]).0, [BAD]);
        assert_eq!(run(Intervals::new().with_rise(5), &[GOOD]).0, [GOOD]);
    }

    #[test]
    fn zero_counts_as_one() {
        assert_eq!(run(Intervals::new().with_fall(0).with_rise(0), &[GOOD, BAD, GOOD]).0, [GOOD, BAD, GOOD]);
    }

    #[test]
    fn a_failure_that_waiting_cant_mend_needs_no_second_one() {
        let mut stability = Stability::new();
        let at = Clock::system().instant();
        stability.take(Outcome { status: GOOD, permanent: false, at }, &Intervals::new());
        assert_eq!(stability.take(Outcome { status: BAD, permanent: true, at }, &Intervals::new()), BAD);
    }

    #[test]
    fn in_its_grace_a_service_that_was_never_up_is_unknown() {
        let intervals = Intervals::new().with_startup_grace(Duration::from_secs(2)).with_fall(1);
        assert_eq!(run(intervals, &[BAD, BAD, BAD]).0, [Status::Unknown, Status::Unknown, BAD]);
        assert_eq!(run(intervals, &[GOOD, BAD]).0, [GOOD, BAD], "it was up");
    }

    #[test]
    fn many_turns_in_a_short_time_are_flapping_until_they_are_over() {
        let intervals = Intervals::new().with_fall(1);
        let (_, calm) = run(intervals, &[GOOD, BAD, GOOD, BAD, GOOD, BAD]);
        assert!(!calm.is_flapping());
        let (_, mut flapping) = run(intervals, &[GOOD, BAD, GOOD, BAD, GOOD, BAD, GOOD]);
        assert!(flapping.is_flapping());
        let later = Clock::system().instant() + FLAP_WINDOW + Duration::from_secs(60);
        flapping.take(Outcome { status: GOOD, permanent: false, at: later }, &intervals);
        assert!(!flapping.is_flapping());
    }
}
