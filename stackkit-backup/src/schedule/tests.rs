use jiff::civil::DateTime;
use jiff::{SignedDuration, ToSpan};
use proptest::prelude::*;

use super::*;

/// Both kinds of change, in whole and half hours, and one that leaves out a whole day.
const ZONES: [&str; 5] =
    ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia"];

fn zone(name: &str) -> TimeZone {
    Schedule::time_zone(name).unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The civil times after `after`, each with its offset.
fn civil(expression: &str, name: &str, after: &str, count: usize) -> Vec<String> {
    let zone = zone(name);
    let schedule = Schedule::cron(expression, zone.clone()).unwrap();
    let times = schedule.upcoming(time(after)).take(count);
    times.map(|time| time.to_zoned(zone.clone()).strftime("%m-%d %H:%M %:z").to_string()).collect()
}

#[test]
fn a_time_in_the_gap_runs_once_right_after_it() {
    let berlin = civil("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
    assert_eq!(berlin, ["03-29 03:00 +02:00", "03-30 02:30 +02:00"]);
    let both = civil("0,15,45 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 4);
    let expected = ["03-29 03:00 +02:00", "03-29 03:15 +02:00", "03-29 03:45 +02:00", "03-30 02:00 +02:00"];
    assert_eq!(both, expected);
    let new_york = civil("59 2 * * *", "America/New_York", "2026-03-07T18:00:00Z", 2);
    assert_eq!(new_york, ["03-08 03:00 -04:00", "03-09 02:59 -04:00"]);
    // Lord Howe leaves out half an hour only: from 2:00 to 2:30.
    let lord_howe = civil("15,45 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 3);
    assert_eq!(lord_howe, ["10-04 02:30 +11:00", "10-04 02:45 +11:00", "10-05 02:15 +11:00"]);
    // Midnight itself was left out in São Paulo.
    let sao_paulo = civil("@daily", "America/Sao_Paulo", "2018-11-03T12:00:00Z", 2);
    assert_eq!(sao_paulo, ["11-04 01:00 -02:00", "11-05 00:00 -02:00"]);
    // Samoa had no December 30, 2011.
    let samoa = civil("0 12 * * *", "Pacific/Apia", "2011-12-29T23:00:00Z", 2);
    assert_eq!(samoa, ["12-31 00:00 +14:00", "12-31 12:00 +14:00"]);
}

#[test]
fn a_time_that_exists_twice_runs_the_first_time() {
    let berlin = civil("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(berlin, ["10-25 02:30 +02:00", "10-26 02:30 +01:00"]);
    // Asked in the middle of the second pass.
    assert_eq!(civil("30 2 * * *", "Europe/Berlin", "2026-10-25T01:15:00Z", 1), ["10-26 02:30 +01:00"]);
    let minutes = civil("*/15 2 * * *", "Europe/Berlin", "2026-10-24T22:00:00Z", 5);
    assert_eq!(minutes.last().unwrap(), "10-26 02:00 +01:00", "{minutes:?}");
    let new_york = civil("0 1 * * *", "America/New_York", "2026-10-31T18:00:00Z", 2);
    assert_eq!(new_york, ["11-01 01:00 -04:00", "11-02 01:00 -05:00"]);
    let lord_howe = civil("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", 2);
    assert_eq!(lord_howe, ["04-05 01:45 +11:00", "04-06 01:45 +10:30"]);
}

#[test]
fn what_runs_at_any_hour_ticks_through_both_changes() {
    for (name, before_a_change) in [
        ("Europe/Berlin", "2026-03-28T23:00:00Z"),
        ("Europe/Berlin", "2026-10-24T22:00:00Z"),
        ("America/New_York", "2026-03-08T05:00:00Z"),
        ("America/New_York", "2026-11-01T04:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T13:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T13:00:00Z"),
    ] {
        let schedule = Schedule::cron("*/30 * * * *", zone(name)).unwrap();
        let mut last = time(before_a_change);
        for next in schedule.upcoming(last).take(12) {
            assert_eq!(next.duration_since(last), SignedDuration::from_mins(30), "{name} at {next}");
            last = next;
        }
    }
    let twice = civil("10 * * * *", "Europe/Berlin", "2026-10-24T23:50:00Z", 4);
    assert_eq!(twice, ["10-25 02:10 +02:00", "10-25 02:10 +01:00", "10-25 03:10 +01:00", "10-25 04:10 +01:00"]);
}

#[test]
fn rare_days_are_found() {
    let utc = |expression, after, count| civil(expression, "UTC", after, count);
    let schedule = Schedule::cron("0 0 29 2 *", TimeZone::UTC).unwrap();
    let years: Vec<i16> = schedule
        .upcoming(time("2095-01-01T00:00:00Z"))
        .take(2)
        .map(|time| time.to_zoned(TimeZone::UTC).year())
        .collect();
    assert_eq!(years, [2096, 2104], "2100 is no leap year");
    // A Sunday, which the step leaves alone; it has to be both.
    let sunday = Schedule::cron("0 0 29 2 */7", TimeZone::UTC).unwrap();
    let years: Vec<i16> =
        sunday.upcoming(time("2032-01-01T00:00:00Z")).take(4).map(|time| time.to_zoned(TimeZone::UTC).year()).collect();
    assert_eq!(years, [2032, 2060, 2088, 2128]);
    let ends = utc("0 12 31 * *", "2026-01-31T12:00:00Z", 3);
    assert_eq!(ends, ["03-31 12:00 +00:00", "05-31 12:00 +00:00", "07-31 12:00 +00:00"]);
    assert_eq!(utc("@yearly", "2026-01-01T00:00:00Z", 1), ["01-01 00:00 +00:00"]);
    // A second after, a nanosecond before.
    assert_eq!(utc("0 3 * * *", "2026-11-21T02:59:59.999999999Z", 1), ["11-21 03:00 +00:00"]);
    assert_eq!(utc("0 3 * * *", "2026-11-21T03:00:00.000000001Z", 1), ["11-22 03:00 +00:00"]);
    assert_eq!(schedule.next_after(Timestamp::MAX), None);
    assert_eq!(schedule.next_after(Timestamp::MIN).map(|time| time.to_zoned(TimeZone::UTC).year()), Some(-9996));
}

#[test]
fn an_interval_is_real_time() {
    let every = |seconds| Schedule::every(Duration::from_secs(seconds)).unwrap();
    let six_hours = every(6 * 3600);
    assert_eq!(six_hours.next_after(time("2026-11-21T06:00:00Z")), Some(time("2026-11-21T12:00:00Z")));
    assert_eq!(six_hours.next_after(time("1969-12-31T23:59:59Z")), Some(time("1970-01-01T00:00:00Z")));
    let anchored = every(7).anchored_at(time("2026-11-21T00:00:01Z"));
    assert_eq!(anchored.next_after(time("2026-11-20T23:59:59Z")), Some(time("2026-11-21T00:00:01Z")));
    assert_eq!(every(1).next_after(Timestamp::MAX), None);
    for bad in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
        assert!(Schedule::every(bad).is_err(), "{bad:?}");
    }
    let parsed = |text: &str| Schedule::parse(text, TimeZone::UTC);
    assert_eq!(parsed("every 90 minutes").unwrap(), every(90 * 60));
    assert_eq!(parsed("every 6h").unwrap().to_string(), "every 6h");
    assert_eq!(parsed("15 3 * * 1").unwrap().to_string(), "15 3 * * 1 (UTC)");
    for bad in ["every", "every ", "every day", "every -6h", "every 1ms", "daily"] {
        assert_eq!(parsed(bad).unwrap_err().kind(), stackkit_core::ErrorKind::Config, "{bad}");
    }
    assert_eq!(Schedule::time_zone("Mars/Olympus").unwrap_err().kind(), stackkit_core::ErrorKind::Config);
}

#[test]
fn jitter_is_the_same_for_the_same_seed_and_never_reaches_the_next_time() {
    let hourly = Schedule::cron("@hourly", TimeZone::UTC).unwrap();
    let jittered = hourly.clone().with_jitter(Duration::from_secs(3 * 3600), 7);
    let other = hourly.clone().with_jitter(Duration::from_secs(3 * 3600), 8);
    let due: Vec<_> = hourly.upcoming(time("2026-11-21T00:00:00Z")).take(200).collect();
    let starts = |schedule: &Schedule| -> Vec<_> { due.iter().map(|due| schedule.start_of(*due)).collect() };
    assert_eq!(starts(&jittered), starts(&jittered.clone()));
    assert_ne!(starts(&jittered), starts(&other));
    assert!(due.iter().zip(starts(&jittered)).all(|(due, start)| start >= *due));
    assert!(due.iter().skip(1).zip(starts(&jittered)).all(|(next, start)| start < *next));
    let spread = starts(&jittered).iter().zip(&due).map(|(start, due)| start.duration_since(*due)).max();
    assert!(spread > Some(SignedDuration::from_mins(50)), "{spread:?}");
}

/// Every minute of the zone's real time, judged by itself: the slow truth.
fn by_scan(cron: &Cron, zone: &TimeZone, after: Timestamp, minutes: usize) -> Vec<Timestamp> {
    let wanted = |civil: DateTime| cron.at_or_after(civil) == Some(civil);
    let mut found = Vec::new();
    // The wall clock's highest reading; whatever it shows up to there is a repetition.
    let mut highest = zone.to_datetime(after);
    let start = after.as_second().div_euclid(60) * 60 + 60;
    for minute in 0..i64::try_from(minutes).unwrap() {
        let now = Timestamp::from_second(start + minute * 60).unwrap();
        let shown = zone.to_datetime(now);
        if cron.ticks() {
            found.extend(wanted(shown).then_some(now));
            continue;
        }
        // All readings that the clock went over on its way here.
        let mut passed = highest.with().second(0).subsec_nanosecond(0).build().unwrap();
        let mut is_due = false;
        while passed < shown {
            passed = passed.checked_add(1.minute()).unwrap();
            is_due |= passed > highest && wanted(passed);
        }
        highest = highest.max(shown);
        found.extend(is_due.then_some(now));
    }
    found
}

fn item(min: u8, max: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        1 => (1..=max).prop_map(|step| format!("*/{step}")),
        3 => (min..=max).prop_map(|number| number.to_string()),
        1 => (min..=max, min..=max, 1..=max).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{a},{b}")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    // Most run every day, so that changes of the clock are met.
    let rare = |min, max| prop_oneof![4 => Just("*".to_owned()), 1 => item(min, max)];
    let fields = (item(0, 59), prop_oneof![item(0, 23), item(0, 3)], rare(1, 31), rare(1, 12), rare(0, 7));
    fields.prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
}

/// Moments of which every third lies near a change of some zone.
fn moment() -> impl Strategy<Value = (usize, i64)> {
    (0..ZONES.len(), 0..2_000_000_000_i64, any::<prop::sample::Index>()).prop_map(|(place, second, pick)| {
        let zone = TimeZone::get(ZONES[place]).unwrap();
        let somewhere = Timestamp::from_second(second).unwrap();
        let change = zone.following(somewhere).next().map(|change| change.timestamp().as_second());
        let near = change.unwrap_or(second) - 20 * 3600 + i64::try_from(pick.index(21 * 3600)).unwrap();
        (place, if pick.index(3) == 0 { second } else { near })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn every_time_is_found_and_no_other(expression in expression(), (place, second) in moment()) {
        const MINUTES: usize = 30 * 60;
        let zone = TimeZone::get(ZONES[place]).unwrap();
        let Ok(schedule) = Schedule::cron(&expression, zone.clone()) else { return Ok(()) };
        let after = Timestamp::from_second(second).unwrap();
        // Offsets before 1972 have seconds.
        prop_assume!(zone.to_offset(after).seconds() % 60 == 0);
        let Rule::Cron { cron, .. } = &schedule.rule else { unreachable!() };
        let scanned = by_scan(cron, &zone, after, MINUTES);
        // In the second pass of an hour the scan does not know what the first one did.
        let repeated = zone.to_ambiguous_timestamp(zone.to_datetime(after)).is_ambiguous();
        prop_assume!(!repeated);
        let end = Timestamp::from_second(after.as_second().div_euclid(60) * 60 + 60 * i64::try_from(MINUTES).unwrap()).unwrap();
        let found: Vec<_> = schedule.upcoming(after).take_while(|time| *time <= end).collect();
        prop_assert_eq!(&found, &scanned, "{} in {} after {}", expression, ZONES[place], after);
    }

    #[test]
    fn times_increase(expression in expression(), (place, second) in moment(), nanos in 0..1_000_000_000_i32) {
        let zone = TimeZone::get(ZONES[place]).unwrap();
        let Ok(schedule) = Schedule::cron(&expression, zone) else { return Ok(()) };
        let mut last = Timestamp::new(second, nanos).unwrap();
        for next in schedule.upcoming(last).take(50) {
            prop_assert!(next > last, "{next} after {last}");
            last = next;
        }
    }

    #[test]
    fn every_expression_that_is_accepted_has_a_next_time(expression in expression(), second in 0..4_000_000_000_i64) {
        if let Ok(schedule) = Schedule::cron(&expression, TimeZone::UTC) {
            prop_assert!(schedule.next_after(Timestamp::from_second(second).unwrap()).is_some());
        }
    }
}
