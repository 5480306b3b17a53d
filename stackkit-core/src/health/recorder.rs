//! Records the last 24 hours of one service in a ring of fixed size. Pure: time is handed in.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::clock::Stamp;
use crate::health::{Availability, HISTORY_CHANGES_MAX, HISTORY_MINUTES, History, Minute, Status, StatusChange};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR_MINUTES: usize = 60;
/// How many latencies of one minute make its percentiles: a probe a second, which is the fastest poll of a failing service.
const MINUTE_SAMPLES_MAX: usize = 60;
/// After a pause of two days nothing is left of the ring; no need to walk through it minute by minute.
const PAUSE_MAX: Duration = Duration::from_secs(2 * 24 * 3600);
/// How many minutes the ring has room for at first.
const SLOTS_FIRST: usize = 15;

/// A minute that is over, in ten bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    ready_ms: u16,
    known_ms: u16,
    /// As [`rank`]; 0 if nothing was known.
    worst: u8,
    p50: Packed,
    p95: Packed,
}

/// A latency in 16 bits: 0 for none, else the logarithm of its microseconds in steps of 0.03 %.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Packed(u16);

/// Steps of [`Packed`] for each doubling: 28 doublings, from 1 µs to four minutes, fill 16 bits.
const PACKED_STEPS: f64 = 2340.0;

impl Packed {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what 16 bits hold")]
    fn new(latency: Duration) -> Self {
        let micros = (latency.as_secs_f64() * 1e6).max(1.0);
        Self((micros.log2() * PACKED_STEPS).round().clamp(0.0, f64::from(u16::MAX - 1)) as u16 + 1)
    }

    fn ms(self) -> Option<f64> {
        (self.0 > 0).then(|| (f64::from(self.0 - 1) / PACKED_STEPS).exp2() / 1e3)
    }
}

fn rank(status: Status) -> u8 {
    match status {
        Status::Healthy => 1,
        Status::Degraded => 2,
        Status::Unknown => 3,
        Status::Unhealthy => 4,
    }
}

fn status_of(rank: u8) -> Option<Status> {
    [Status::Healthy, Status::Degraded, Status::Unknown, Status::Unhealthy].into_iter().find(|s| self::rank(*s) == rank)
}

/// What is recorded; grows by ten bytes a minute up to a day.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Minutes that are over, oldest first; with the running one [`HISTORY_MINUTES`] at most.
    slots: VecDeque<Slot>,
    /// When the running minute began.
    minute_at: Option<Instant>,
    running: Slot,
    samples: Vec<Duration>,
    /// The last result.
    known: Option<Status>,
    /// Until when it holds if no other comes.
    believed_until: Option<Instant>,
    /// Up to when time is counted.
    counted_until: Option<Instant>,
    changes: VecDeque<(Stamp, Status)>,
    availability: Availability,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            slots: VecDeque::new(),
            minute_at: None,
            running: Slot::default(),
            samples: Vec::new(),
            known: None,
            believed_until: None,
            counted_until: None,
            changes: VecDeque::new(),
            availability: Availability::default(),
        }
    }

    /// Takes in that the service has this status from now on, as a probe showed that took so long.
    pub(crate) fn record(&mut self, status: Status, now: Stamp, latency: Option<Duration>) {
        self.advance(now.at);
        if self.known != Some(status) {
            if self.changes.len() == HISTORY_CHANGES_MAX {
                self.changes.pop_front();
            }
            self.changes.push_back((now, status));
        }
        self.known = Some(status);
        self.running.worst = self.running.worst.max(rank(status));
        if self.samples.len() < MINUTE_SAMPLES_MAX {
            self.samples.extend(latency);
        }
    }

    /// Says until when the last result holds if no other comes: from then on nothing is known.
    pub(crate) fn believe(&mut self, until: Instant) {
        self.believed_until = Some(until);
    }

    pub(crate) fn availability(&self) -> Availability {
        self.availability
    }

    /// Lets time pass up to `to`: ends each minute that is over.
    fn advance(&mut self, to: Instant) {
        self.minute_at.get_or_insert(to);
        let mut from = self.counted_until.replace(to).unwrap_or(to);
        let mut ended = false;
        while let Some(minute_at) = self.minute_at.filter(|minute_at| to >= *minute_at + MINUTE) {
            ended = true;
            let end = minute_at + MINUTE;
            self.spend(from, end);
            self.end_minute();
            self.minute_at = Some(end);
            from = from.max(end);
            if to.duration_since(end) > PAUSE_MAX {
                self.slots.clear();
                self.minute_at = Some(to);
                from = to;
            }
        }
        self.spend(from, to);
        if ended || self.availability == Availability::default() {
            self.availability = self.measure();
        }
    }

    /// Counts the time from one moment to another of the running minute.
    fn spend(&mut self, from: Instant, to: Instant) {
        let Some(status) = self.known else { return };
        let spent = to.min(self.believed_until.unwrap_or(to)).saturating_duration_since(from);
        let ms = u16::try_from(spent.as_millis()).unwrap_or(u16::MAX);
        if status != Status::Unknown {
            self.running.known_ms = self.running.known_ms.saturating_add(ms);
        }
        if status.is_ready() {
            self.running.ready_ms = self.running.ready_ms.saturating_add(ms);
        }
    }

    fn end_minute(&mut self) {
        let slot = self.finished();
        let (held, most) = (self.slots.len(), HISTORY_MINUTES - 1);
        if held == most {
            self.slots.pop_front();
        } else if held == self.slots.capacity() {
            // Doubling by itself would end at 2048 slots.
            self.slots.reserve_exact(held.max(SLOTS_FIRST).min(most - held));
        }
        self.slots.push_back(slot);
        self.samples.clear();
        let carried = self.known.map_or(0, rank);
        self.running = Slot { worst: carried, ..Slot::default() };
    }

    /// The running minute with its percentiles.
    fn finished(&self) -> Slot {
        let mut samples = self.samples.clone();
        samples.sort_unstable();
        let at = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100).saturating_sub(1);
            samples.get(rank).copied().map_or(Packed::default(), Packed::new)
        };
        let worst = if self.running.known_ms == 0 && self.samples.is_empty() { 0 } else { self.running.worst };
        Slot { p50: at(50), p95: at(95), worst, ..self.running }
    }

    fn measure(&self) -> Availability {
        let over = |minutes: usize| {
            let last = self.slots.iter().rev().take(minutes.saturating_sub(1)).chain([&self.running]);
            let (ready, known) = last.fold((0_u64, 0_u64), |(ready, known), slot| {
                (ready + u64::from(slot.ready_ms), known + u64::from(slot.known_ms))
            });
            ratio(ready, known)
        };
        Availability { hour_ratio: over(HOUR_MINUTES), day_ratio: over(HISTORY_MINUTES) }
    }

    /// What is known up to now.
    pub(crate) fn history(&mut self, now: Stamp) -> History {
        self.advance(now.at);
        let running_at = self.minute_at.map_or(now.wall, |at| back(now.wall, now.at.saturating_duration_since(at)));
        let count = self.slots.len();
        let minute = |(index, slot): (usize, Slot)| {
            let ago = MINUTE * u32::try_from(count - index).unwrap_or(u32::MAX);
            Minute {
                at: back(running_at, ago),
                status: status_of(slot.worst),
                ready_ratio: ratio(u64::from(slot.ready_ms), u64::from(slot.known_ms)),
                latency_p50_ms: slot.p50.ms(),
                latency_p95_ms: slot.p95.ms(),
            }
        };
        let running = self.minute_at.map(|_| self.finished());
        let minutes = self.slots.iter().copied().chain(running).enumerate().map(minute).collect();
        let change = |(at, to): &mut (Stamp, Status)| StatusChange { at: at.wall_by(now), to: *to };
        History { availability: self.measure(), minutes, changes: self.changes.iter_mut().map(change).collect() }
    }
}

fn back(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    // At most a day of milliseconds, which a double holds exactly.
    let number = |count: u64| u32::try_from(count).map_or(f64::from(u32::MAX), f64::from);
    (whole > 0).then(|| number(part) / number(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const BAD: Status = Status::Unhealthy;
    const GOOD: Status = Status::Healthy;
    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A recorder, and the moments at which things are told to it, by seconds from the start.
    struct Tape {
        recorder: Recorder,
        start: Stamp,
    }

    impl Tape {
        fn new() -> Self {
            let at = Clock::system().instant();
            Self { recorder: Recorder::new(), start: Stamp { at, wall: "2026-11-21T00:00:00Z".parse().unwrap() } }
        }

        fn at(&self, seconds: u64) -> Stamp {
            let after = Duration::from_secs(seconds);
            Stamp { at: self.start.at + after, wall: self.start.wall.checked_add(after).unwrap() }
        }

        /// A result that holds for ten minutes.
        fn told(&mut self, seconds: u64, status: Status, latency_ms: u64) {
            let now = self.at(seconds);
            self.recorder.record(status, now, Some(Duration::from_millis(latency_ms)));
            self.recorder.believe(now.at + Duration::from_secs(600));
        }

        fn history(&mut self, seconds: u64) -> History {
            let now = self.at(seconds);
            self.recorder.history(now)
        }
    }

    fn near(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|value| (value / expected - 1.0).abs() < 0.001)
    }

    #[test]
    fn a_minute_has_its_worst_status_its_part_and_its_percentiles() {
        let mut tape = Tape::new();
        for second in 0..20 {
            tape.told(second * 2, GOOD, second + 1);
        }
        tape.told(45, BAD, 1000);
        tape.told(60, GOOD, 7);
        let history = tape.history(75);
        assert_eq!(history.minutes.len(), 2);
        let [first, second] = history.minutes[..] else { panic!("{history:?}") };
        assert_eq!(first.at, tape.start.wall);
        assert_eq!((first.status, first.ready_ratio), (Some(BAD), Some(0.75)));
        // Of 21 samples the 11th and the 20th.
        assert!(near(first.latency_p50_ms, 11.0) && near(first.latency_p95_ms, 20.0), "{first:?}");
        assert_eq!(second.at, tape.at(60).wall);
        assert_eq!((second.status, second.ready_ratio), (Some(BAD), Some(1.0)), "it began with what was known");
        assert!(near(second.latency_p50_ms, 7.0) && near(second.latency_p95_ms, 7.0));
        assert_eq!(history.availability.hour_ratio, Some(60.0 / 75.0));
        let changes: Vec<_> = history.changes.iter().map(|change| (change.at, change.to)).collect();
        assert_eq!(changes, [(tape.at(0).wall, GOOD), (tape.at(45).wall, BAD), (tape.at(60).wall, GOOD)]);
    }

    #[test]
    fn time_of_which_nothing_is_known_counts_for_nothing() {
        let mut tape = Tape::new();
        assert_eq!(tape.history(0).availability, Availability::default());
        tape.told(0, GOOD, 1);
        tape.told(1800, BAD, 1);
        // Good for 600 s, unknown for 1200 s, bad for 600 s, then unknown.
        let history = tape.history(3599);
        assert_eq!(history.availability, Availability { hour_ratio: Some(0.5), day_ratio: Some(0.5) });
        let known = |minute: usize| history.minutes[minute].status;
        assert_eq!((known(5), known(15), known(35), known(45)), (Some(GOOD), None, Some(BAD), None));
        assert_eq!(history.minutes[15].ready_ratio, None);
        let grace = tape.at(3600);
        tape.recorder.record(Status::Unknown, grace, None);
        tape.recorder.believe(grace.at + DAY);
        let history = tape.history(7200);
        assert_eq!(history.availability.hour_ratio, None, "unknown is not unready");
    }

    #[test]
    fn an_hour_and_a_day_are_told_apart() {
        let mut tape = Tape::new();
        for minute in 0..24 * 60 {
            let status = if minute < 6 * 60 { BAD } else { GOOD };
            tape.told(minute * 60, status, 1);
        }
        let history = tape.history(24 * 3600 - 1);
        assert_eq!(history.availability.hour_ratio, Some(1.0));
        assert!(near(history.availability.day_ratio, 0.75), "{:?}", history.availability);
    }

    #[test]
    fn the_ring_is_full_after_a_day_and_grows_no_more() {
        let mut tape = Tape::new();
        for minute in 0..3 * 24 * 60 {
            let status = if minute % 3 == 0 { BAD } else { GOOD };
            (0..3).for_each(|probe| tape.told(minute * 60 + probe * 10, status, 1));
        }
        let history = tape.history(3 * 24 * 3600 - 1);
        assert_eq!(history.minutes.len(), HISTORY_MINUTES);
        assert_eq!(history.changes.len(), HISTORY_CHANGES_MAX);
        let recorder = &tape.recorder;
        let bytes = recorder.slots.capacity() * size_of::<Slot>()
            + recorder.samples.capacity() * size_of::<Duration>()
            + recorder.changes.capacity() * size_of::<(Stamp, Status)>()
            + size_of::<Recorder>();
        assert_eq!(size_of::<Slot>(), 10);
        assert!(bytes < 20 * 1024, "{bytes} bytes a check");
    }

    #[test]
    fn more_samples_than_a_minute_holds_are_left_out() {
        let mut tape = Tape::new();
        (0..10_000).for_each(|probe| tape.told(0, GOOD, probe));
        assert_eq!(tape.recorder.samples.len(), MINUTE_SAMPLES_MAX);
    }

    #[test]
    fn a_pause_of_days_leaves_nothing_and_takes_no_time() {
        for days in [2, 3, 3650] {
            let mut tape = Tape::new();
            tape.told(0, GOOD, 1);
            let resumed = days * 24 * 3600;
            tape.told(resumed, BAD, 1);
            let history = tape.history(resumed + 30);
            assert!(history.minutes.len() <= HISTORY_MINUTES);
            assert_eq!(history.minutes.last().unwrap().status, Some(BAD));
            assert_eq!(history.availability.hour_ratio, Some(0.0));
            assert_eq!(history.availability.day_ratio, Some(0.0), "after {days} days");
        }
    }

    #[test]
    fn latencies_are_packed_to_a_thousandth() {
        for micros in [1, 2, 17, 333, 1_000, 52_000, 999_999, 30_000_000, 200_000_000] {
            let latency = Duration::from_micros(micros);
            assert!(near(Packed::new(latency).ms(), latency.as_secs_f64() * 1e3), "{micros} us");
        }
        assert_eq!(Packed::default().ms(), None);
        assert!(Packed::new(Duration::MAX).ms().is_some() && Packed::new(Duration::ZERO).ms().is_some());
    }
}
