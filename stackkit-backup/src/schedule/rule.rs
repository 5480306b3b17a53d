//! When a schedule is due: civil time of a zone, or a real interval.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::cron::Cron;

/// Nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

/// What decides when a schedule is due.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rule {
    Cron { cron: Cron, zone: TimeZone },
    Interval { every: Duration, anchor: Timestamp },
}

impl Rule {
    /// The first time after `after`.
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Interval { every, anchor } => next_multiple(*every, *anchor, after),
            Self::Cron { cron, zone } if cron.ticks() => next_tick(cron, zone, after),
            Self::Cron { cron, zone } => next_fixed(cron, zone, after),
        }
    }
}

fn next_multiple(every: Duration, anchor: Timestamp, after: Timestamp) -> Option<Timestamp> {
    let (every, anchor) = (i128::try_from(every.as_nanos()).ok()?, anchor.as_nanosecond());
    let count = (after.as_nanosecond() - anchor).checked_div_euclid(every)?.checked_add(1)?;
    Timestamp::from_nanosecond(anchor.checked_add(every.checked_mul(count)?)?).ok()
}

/// For expressions that name hours: each wanted civil minute counts once, wherever the zone puts it.
fn next_fixed(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    // A later civil time never lies before an earlier one, so none before `after`'s own can lie after it.
    let mut from = minute_after(zone.to_datetime(after))?;
    loop {
        let wanted = cron.at_or_after(from)?;
        let time = first_valid(zone, wanted)?;
        if time > after {
            return Some(time);
        }
        // Only in the second pass of a repeated hour.
        from = minute_after(wanted)?;
    }
}

/// When a civil time first is; the end of the gap if it is in one.
fn first_valid(zone: &TimeZone, time: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(time).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(time).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            // With the later offset the time lies before the change, by less than the gap is long.
            let before_the_change = after.to_timestamp(time).ok()?;
            zone.following(before_the_change).next().map(|change| change.timestamp())
        }
    }
}

/// For expressions of any hour: whenever the wall clock shows a wanted minute. Between two changes of the zone's offset
/// civil and real time run alike.
fn next_tick(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut since = after;
    let mut from = minute_after(zone.to_datetime(after))?;
    loop {
        let wanted = zone.to_offset(since).to_timestamp(cron.at_or_after(from)?).ok()?;
        match zone.following(since).next().map(|change| change.timestamp()) {
            Some(change) if wanted >= change => {
                since = change;
                // A change is on a whole minute in all zones since 1972; before, the next one counts.
                from = minute_at_or_after(zone.to_datetime(change))?;
            }
            _ => return Some(wanted),
        }
    }
}

fn minute_after(time: DateTime) -> Option<DateTime> {
    whole_minute(time)?.checked_add(1.minute()).ok()
}

fn minute_at_or_after(time: DateTime) -> Option<DateTime> {
    let whole = whole_minute(time)?;
    if whole == time { Some(whole) } else { minute_after(time) }
}

fn whole_minute(time: DateTime) -> Option<DateTime> {
    time.with().second(0).subsec_nanosecond(0).build().ok()
}

/// What lies between two times, if it is not negative.
pub(super) fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    later.duration_since(earlier).try_into().unwrap_or(Duration::ZERO)
}

/// A time moved by a duration; the end of time if it lies behind it.
pub(super) fn moved(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| time.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// The moment before a time: the next one after it is that time, if it is one.
pub(super) fn just_before(time: Timestamp) -> Timestamp {
    Timestamp::from_nanosecond(time.as_nanosecond() - 1).unwrap_or(Timestamp::MIN)
}

/// A time some seconds earlier; the start of time if it lies before it.
pub(super) fn seconds_before(time: Timestamp, seconds: u64) -> Timestamp {
    Timestamp::from_nanosecond(time.as_nanosecond() - i128::from(seconds) * SECOND).unwrap_or(Timestamp::MIN)
}
