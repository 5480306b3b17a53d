//! When a file system is full, by how it filled so far.

use std::time::Duration;

use stackkit_core::{Observation, ProbeContext};

use crate::metrics::number;

/// The average that the trend is told by.
const AVERAGE: &str = "available_average_bytes";
/// What the trend says.
const TIME_TO_FULL: &str = "time_to_full_seconds";

/// How long the average looks back. Long enough that what is written and removed again within the hour is no trend, short
/// enough that a runaway log is seen hours before the end.
const MEMORY: Duration = Duration::from_secs(6 * 3600);

/// Beyond a year it is no forecast any more.
const HORIZON: Duration = Duration::from_secs(365 * 24 * 3600);

/// Adds when no space is left, and the average that the next probe goes on from.
///
/// The average of something that falls steadily lags behind it by [`MEMORY`] times its slope, so the difference tells the slope.
/// While there are fewer observations than that it tells too small a slope: a single burst after the start is no alarm.
pub(crate) fn observe(observation: Observation, available_bytes: u64, cx: &ProbeContext) -> Observation {
    let available = number(available_bytes);
    let before = cx.previous().and_then(|previous| previous.value(AVERAGE)).zip(cx.elapsed());
    let Some((before, elapsed)) = before else {
        return observation.gauge(AVERAGE, available).unavailable(TIME_TO_FULL, "needs a previous observation");
    };
    let weight = 1.0 - (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
    let average = before + weight * (available - before);
    // Whole, as bytes are; the half byte is far below what any trend is made of.
    let observation = observation.gauge(AVERAGE, average.round());
    match time_to_full(available, average) {
        Some(seconds) => observation.gauge(TIME_TO_FULL, seconds),
        None => observation
            .unavailable(TIME_TO_FULL, "the used space does not grow, or so slowly that a year is not enough"),
    }
}

/// How many seconds are left; `None` if it does not fill, or not within [`HORIZON`].
fn time_to_full(available: f64, average: f64) -> Option<f64> {
    let filled_per_second = (average - available) / MEMORY.as_secs_f64();
    let seconds = (filled_per_second > 0.0).then(|| available / filled_per_second)?;
    (seconds < HORIZON.as_secs_f64()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stackkit_core::Clock;
    use stackkit_core::health::Tier;

    use super::*;

    const GIB: u64 = 1 << 30;
    const STEP: Duration = Duration::from_secs(60);

    /// What the last of the probes says that see `available` bytes, a minute apart.
    fn after(available: impl IntoIterator<Item = u64>) -> Observation {
        let clock = Clock::system();
        let now = clock.instant() + STEP;
        available.into_iter().fold(Observation::new(), |before, available| {
            let first = before.measurements.is_empty();
            // The tests' clock stands still but for a few microseconds.
            let cx = ProbeContext::new(Tier::Vitals, now)
                .with_previous((!first).then(|| Arc::new(before)))
                .with_previous_at((!first).then(|| clock.instant().checked_sub(STEP)).flatten());
            observe(Observation::new(), available, &cx)
        })
    }

    fn hours(observation: &Observation) -> Option<f64> {
        observation.value(TIME_TO_FULL).map(|seconds| seconds / 3600.0)
    }

    #[test]
    fn a_steady_writer_is_told_hours_before() {
        // 100 GiB left, of which one goes each hour.
        let left = |minutes: u64| 100 * GIB - minutes * GIB / 60;
        let seen = after((0..24 * 60).map(left));
        let hours = hours(&seen).unwrap();
        assert!((76.0..80.0).contains(&hours), "76 GiB are left at 1 GiB an hour: {hours} h");
    }

    #[test]
    fn a_runaway_log_is_critical_before_the_end() {
        // 100 GiB are written in two hours.
        let seen = after((0..90).map(|minutes| 100 * GIB - minutes * 100 * GIB / 120));
        assert!(hours(&seen).unwrap() < 4.0, "half an hour before the end: {seen:?}");
    }

    #[test]
    fn one_observation_and_what_does_not_grow_have_no_end() {
        assert_eq!(hours(&after([GIB])), None);
        assert_eq!(hours(&after([GIB, GIB])), None, "flat");
        assert_eq!(hours(&after([GIB, 2 * GIB, 3 * GIB])), None, "it shrinks");
        let slow = after((0..60).map(|minutes| 1000 * GIB - minutes * 1024));
        assert_eq!(hours(&slow), None, "more than a year: {slow:?}");
    }

    #[test]
    fn what_is_written_and_removed_again_is_no_alarm() {
        // A tenth of the space is taken for half of each hour.
        let seen = after((0..24 * 60).map(|minutes| if minutes % 60 < 30 { 50 * GIB } else { 40 * GIB }));
        assert!(hours(&seen).is_none_or(|hours| hours > 24.0), "{seen:?}");
        // One burst of a twentieth, right after the start.
        let seen = after((0..10).map(|minutes| 50 * GIB - minutes * GIB / 2));
        assert!(hours(&seen).is_none_or(|hours| hours > 24.0), "{seen:?}");
    }
}
