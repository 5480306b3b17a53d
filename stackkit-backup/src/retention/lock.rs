//! How long a new backup is locked by the policy that will keep it: no I/O, no clock.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};

use super::policy::{Period, Retention};

/// The longest lock that a policy gives: ten years, the longest that laws commonly ask for. A lock can't be taken back,
/// and a slip of the finger in a policy must not fill a bucket for a century.
const LOCK_MAX: Duration = Duration::from_secs(3653 * 24 * 60 * 60);

impl Retention {
    /// Until when a complete backup that begins at `started` is worth a lock by the storage, given when the other complete
    /// backups of its stack began; `None`: this policy gives it no lock. Asks nobody and changes nothing.
    ///
    /// - The first backup of an hour, day, … year takes the place of that period, and is locked until the policy lets go of
    ///   the place if every later period has a backup: the first one of July under `keep_monthly(12)` until July begins
    ///   again. Of several periods the longest lock counts, so a first backup of a month is not locked by `keep_daily(7)`
    ///   alone.
    /// - [`keep_within`](Self::keep_within) locks every backup, and its relatives the first of each period, for the
    ///   span.
    /// - Numbers of backups, tags and ids tell no time, so they lock nothing.
    ///
    /// This is simpler than what a prune does, which keeps the *newest* backup of a period: that it is the newest is known
    /// only when the period is over. So a later backup of the same period is kept by the rules, without a lock, beside
    /// the first one, which its lock keeps. At most ten years are locked.
    ///
    /// ```
    /// use stackkit_backup::Retention;
    /// let policy = Retention::new().keep_last(3).keep_daily(7).keep_monthly(12);
    /// let first = "2026-07-01T02:00:00Z".parse().unwrap();
    /// assert_eq!(policy.lock_until(first, &[]), Some("2027-07-01T00:00:00Z".parse().unwrap()));
    /// let second = "2026-07-02T02:00:00Z".parse().unwrap();
    /// assert_eq!(policy.lock_until(second, &[first]), Some("2026-07-09T00:00:00Z".parse().unwrap()));
    /// assert_eq!(Retention::new().keep_last(3).lock_until(first, &[]), None);
    /// ```
    #[must_use]
    pub fn lock_until(&self, started: Timestamp, others: &[Timestamp]) -> Option<Timestamp> {
        let moment = self.local(started);
        let is_first = |period: Period| {
            let slot = period.slot(&moment);
            !others.iter().any(|other| period.slot(&self.local(*other)) == slot)
        };
        let after = |span: Span| moment.checked_add(span).map_or(Timestamp::MAX, |end| end.timestamp());
        let slots = self.slots().filter(|(period, count)| *count > 0 && is_first(*period));
        let slots = slots.map(|(period, count)| period.end_of(&moment, count));
        let spans = self.slots_within().filter(|(period, _)| is_first(*period)).map(|(_, length)| length.span());
        let spans = spans.chain(self.within().map(|length| length.span()));
        let until = slots.chain(spans.map(after)).max()?;
        let latest = started.checked_add(LOCK_MAX).unwrap_or(Timestamp::MAX);
        Some(until.min(latest)).filter(|until| *until > started)
    }

    /// The beginning of the longest period that [`lock_until`](Self::lock_until) looks at: what is older makes no
    /// difference. `None`: nothing does.
    pub(crate) fn lock_looks_back_to(&self, started: Timestamp) -> Option<Timestamp> {
        let moment = self.local(started);
        let slots = self.slots().filter(|(_, count)| *count > 0).map(|(period, _)| period);
        let periods = slots.chain(self.slots_within().map(|(period, _)| period));
        periods.map(|period| period.end_of(&moment, 0)).min()
    }
}

impl Period {
    /// When the period `count` after the one that `moment` is in begins.
    fn end_of(self, moment: &Zoned, count: usize) -> Timestamp {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.checked_end_of(moment, count).unwrap_or(Timestamp::MAX)
    }

    fn checked_end_of(self, moment: &Zoned, count: i64) -> Option<Timestamp> {
        let date = moment.date();
        let start = match self {
            // An hour as the clock shows it is an hour long, whatever the clock does then.
            Self::Hourly => {
                let hour = moment.with().minute(0).second(0).subsec_nanosecond(0).build().ok()?;
                return hour.timestamp().checked_add(Span::new().try_hours(count).ok()?).ok();
            }
            Self::Daily => date,
            Self::Weekly => date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).ok()?,
            Self::Monthly => date.first_of_month(),
            Self::Quarterly => Date::new(date.year(), (date.month() - 1) / 3 * 3 + 1, 1).ok()?,
            Self::Yearly => date.first_of_year(),
        };
        let span = Span::new();
        let span = match self {
            Self::Hourly | Self::Daily => span.try_days(count),
            Self::Weekly => span.try_weeks(count),
            Self::Monthly => span.try_months(count),
            Self::Quarterly => span.try_months(count.checked_mul(3)?),
            Self::Yearly => span.try_years(count),
        };
        beginning_of(start.checked_add(span.ok()?).ok()?, moment.time_zone())
    }
}

/// The first moment of a day, which is not midnight everywhere.
fn beginning_of(day: Date, zone: &TimeZone) -> Option<Timestamp> {
    Some(day.to_zoned(zone.clone()).ok()?.start_of_day().ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The lock of a backup that begins at `started` after `others`.
    fn lock(policy: &Retention, started: &str, others: &[&str]) -> Option<String> {
        let others: Vec<_> = others.iter().map(|other| at(other)).collect();
        policy.lock_until(at(started), &others).map(|until| until.to_string())
    }

    fn until(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_first_of_a_period_is_locked_for_its_longest_rule() {
        let policy = Retention::new().keep_last(5).keep_daily(7).keep_weekly(4).keep_monthly(12).keep_yearly(3);
        let started = "2026-07-15T10:20:30Z";
        for (others, expected) in [
            (&[][..], "2029-01-01T00:00:00Z"),
            (&["2026-06-30T23:59:59Z"], "2027-07-01T00:00:00Z"),
            (&["2026-07-01T00:00:00Z"], "2026-08-10T00:00:00Z"),
            (&["2026-07-13T00:00:00Z"], "2026-07-22T00:00:00Z"),
            // A backup of a later moment, such as by another clock, takes places too.
            (&["2026-07-16T00:00:00Z"], "2026-07-22T00:00:00Z"),
        ] {
            assert_eq!(lock(&policy, started, others), until(expected), "{others:?}");
        }
        assert_eq!(lock(&policy, started, &["2026-07-15T00:00:00Z"]), None, "the second one of a day");
    }

    #[test]
    fn every_period_ends_where_the_calendar_says() {
        for (policy, expected) in [
            (Retention::new().keep_hourly(24), "2026-12-01T23:00:00Z"),
            (Retention::new().keep_daily(1), "2026-12-01T00:00:00Z"),
            (Retention::new().keep_weekly(1), "2026-12-07T00:00:00Z"),
            (Retention::new().keep_monthly(3), "2027-02-01T00:00:00Z"),
            (Retention::new().keep_quarterly(2), "2027-04-01T00:00:00Z"),
            (Retention::new().keep_yearly(2), "2028-01-01T00:00:00Z"),
            (Retention::new().keep_within(36.hours()), "2026-12-02T11:30:00Z"),
            (Retention::new().keep_daily_within(1.month()), "2026-12-30T23:30:00Z"),
        ] {
            assert_eq!(lock(&policy, "2026-11-30T23:30:00Z", &[]), until(expected), "{policy}");
        }
    }

    #[test]
    fn a_span_locks_every_backup_and_spans_of_periods_the_first() {
        let others = ["2026-07-15T01:00:00Z"];
        let policy = Retention::new().keep_within(2.days()).keep_daily_within(30.days());
        assert_eq!(lock(&policy, "2026-07-15T10:00:00Z", &others), until("2026-07-17T10:00:00Z"));
        assert_eq!(lock(&policy, "2026-07-16T10:00:00Z", &others), until("2026-08-15T10:00:00Z"));
    }

    #[test]
    fn rules_without_a_time_lock_nothing() {
        for policy in [
            Retention::new(),
            Retention::new().keep_last(100),
            Retention::new().keep_tag("release"),
            Retention::new().keep_daily(0),
        ] {
            assert_eq!(lock(&policy, "2026-07-15T10:00:00Z", &[]), None, "{policy}");
            assert_eq!(policy.lock_looks_back_to(at("2026-07-15T10:00:00Z")), None);
        }
    }

    #[test]
    fn no_lock_is_longer_than_ten_years() {
        for policy in [
            Retention::new().keep_yearly(100),
            Retention::new().keep_yearly(u32::MAX),
            Retention::new().keep_hourly(u32::MAX),
            Retention::new().keep_within(10_000.years()),
        ] {
            assert_eq!(lock(&policy, "2026-01-01T00:00:00Z", &[]), until("2036-01-02T00:00:00Z"), "{policy}");
        }
        assert!(Retention::new().keep_daily(7).lock_until(Timestamp::MAX, &[]).is_none());
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let policy = Retention::new().keep_daily(1).with_time_zone_named("Europe/Berlin").unwrap();
        // The day on which summer time ends has 25 hours.
        assert_eq!(lock(&policy, "2026-10-24T22:00:00Z", &[]), until("2026-10-25T23:00:00Z"));
        assert_eq!(lock(&policy, "2026-10-25T22:30:00Z", &["2026-10-24T22:00:00Z"]), None);
        // The hour that the clock shows twice is two.
        let policy = Retention::new().keep_hourly(1).with_time_zone_named("Europe/Berlin").unwrap();
        assert_eq!(lock(&policy, "2026-10-25T00:10:00Z", &[]), until("2026-10-25T01:00:00Z"));
        assert_eq!(lock(&policy, "2026-10-25T01:10:00Z", &["2026-10-25T00:10:00Z"]), until("2026-10-25T02:00:00Z"));
    }

    #[test]
    fn it_looks_back_to_the_longest_period() {
        let policy = Retention::new().keep_daily(7).keep_monthly(2).keep_yearly(0);
        let looks_back = policy.lock_looks_back_to(at("2026-07-15T10:00:00Z"));
        assert_eq!(looks_back, Some(at("2026-07-01T00:00:00Z")));
    }

    #[test]
    fn of_one_backup_a_day_each_is_locked_exactly_as_long_as_the_policy_keeps_it() {
        use super::super::planner::{BackupSummary, Inventory};
        let policy = Retention::new().keep_daily(3);
        let mut kept: Vec<BackupSummary> = Vec::new();
        for day in 0..40 {
            let started = at("2026-07-01T02:00:00Z") + (24 * day).hours();
            let others: Vec<_> = kept.iter().map(|backup| backup.started).collect();
            let mut backup = BackupSummary::new(crate::id::BackupId::generate(started), "shop", "0");
            (backup.started, backup.retain_until) = (started, policy.lock_until(started, &others));
            assert!(backup.retain_until.is_some());
            kept.push(backup);
            // By the rules alone nothing else would be kept.
            let unlocked = kept.iter().cloned().map(|backup| BackupSummary { retain_until: None, ..backup }).collect();
            let plan = policy.plan(&Inventory::new("r", started, kept.clone())).unwrap();
            assert_eq!(plan.deletions().count(), usize::from(day >= 3));
            let by_rules = policy.plan(&Inventory::new("r", started, unlocked)).unwrap();
            assert!(plan.deletions().map(|gone| gone.backup).eq(by_rules.deletions().map(|gone| gone.backup)));
            let gone: Vec<_> = plan.deletions().map(|deletion| deletion.backup).collect();
            kept.retain(|backup| !gone.contains(&backup.id));
            // What is still there is still locked.
            assert!(kept.iter().all(|backup| backup.retain_until.is_some_and(|end| end > started)));
        }
    }
}
