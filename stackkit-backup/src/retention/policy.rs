//! Which backups shall be kept: the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::fmt::friendly::SpanPrinter;
use jiff::tz::TimeZone;
use jiff::{Span, SpanFieldwise, Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, Result};

use crate::id::BackupId;

/// The grace between the announcement of a deletion and the deletion, unless the policy says another: an hour less than
/// a day, so that a daily prune purges what the one of the day before announced, and people have a day to object.
const GRACE_SECONDS: u64 = 23 * 3600;

/// Which backups of each stack shall be kept. A backup is kept if any rule keeps it; rules count each stack's backups
/// for themselves.
///
/// - [`keep_last`](Self::keep_last) keeps the newest backups; `keep_hourly` to `keep_yearly` keep the newest backup of
///   each of the last so many hours to years *that have one*, as a clock in the policy's time zone shows them.
/// - [`keep_within`](Self::keep_within) and its relatives count back from the stack's newest complete backup and not
///   from today: a stack that is backed up no longer loses nothing by waiting.
/// - Only complete backups that are not dated in the future take a place. Partial ones can be kept by
///   [`keep_within`](Self::keep_within), a tag or their id.
///
/// Weeks are those of ISO 8601: they begin on Monday, and the week of a year's first Thursday is its first.
///
/// ```
/// use jiff::ToSpan;
/// use stackkit_backup::Retention;
///
/// let policy = Retention::new().keep_last(3).keep_daily(7).keep_within(36.hours()).keep_tag("release");
/// assert_eq!(policy.to_string(), "last 3, daily 7, within 36h, tag release (UTC), grace 23h");
/// assert!(policy.validate().is_ok());
/// assert!(Retention::new().validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retention {
    last: u32,
    slots: BTreeMap<Period, u32>,
    within: Option<Length>,
    slots_within: BTreeMap<Period, Length>,
    tags: BTreeSet<String>,
    ids: BTreeSet<BackupId>,
    #[serde(with = "jiff::fmt::serde::tz::required")]
    time_zone: TimeZone,
    grace_seconds: u64,
}

/// A period of the calendar that can keep one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Period {
    /// An hour as the clock shows it. The hour that a clock shows twice when summer time ends is two.
    Hourly,
    /// A day, which is 23, 24 or 25 hours long.
    Daily,
    /// A week of ISO 8601.
    Weekly,
    /// A month.
    Monthly,
    /// A quarter of a year.
    Quarterly,
    /// A year.
    Yearly,
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Quarterly => "quarterly",
            Self::Yearly => "yearly",
        })
    }
}

impl Period {
    /// The name of the period that a moment is in. It differs from the name of every other period of the kind.
    pub(super) fn slot(self, moment: &Zoned) -> String {
        let (year, month) = (moment.year(), moment.month());
        match self {
            // The offset tells the two hours of one name apart.
            Self::Hourly => moment.strftime("%Y-%m-%dT%H%:z").to_string(),
            Self::Daily => moment.strftime("%Y-%m-%d").to_string(),
            Self::Weekly => {
                let week = moment.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Monthly => format!("{year:04}-{month:02}"),
            Self::Quarterly => format!("{year:04}-Q{}", (month + 2) / 3),
            Self::Yearly => format!("{year:04}"),
        }
    }
}

/// A length of time in units of the calendar or the clock. Two are equal if they are in the same units.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Length(Span);

impl Length {
    pub(super) fn span(&self) -> Span {
        self.0
    }

    /// The moment so long before `moment`; the beginning of time if there is none.
    pub(super) fn before(&self, moment: &Zoned) -> Timestamp {
        moment.checked_sub(self.0).map_or(Timestamp::MIN, |before| before.timestamp())
    }
}

impl PartialEq for Length {
    fn eq(&self, other: &Self) -> bool {
        SpanFieldwise(self.0) == SpanFieldwise(other.0)
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            last: 0,
            slots: BTreeMap::new(),
            within: None,
            slots_within: BTreeMap::new(),
            tags: BTreeSet::new(),
            ids: BTreeSet::new(),
            time_zone: TimeZone::UTC,
            grace_seconds: GRACE_SECONDS,
        }
    }
}

impl Retention {
    /// No rule, time zone UTC, a grace of 23 hours. Without a rule it is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the newest `count` backups; 0: no such rule.
    #[must_use]
    pub fn keep_last(mut self, count: u32) -> Self {
        self.last = count;
        self
    }

    /// Keeps the newest backup of each of the last `count` hours that have one; 0: no such rule.
    #[must_use]
    pub fn keep_hourly(self, count: u32) -> Self {
        self.keep_slots(Period::Hourly, count)
    }

    /// Keeps the newest backup of each of the last `count` days that have one; 0: no such rule.
    #[must_use]
    pub fn keep_daily(self, count: u32) -> Self {
        self.keep_slots(Period::Daily, count)
    }

    /// Keeps the newest backup of each of the last `count` weeks that have one; 0: no such rule.
    #[must_use]
    pub fn keep_weekly(self, count: u32) -> Self {
        self.keep_slots(Period::Weekly, count)
    }

    /// Keeps the newest backup of each of the last `count` months that have one; 0: no such rule.
    #[must_use]
    pub fn keep_monthly(self, count: u32) -> Self {
        self.keep_slots(Period::Monthly, count)
    }

    /// Keeps the newest backup of each of the last `count` quarters that have one; 0: no such rule.
    #[must_use]
    pub fn keep_quarterly(self, count: u32) -> Self {
        self.keep_slots(Period::Quarterly, count)
    }

    /// Keeps the newest backup of each of the last `count` years that have one; 0: no such rule.
    #[must_use]
    pub fn keep_yearly(self, count: u32) -> Self {
        self.keep_slots(Period::Yearly, count)
    }

    /// Keeps everything that is at most so much older than the stack's newest complete backup, partial backups too.
    #[must_use]
    pub fn keep_within(mut self, span: Span) -> Self {
        self.within = Some(Length(span));
        self
    }

    /// Keeps the newest backup of every hour that is at most so much older than the stack's newest complete backup.
    #[must_use]
    pub fn keep_hourly_within(self, span: Span) -> Self {
        self.keep_slots_within(Period::Hourly, span)
    }

    /// Keeps the newest backup of every day that is at most so much older than the stack's newest complete backup.
    #[must_use]
    pub fn keep_daily_within(self, span: Span) -> Self {
        self.keep_slots_within(Period::Daily, span)
    }

    /// Keeps the newest backup of every week that is at most so much older than the stack's newest complete backup.
    #[must_use]
    pub fn keep_weekly_within(self, span: Span) -> Self {
        self.keep_slots_within(Period::Weekly, span)
    }

    /// Keeps the newest backup of every month that is at most so much older than the stack's newest complete backup.
    #[must_use]
    pub fn keep_monthly_within(self, span: Span) -> Self {
        self.keep_slots_within(Period::Monthly, span)
    }

    /// Keeps the newest backup of every quarter that is at most so much older than the stack's newest complete backup.
    #[must_use]
    pub fn keep_quarterly_within(self, span: Span) -> Self {
        self.keep_slots_within(Period::Quarterly, span)
    }

    /// Keeps the newest backup of every year that is at most so much older than the stack's newest complete backup.
    #[must_use]
    pub fn keep_yearly_within(self, span: Span) -> Self {
        self.keep_slots_within(Period::Yearly, span)
    }

    /// Keeps every backup with this tag, partial ones too; repeatable.
    #[must_use]
    pub fn keep_tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.insert(tag.into());
        self
    }

    /// Keeps this backup, also if it is partial; repeatable.
    #[must_use]
    pub fn keep_id(mut self, id: BackupId) -> Self {
        self.ids.insert(id);
        self
    }

    /// Counts hours, days and years as a clock in this zone shows them. Default: UTC.
    #[must_use]
    pub fn with_time_zone(mut self, zone: TimeZone) -> Self {
        self.time_zone = zone;
        self
    }

    /// As [`with_time_zone`](Self::with_time_zone), with a name of the system's time zone database.
    ///
    /// # Errors
    /// `Config` if the system has no zone of that name.
    pub fn with_time_zone_named(self, name: &str) -> Result<Self> {
        let zone = TimeZone::get(name).map_err(|e| {
            Error::config(format!(
                "the system knows no time zone {name:?}: give a name such as Europe/Berlin, and install tzdata if it is missing"
            ))
            .with_source(e)
        })?;
        Ok(self.with_time_zone(zone))
    }

    /// How long a deletion is announced before it is done, in whole seconds, rounded up. Default: 23 hours, so that a
    /// daily prune purges what the one of the day before announced. Zero: it is announced and done at once.
    ///
    /// The time of the announcement and the end of the grace come from the clock of the machine that announces, and the
    /// machine that purges looks at its own. A clock that is wrong makes the grace shorter or longer by its error. It
    /// never lets a backup go that the rules keep.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace_seconds = grace.as_secs().saturating_add(u64::from(grace.subsec_nanos() > 0));
        self
    }

    /// Checks that the policy has a rule, and that every length of time is one.
    ///
    /// # Errors
    /// `Config` if not: a policy without rules would keep nothing.
    pub fn validate(&self) -> Result<()> {
        if self.is_empty() {
            return Err(Error::config(
                "a retention policy without a rule would delete every backup: say what to keep, such as keep_last(7)",
            ));
        }
        let mut lengths = self.within.iter().chain(self.slots_within.values());
        match lengths.find(|length| !length.0.is_positive()) {
            None => Ok(()),
            Some(length) => Err(Error::config("a retention policy keeps backups within a span that is not positive")
                .with_context("span", length)),
        }
    }

    fn is_empty(&self) -> bool {
        self.last == 0
            && self.slots.values().all(|count| *count == 0)
            && self.within.is_none()
            && self.slots_within.is_empty()
            && self.tags.is_empty()
            && self.ids.is_empty()
    }

    fn keep_slots(mut self, period: Period, count: u32) -> Self {
        self.slots.insert(period, count);
        self
    }

    fn keep_slots_within(mut self, period: Period, span: Span) -> Self {
        self.slots_within.insert(period, Length(span));
        self
    }

    /// How long a deletion is announced.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    pub(super) fn last(&self) -> usize {
        usize::try_from(self.last).unwrap_or(usize::MAX)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (Period, usize)> {
        self.slots.iter().map(|(period, count)| (*period, usize::try_from(*count).unwrap_or(usize::MAX)))
    }

    pub(super) fn within(&self) -> Option<&Length> {
        self.within.as_ref()
    }

    pub(super) fn slots_within(&self) -> impl Iterator<Item = (Period, &Length)> {
        self.slots_within.iter().map(|(period, length)| (*period, length))
    }

    pub(super) fn tags(&self) -> &BTreeSet<String> {
        &self.tags
    }

    pub(super) fn keeps_id(&self, id: &BackupId) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn local(&self, moment: Timestamp) -> Zoned {
        moment.to_zoned(self.time_zone.clone())
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rules = Vec::new();
        rules.extend((self.last > 0).then(|| format!("last {}", self.last)));
        rules.extend(self.slots.iter().filter(|slot| *slot.1 > 0).map(|(period, count)| format!("{period} {count}")));
        rules.extend(self.within.iter().map(|length| format!("within {length}")));
        rules.extend(self.slots_within.iter().map(|(period, length)| format!("{period} within {length}")));
        rules.extend(self.tags.iter().map(|tag| format!("tag {tag}")));
        rules.extend(self.ids.iter().map(|id| format!("id {id}")));
        let rules = if rules.is_empty() { "nothing".to_owned() } else { rules.join(", ") };
        let zone = self.time_zone.iana_name().map_or_else(|| "a zone without a name".to_owned(), str::to_owned);
        let grace = SpanPrinter::new().unsigned_duration_to_string(&self.grace());
        write!(f, "{rules} ({zone}), grace {grace}")
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use stackkit_core::ErrorKind;

    use super::*;

    #[test]
    fn a_policy_that_keeps_nothing_is_refused() {
        for empty in [Retention::new(), Retention::new().keep_last(0).keep_daily(0).with_grace(Duration::ZERO)] {
            let error = empty.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("say what to keep"), "{error}");
        }
        for span in [Span::new(), (-3).days()] {
            assert_eq!(Retention::new().keep_within(span).validate().unwrap_err().kind(), ErrorKind::Config);
            let slots = Retention::new().keep_last(1).keep_weekly_within(span);
            assert_eq!(slots.validate().unwrap_err().kind(), ErrorKind::Config);
        }
        assert!(Retention::new().keep_tag("x").validate().is_ok());
    }

    #[test]
    fn a_policy_survives_json_and_unknown_rules_do_not() {
        let policy = Retention::new()
            .keep_last(3)
            .keep_hourly(24)
            .keep_quarterly(4)
            .keep_within(1.month().days(3))
            .keep_daily_within(30.days())
            .keep_tag("release")
            .keep_id("20261121T061530Z-9f3a1c02".parse().unwrap())
            .with_time_zone(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())
            .with_grace(Duration::from_millis(1500));
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Retention>(&text).unwrap(), policy, "{text}");
        assert_eq!(policy.grace(), Duration::from_secs(2));
        let short: Retention = serde_json::from_str(r#"{"slots":{"daily":7}}"#).unwrap();
        assert_eq!(short, Retention::new().keep_daily(7));
        // A rule that is misspelt must not be a rule that is missing.
        assert!(serde_json::from_str::<Retention>(r#"{"dayly":7}"#).is_err());
    }

    #[test]
    fn a_zone_is_found_by_its_name_or_the_error_says_what_to_do() {
        let error = Retention::new().with_time_zone_named("Mars/Olympus").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("Mars/Olympus") && error.to_string().contains("tzdata"), "{error}");
    }

    #[test]
    fn slots_are_named_as_the_clock_on_the_wall_shows_them() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let slot = |period: Period, at: &str| period.slot(&at.parse::<Timestamp>().unwrap().to_zoned(zone.clone()));
        use Period::{Daily, Hourly, Monthly, Quarterly, Weekly, Yearly};
        for (period, at, expected) in [
            (Hourly, "2026-10-25T00:30:00Z", "2026-10-25T02+02:00"),
            (Hourly, "2026-10-25T01:30:00Z", "2026-10-25T02+01:00"),
            (Daily, "2026-03-28T23:00:00Z", "2026-03-29"),
            (Daily, "2026-03-29T21:59:59Z", "2026-03-29"),
            (Daily, "2026-03-29T22:00:00Z", "2026-03-30"),
            (Weekly, "2026-12-31T12:00:00Z", "2026-W53"),
            (Weekly, "2027-01-03T12:00:00Z", "2026-W53"),
            (Weekly, "2027-01-04T12:00:00Z", "2027-W01"),
            (Weekly, "2024-12-30T12:00:00Z", "2025-W01"),
            (Daily, "2028-02-29T12:00:00Z", "2028-02-29"),
            (Monthly, "2028-02-29T22:59:59Z", "2028-02"),
            (Monthly, "2028-02-29T23:00:00Z", "2028-03"),
            (Quarterly, "2026-03-31T21:59:59Z", "2026-Q1"),
            (Quarterly, "2026-03-31T22:00:00Z", "2026-Q2"),
            (Quarterly, "2026-12-31T22:59:59Z", "2026-Q4"),
            (Yearly, "2026-12-31T23:00:00Z", "2027"),
        ] {
            assert_eq!(slot(period, at), expected, "{at}");
        }
    }
}
