use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Span, ToSpan};
use proptest::prelude::*;
use stackkit_core::ErrorKind;

use super::*;
use crate::retention::RetentionTotals;

const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A complete backup of the stack `shop`; the number only tells backups of one second apart.
fn backup(started: Timestamp, number: usize) -> BackupSummary {
    let id: BackupId = format!("{}-{number:08x}", started.strftime("%Y%m%dT%H%M%SZ")).parse().unwrap();
    BackupSummary { started, stored_bytes: 1000, ..BackupSummary::new(id, "shop", format!("{number:064x}")) }
}

fn backups(times: &[&str]) -> Vec<BackupSummary> {
    times.iter().enumerate().map(|(number, at)| backup(time(at), number)).collect()
}

fn inventory(backups: Vec<BackupSummary>) -> Inventory {
    Inventory::new("repository", time("2100-01-01T00:00:00Z"), backups)
}

/// The times of the backups that are kept, newest first.
fn kept(policy: &Retention, times: &[&str]) -> Vec<String> {
    let plan = policy.plan(&inventory(backups(times))).unwrap();
    let kept = plan.decisions.iter().filter(|decision| decision.action == RetentionAction::Keep);
    kept.map(|decision| decision.started.to_string()).collect()
}

fn zone(posix: &str) -> TimeZone {
    TimeZone::posix(posix).unwrap()
}

fn reasons(plan: &RetentionPlan, place: usize) -> String {
    let reasons: Vec<_> = plan.decisions[place].reasons.iter().map(ToString::to_string).collect();
    format!("{}: {}", plan.decisions[place].action, reasons.join(", "))
}

#[test]
fn every_reason_is_told() {
    let times = ["2026-11-21T06:00:00Z", "2026-11-21T05:00:00Z", "2026-11-20T06:00:00Z", "2026-11-19T06:00:00Z"];
    let mut all = backups(&times);
    all[3].tags = vec!["release".to_owned(), "other".to_owned()];
    let mut partial = backup(time("2026-11-20T07:00:00Z"), 10);
    partial.state = SummaryState::Partial;
    let mut newest = backup(time("2026-11-21T07:00:00Z"), 11);
    newest.state = SummaryState::Partial;
    let mut damaged = backup(time("2026-11-01T07:00:00Z"), 12);
    damaged.state = SummaryState::Unusable("damaged".to_owned());
    let mut locked = backup(time("2026-11-02T07:00:00Z"), 13);
    locked.retain_until = Some(time("2026-12-01T00:00:00Z"));
    let mut lock_ended = backup(time("2026-11-02T06:00:00Z"), 14);
    lock_ended.retain_until = Some(time("2026-11-21T07:30:00Z"));
    let future = backup(time("2026-11-21T09:00:00Z"), 15);
    let verified = backup(time("2026-11-03T07:00:00Z"), 16);
    let verified_id = verified.id;
    all.extend([partial, newest, damaged, locked, lock_ended, future, verified]);
    let policy = Retention::new().keep_last(1).keep_daily(2).keep_hourly_within(90.minutes()).keep_tag("release");
    let mut inventory = inventory(all).with_verified(verified_id);
    inventory.taken_at = time("2026-11-21T08:00:00Z");
    let plan = policy.plan(&inventory).unwrap();
    let told: Vec<_> = (0..plan.decisions.len()).map(|place| reasons(&plan, place)).collect();
    assert_eq!(
        told,
        [
            "keep: dated in the future",
            "keep: partial, and no complete backup is newer, partial: never counts",
            "keep: last 1 of 1, daily slot 2026-11-21, hourly slot 2026-11-21T06+00:00 within 90m, the last complete backup",
            "keep: hourly slot 2026-11-21T05+00:00 within 90m",
            "delete: partial: never counts",
            "keep: daily slot 2026-11-20",
            "keep: tag release",
            "keep: the newest verified backup",
            "keep: locked until 2026-12-01T00:00:00Z",
            "delete: no rule keeps it",
            "keep: its manifest can't be used: damaged",
        ]
    );
    let text = plan.to_string();
    assert!(text.contains("stack shop: 9 kept, 2 to delete, 0 announced before, 1.9 KiB"), "{text}");
    assert!(text.contains("  delete  20261102T060000Z-0000000e  complete      1000 B  no rule keeps it"), "{text}");
    assert!(text.ends_with("2 backups are deleted"), "{text}");
}

#[test]
fn partial_backups_never_count_and_go_when_a_complete_one_is_newer() {
    let mut all = backups(&["2026-11-03T06:00:00Z", "2026-11-02T06:00:00Z", "2026-11-01T06:00:00Z"]);
    all[1].state = SummaryState::Partial;
    let decide = |policy: Retention, all: &[BackupSummary]| {
        let plan = policy.plan(&inventory(all.to_vec())).unwrap();
        plan.decisions.iter().map(|decision| decision.action == RetentionAction::Keep).collect::<Vec<_>>()
    };
    assert_eq!(decide(Retention::new().keep_last(2), &all), [true, false, true]);
    assert_eq!(decide(Retention::new().keep_daily(2), &all), [true, false, true]);
    assert_eq!(decide(Retention::new().keep_daily_within(40.hours()), &all), [true, false, false]);
    assert_eq!(decide(Retention::new().keep_within(40.hours()), &all), [true, true, false]);
    assert_eq!(decide(Retention::new().keep_last(1).keep_id(all[1].id), &all), [true, true, false]);
    all[1].tags.push("x".to_owned());
    assert_eq!(decide(Retention::new().keep_last(1).keep_tag("x"), &all), [true, true, false]);
    // Without any complete backup there is nothing better.
    all.iter_mut().for_each(|backup| backup.state = SummaryState::Partial);
    assert_eq!(decide(Retention::new().keep_last(1), &all), [true, true, true]);
}

#[test]
fn within_counts_from_the_newest_complete_backup_and_not_from_today() {
    let times = ["2020-03-31T12:00:00Z", "2020-03-15T12:00:00Z", "2020-02-29T12:00:00Z", "2020-02-29T11:59:59Z"];
    assert_eq!(kept(&Retention::new().keep_within(1.month()), &times), times[..3]);
    assert_eq!(kept(&Retention::new().keep_within(16.days()), &times), times[..2]);
    assert_eq!(kept(&Retention::new().keep_monthly_within(1.year()), &times), [times[0], times[2]]);
    assert_eq!(kept(&Retention::new().keep_within(1.second()), &times), times[..1]);
    // A forged time in the future must not push everything out.
    let mut all = backups(&times);
    all.push(backup(time("2099-01-01T00:00:00Z"), 9));
    let mut inventory = inventory(all);
    inventory.taken_at = time("2020-04-01T00:00:00Z");
    let plan = Retention::new().keep_within(1.month()).plan(&inventory).unwrap();
    assert_eq!(plan.deletions().map(|decision| decision.started.to_string()).collect::<Vec<_>>(), times[3..]);
}

#[test]
fn an_hour_that_is_shown_twice_is_two_and_one_that_is_skipped_is_none() {
    // In Berlin 02:00 to 03:00 comes twice on 25 October 2026.
    let policy = Retention::new().keep_hourly(3).with_time_zone(zone(BERLIN));
    let times = ["2026-10-25T01:50:00Z", "2026-10-25T01:10:00Z", "2026-10-25T00:50:00Z", "2026-10-24T23:50:00Z"];
    assert_eq!(kept(&policy, &times), [times[0], times[2], times[3]]);
    // On 29 March 02:00 to 03:00 is skipped: 01:50 and 03:10 are 20 minutes apart.
    let times = ["2026-03-29T01:10:00Z", "2026-03-29T00:50:00Z", "2026-03-29T00:10:00Z"];
    assert_eq!(kept(&policy, &times), times[..2]);
    // In New York 01:00 to 02:00 comes twice on 1 November, and 02:00 to 03:00 is skipped on 8 March.
    let policy = policy.with_time_zone(zone(NEW_YORK));
    let times = ["2026-11-01T06:50:00Z", "2026-11-01T05:50:00Z", "2026-11-01T05:10:00Z", "2026-11-01T04:50:00Z"];
    assert_eq!(kept(&policy, &times), [times[0], times[1], times[3]]);
    let times = ["2026-03-08T07:10:00Z", "2026-03-08T06:50:00Z", "2026-03-08T06:10:00Z"];
    assert_eq!(kept(&policy, &times), times[..2]);
}

#[test]
fn days_are_23_and_25_hours_long_when_the_clock_is_changed() {
    for (posix, times) in [
        // The last moment of each day and the first of the next: 29 March has 23 hours.
        (BERLIN, ["2026-03-29T22:00:00Z", "2026-03-29T21:59:59Z", "2026-03-28T23:00:00Z", "2026-03-28T22:59:59Z"]),
        // 25 October has 25.
        (BERLIN, ["2026-10-25T23:00:00Z", "2026-10-25T22:59:59Z", "2026-10-24T22:00:00Z", "2026-10-24T21:59:59Z"]),
        (NEW_YORK, ["2026-03-09T04:00:00Z", "2026-03-09T03:59:59Z", "2026-03-08T05:00:00Z", "2026-03-08T04:59:59Z"]),
        (NEW_YORK, ["2026-11-02T05:00:00Z", "2026-11-02T04:59:59Z", "2026-11-01T04:00:00Z", "2026-11-01T03:59:59Z"]),
    ] {
        let policy = Retention::new().keep_daily(9).with_time_zone(zone(posix));
        assert_eq!(kept(&policy, &times), [times[0], times[1], times[3]], "{posix}");
        // A day back is a day of the calendar, whatever its length.
        let policy = Retention::new().keep_within(1.day()).with_time_zone(zone(posix));
        assert_eq!(kept(&policy, &[times[0], times[2], times[3]]), [times[0], times[2]], "{posix}");
    }
}

#[test]
fn weeks_quarters_and_years_turn_where_the_calendar_says() {
    // Sunday and Monday; 2026 has 53 weeks, the last of which ends in 2027.
    let weeks = ["2027-01-04T00:00:00Z", "2027-01-03T23:59:59Z", "2026-12-28T00:00:00Z", "2026-12-27T23:59:59Z"];
    assert_eq!(kept(&Retention::new().keep_weekly(9), &weeks), [weeks[0], weeks[1], weeks[3]]);
    let quarters = ["2026-10-01T00:00:00Z", "2026-09-30T23:59:59Z", "2026-07-01T00:00:00Z", "2026-06-30T23:59:59Z"];
    assert_eq!(kept(&Retention::new().keep_quarterly(9), &quarters), [quarters[0], quarters[1], quarters[3]]);
    let years = ["2027-01-01T00:00:00Z", "2026-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2025-12-31T23:59:59Z"];
    assert_eq!(kept(&Retention::new().keep_yearly(9), &years), [years[0], years[1], years[3]]);
    let leap = ["2028-03-01T00:00:00Z", "2028-02-29T23:59:59Z", "2028-02-29T00:00:00Z", "2028-02-28T23:59:59Z"];
    assert_eq!(kept(&Retention::new().keep_daily(9), &leap), [leap[0], leap[1], leap[3]]);
    assert_eq!(kept(&Retention::new().keep_monthly(9), &leap), leap[..2]);
    assert_eq!(kept(&Retention::new().keep_within(1.year()), &[leap[1], "2027-02-28T23:59:59Z"]).len(), 2);
}

#[test]
fn slots_are_those_that_have_a_backup() {
    let times = ["2026-11-21T06:00:00Z", "2026-06-01T06:00:00Z", "2020-01-01T06:00:00Z", "2019-12-31T06:00:00Z"];
    assert_eq!(kept(&Retention::new().keep_daily(3), &times), times[..3]);
}

#[test]
fn stacks_have_slots_of_their_own() {
    let mut all = backups(&["2026-11-03T06:00:00Z", "2026-11-02T06:00:00Z", "2026-11-01T06:00:00Z"]);
    all[2].stack = "blog".to_owned();
    let plan = Retention::new().keep_last(1).plan(&inventory(all)).unwrap();
    let told: Vec<_> = plan.decisions.iter().map(|decision| (decision.stack.as_str(), decision.action)).collect();
    use RetentionAction::{Delete, Keep};
    assert_eq!(told, [("blog", Keep), ("shop", Keep), ("shop", Delete)]);
}

#[test]
fn an_announced_backup_takes_no_place_and_a_rule_can_still_keep_it() {
    let mut all = backups(&["2026-11-03T06:00:00Z", "2026-11-02T06:00:00Z", "2026-11-01T06:00:00Z"]);
    let purge_after = time("2026-11-04T00:00:00Z");
    let announce = |backup: &mut BackupSummary| backup.announcement = Announcement::PurgeAfter(purge_after);
    announce(&mut all[1]);
    let plan = Retention::new().keep_last(2).plan(&inventory(all.clone())).unwrap();
    let announced = "announced, to be purged after 2026-11-04T00:00:00Z";
    assert_eq!(reasons(&plan, 1), format!("keep: last 2 of 2, {announced}"));
    assert_eq!(reasons(&plan, 2), "keep: last 2 of 2");
    assert!(plan.needs_force().is_empty());
    let plan = Retention::new().keep_last(1).plan(&inventory(all.clone())).unwrap();
    assert_eq!(reasons(&plan, 1), format!("delete: {announced}, no rule keeps it"));
    assert_eq!(plan.totals()["shop"], RetentionTotals { kept: 1, announced: 1, pending: 1, deleted_bytes: 2000 });
    // A tombstone in which nobody can trust hides nothing from the rules.
    all[1].announcement = Announcement::Unusable("forged".to_owned());
    let plan = Retention::new().keep_last(1).plan(&inventory(all.clone())).unwrap();
    assert_eq!(reasons(&plan, 1), "keep: its tombstone can't be trusted: forged");
    // When all others are gone or announced, the newest is the last.
    all.iter_mut().for_each(announce);
    let plan = Retention::new().keep_tag("none").plan(&inventory(all)).unwrap();
    assert_eq!(reasons(&plan, 0), format!("keep: the last complete backup, {announced}"));
    assert_eq!(plan.deletions().count(), 2);
}

#[test]
fn more_than_half_needs_force() {
    let all = backups(&["2026-11-03T06:00:00Z", "2026-11-02T06:00:00Z", "2026-11-01T06:00:00Z"]);
    let half = Retention::new().keep_last(1).plan(&inventory(all[..2].to_vec())).unwrap();
    assert!(half.needs_force().is_empty() && half.check_brake().is_ok());
    let most = Retention::new().keep_last(1).plan(&inventory(all)).unwrap();
    assert_eq!(most.needs_force(), ["shop"]);
    let error = most.check_brake().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("more than half") && error.to_string().contains("shop"), "{error}");
    assert!(most.to_string().ends_with("it must be forced: shop"), "{most}");
    assert!(most.force().check_brake().is_ok());
}

#[test]
fn a_stored_plan_that_was_changed_is_refused() {
    let policy = Retention::new().keep_last(1).keep_within(1.day());
    let plan = policy.plan(&inventory(backups(&["2026-11-03T06:00:00Z", "2026-11-01T06:00:00Z"]))).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    let stored: RetentionPlan = serde_json::from_str(&text).unwrap();
    assert_eq!(stored, plan);
    assert!(stored.force().check().is_ok());
    let edited = text.replacen(r#""action":"keep""#, r#""action":"delete""#, 1);
    assert_ne!(edited, text);
    let edited: RetentionPlan = serde_json::from_str(&edited).unwrap();
    assert_eq!(edited.check().unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
#[allow(clippy::print_stdout, reason = "the figure is what the run in an optimised build is for")]
fn ten_thousand_backups_are_planned_in_a_second() {
    let newest = time("2026-11-21T06:00:00Z").as_second();
    let all: Vec<_> = (0..10_000)
        .map(|number| {
            let at = Timestamp::from_second(newest - i64::try_from(number).unwrap() * 3600).unwrap();
            let mut backup = backup(at, number);
            backup.tags = vec!["hourly".to_owned()];
            backup
        })
        .collect();
    let policy = Retention::new()
        .keep_last(100)
        .keep_hourly(1000)
        .keep_daily(365)
        .keep_weekly(100)
        .keep_monthly(60)
        .keep_quarterly(20)
        .keep_yearly(10)
        .keep_within(30.days())
        .keep_daily_within(1.year())
        .with_time_zone(zone(BERLIN));
    let inventory = inventory(all);
    #[allow(clippy::disallowed_methods, reason = "the test measures real time")]
    let begin = std::time::Instant::now();
    let plan = policy.plan(&inventory).unwrap();
    let elapsed = begin.elapsed();
    println!("10000 backups: {elapsed:?}, {} deleted", plan.deletions().count());
    assert_eq!(plan.decisions.len(), 10_000);
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?} in an unoptimised build");
}

// What follows is checked against rules that are written down as sets.

const NOW: i64 = 1_795_000_000;

fn any_backup() -> impl Strategy<Value = BackupSummary> {
    let state = prop_oneof![
        8 => Just(SummaryState::Complete),
        1 => Just(SummaryState::Partial),
        1 => Just(SummaryState::Unusable("damaged".to_owned())),
    ];
    // Two years, some of it in the future; in steps that make equal times likely.
    let when = (0_i64..50_000).prop_map(|step| NOW + 900_000 - step * 1200);
    let announced = prop::bool::weighted(0.15);
    (when, any::<u32>(), state, prop::bool::weighted(0.1), prop::bool::weighted(0.1), announced, 0..2_u8).prop_map(
        |(second, random, state, tagged, locked, announced, stack)| {
            let mut summary = backup(Timestamp::from_second(second).unwrap(), usize::try_from(random).unwrap());
            summary.state = state;
            summary.stack = ["shop", "blog"][usize::from(stack)].to_owned();
            summary.tags.extend(tagged.then(|| "keep".to_owned()));
            summary.retain_until = locked.then(|| Timestamp::from_second(NOW + 10).unwrap());
            if announced {
                summary.announcement = Announcement::PurgeAfter(Timestamp::from_second(NOW).unwrap());
            }
            summary
        },
    )
}

fn any_inventory() -> impl Strategy<Value = Inventory> {
    let backups = prop::collection::vec(any_backup(), 0..60);
    (backups, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(mut backups, verified, any_verified)| {
        backups.sort_by_key(|backup| backup.id);
        backups.dedup_by_key(|backup| backup.id);
        let mut inventory = Inventory::new("r", Timestamp::from_second(NOW).unwrap(), backups);
        if any_verified && !inventory.backups.is_empty() {
            inventory.verified.insert(verified.get(&inventory.backups).id);
        }
        inventory
    })
}

fn any_policy() -> impl Strategy<Value = Retention> {
    let counts = prop::collection::vec(0..5_u32, 7);
    let within = prop::option::of(1..100_i64);
    let slots_within = prop::option::of(1..100_i64);
    (counts, within, slots_within, any::<bool>(), 0..3_usize).prop_map(|(count, within, slots_within, tag, place)| {
        let zones = [TimeZone::UTC, zone(BERLIN), zone(NEW_YORK)];
        let mut policy = Retention::new()
            .keep_last(count[0] + 1)
            .keep_hourly(count[1])
            .keep_daily(count[2])
            .keep_weekly(count[3])
            .keep_monthly(count[4])
            .keep_quarterly(count[5])
            .keep_yearly(count[6])
            .with_time_zone(zones[place].clone());
        policy = within.into_iter().fold(policy, |policy, days| policy.keep_within(Span::new().days(days)));
        policy =
            slots_within.into_iter().fold(policy, |policy, days| policy.keep_weekly_within(Span::new().days(days)));
        if tag { policy.keep_tag("keep") } else { policy }
    })
}

fn keeps(policy: &Retention, inventory: &Inventory) -> BTreeSet<BackupId> {
    let plan = policy.plan(inventory).unwrap();
    let kept = plan.decisions.iter().filter(|decision| decision.action == RetentionAction::Keep);
    kept.map(|decision| decision.backup).collect()
}

/// The name of a period, from the calendar's own fields.
fn naive_slot(period: Period, local: &jiff::Zoned) -> (i16, i16, i8, i8, i32) {
    let (week, offset) = (local.date().iso_week_date(), local.offset().seconds());
    match period {
        Period::Hourly => (local.year(), local.day_of_year(), local.hour(), 0, offset),
        Period::Daily => (local.year(), local.day_of_year(), 0, 0, 0),
        Period::Weekly => (week.year(), 0, week.week(), 0, 0),
        Period::Monthly => (local.year(), 0, local.month(), 0, 0),
        Period::Quarterly => (local.year(), 0, (local.month() - 1) / 3, 0, 0),
        Period::Yearly => (local.year(), 0, 0, 0, 0),
    }
}

/// What the counting rules keep of some backups of one stack.
fn naive_places(policy: &Retention, all: &[&BackupSummary]) -> BTreeSet<BackupId> {
    let mut sorted = all.to_vec();
    sorted.sort_by_key(|backup| (backup.started, backup.id));
    let mut kept: BTreeSet<_> = sorted.iter().rev().take(policy.last()).map(|backup| backup.id).collect();
    let mut best_of = |period: Period, count: usize, since: Timestamp| {
        // Later backups of a period replace the earlier ones.
        let mut best = BTreeMap::new();
        for backup in &sorted {
            best.insert(naive_slot(period, &policy.local(backup.started)), (backup.started, backup.id));
        }
        let mut best: Vec<_> = best.into_values().filter(|(started, _)| *started >= since).collect();
        best.sort_unstable();
        kept.extend(best.iter().rev().take(count).map(|(_, id)| *id));
    };
    policy.slots().for_each(|(period, count)| best_of(period, count, Timestamp::MIN));
    if let Some(newest) = sorted.last() {
        let newest = policy.local(newest.started);
        policy.slots_within().for_each(|(period, length)| best_of(period, usize::MAX, length.before(&newest)));
    }
    kept
}

/// The rules as a union of sets.
fn naive_keeps(policy: &Retention, inventory: &Inventory) -> BTreeSet<BackupId> {
    let now = inventory.taken_at;
    let mut kept = BTreeSet::new();
    for stack in ["shop", "blog"] {
        let all: Vec<_> = inventory.backups.iter().filter(|backup| backup.stack == stack).collect();
        let complete = |backup: &&&BackupSummary| backup.state == SummaryState::Complete && backup.started <= now;
        let complete: Vec<_> = all.iter().filter(complete).copied().collect();
        let alive: Vec<_> = complete.iter().filter(|backup| !backup.is_announced()).copied().collect();
        kept.extend(naive_places(policy, &alive));
        let hypothetical = naive_places(policy, &complete);
        kept.extend(complete.iter().filter(|b| b.is_announced()).map(|b| b.id).filter(|id| hypothetical.contains(id)));
        let pool = if alive.is_empty() { &complete } else { &alive };
        let last = pool.iter().max_by_key(|backup| (backup.started, backup.id));
        kept.extend(last.map(|last| last.id));
        let since = policy.within().zip(last).map(|(length, last)| length.before(&policy.local(last.started)));
        let always = |backup: &&&BackupSummary| {
            backup.started > now
                || backup.retain_until.is_some_and(|until| until > now)
                || matches!(backup.state, SummaryState::Unusable(_))
                || inventory.verified.contains(&backup.id)
                || since.is_some_and(|since| backup.started >= since)
                || backup.tags.iter().any(|tag| policy.tags().contains(tag))
                || backup.state == SummaryState::Partial
                    && last.is_none_or(|last| (last.started, last.id) < (backup.started, backup.id))
        };
        kept.extend(all.iter().filter(always).map(|backup| backup.id));
    }
    kept
}

proptest! {
    #[test]
    fn a_plan_is_the_union_of_its_rules(policy in any_policy(), inventory in any_inventory()) {
        prop_assert_eq!(keeps(&policy, &inventory), naive_keeps(&policy, &inventory));
    }

    #[test]
    fn every_decision_has_a_reason_that_fits(policy in any_policy(), inventory in any_inventory()) {
        let plan = policy.plan(&inventory).unwrap();
        prop_assert_eq!(plan.decisions.len(), inventory.backups.len());
        for decision in &plan.decisions {
            prop_assert!(!decision.reasons.is_empty());
            let keep = decision.reasons.iter().any(RetentionReason::keeps);
            prop_assert_eq!(keep, decision.action == RetentionAction::Keep);
        }
    }

    #[test]
    fn the_order_of_the_inventory_does_not_matter(
        policy in any_policy(),
        inventory in any_inventory(),
        seed in any::<u64>(),
    ) {
        let mut shuffled = inventory.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled.backups);
        prop_assert_eq!(policy.plan(&shuffled).unwrap(), policy.plan(&inventory).unwrap());
    }

    #[test]
    fn another_rule_never_deletes_more(policy in any_policy(), inventory in any_inventory()) {
        let more = policy.clone().keep_daily(9).keep_yearly(9).keep_tag("keep").keep_monthly_within(1.year());
        prop_assert!(keeps(&more, &inventory).is_superset(&keeps(&policy, &inventory)));
    }

    #[test]
    fn what_is_deleted_is_not_wanted_again_after_a_newer_backup(
        policy in any_policy(),
        mut inventory in any_inventory(),
    ) {
        // In the hour that a clock shows twice, a day back from a later moment can be earlier.
        let policy = policy.with_time_zone(TimeZone::UTC);
        let newest = Timestamp::from_second(NOW).unwrap();
        let before = policy.plan(&inventory).unwrap();
        inventory.backups.push(backup(newest, usize::try_from(u32::MAX).unwrap()));
        let after = keeps(&policy, &inventory);
        for decision in before.deletions() {
            prop_assert!(!after.contains(&decision.backup), "{}", decision);
        }
    }

    #[test]
    fn a_deletion_that_was_announced_is_wanted_by_no_rule_later(policy in any_policy(), mut inventory in any_inventory()) {
        let before = policy.plan(&inventory).unwrap();
        let deleted: BTreeSet<_> = before.deletions().map(|decision| decision.backup).collect();
        for backup in inventory.backups.iter_mut().filter(|backup| deleted.contains(&backup.id)) {
            backup.announcement = Announcement::PurgeAfter(inventory.taken_at);
        }
        let announced = policy.plan(&inventory).unwrap();
        prop_assert_eq!(keeps(&policy, &inventory), before.decisions.iter().map(|d| d.backup).filter(|id| !deleted.contains(id)).collect::<BTreeSet<_>>());
        prop_assert!(announced.needs_force().is_empty());
        // Once they are purged, the rest is wanted as before.
        inventory.backups.retain(|backup| !deleted.contains(&backup.id));
        prop_assert_eq!(policy.plan(&inventory).unwrap().deletions().count(), 0);
    }
}
