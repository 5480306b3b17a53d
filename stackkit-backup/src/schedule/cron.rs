//! Cron expressions: five fields, read into sets of numbers.

use std::error::Error as StdError;
use std::fmt;

use jiff::civil::{Date, DateTime, Time};
use stackkit_core::Error;

/// The longest expression: every number of every field, with room for names and blanks.
const EXPRESSION_BYTES_MAX: usize = 1024;

/// How far ahead a day is looked for. The rarest is a February 29 of a given weekday, which can be 40 years away.
const YEARS_AHEAD_MAX: i16 = 48;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The most days that each month can have.
const MONTH_DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// The short forms, and what they stand for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A field of a cron expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CronField {
    /// 0–59.
    Minute,
    /// 0–23.
    Hour,
    /// 1–31.
    DayOfMonth,
    /// 1–12 or `jan`–`dec`.
    Month,
    /// 0–7 or `sun`–`sat`; 0 and 7 are Sunday.
    DayOfWeek,
}

impl CronField {
    const ALL: [Self; 5] = [Self::Minute, Self::Hour, Self::DayOfMonth, Self::Month, Self::DayOfWeek];

    /// Its name: `day of month`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::DayOfWeek => "day of week",
        }
    }

    fn range(self) -> (u8, u8) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 7),
        }
    }

    fn number_of_name(self, name: &str) -> Option<u8> {
        let (names, first): (&[&str], u8) = match self {
            Self::Month => (&MONTHS, 1),
            Self::DayOfWeek => (&WEEKDAYS, 0),
            _ => return None,
        };
        let place = names.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        u8::try_from(place).ok().map(|place| place + first)
    }
}

/// What is wrong with a cron expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CronFault {
    /// It has another number of fields than five.
    FieldCount(usize),
    /// It is longer than any expression has to be.
    TooLong,
    /// It begins with `@` and is none of the known short forms.
    UnknownNickname,
    /// Neither a number nor a name that the field has.
    NotANumber,
    /// The number is not in the field's range.
    OutOfRange {
        /// The least number.
        min: u8,
        /// The greatest number.
        max: u8,
    },
    /// A range that ends before it begins.
    Backwards,
    /// A step of 0, or none at all.
    NoStep,
    /// A step behind a single number: say `5-59/15` for `5/15`.
    StepWithoutRange,
    /// No month has such a day.
    NeverADay,
}

/// Why a text is no cron expression, and where.
///
/// It is the source of the `Config` error of [`Schedule::cron`](crate::Schedule::cron).
///
/// ```
/// use std::error::Error;
/// use stackkit_backup::{CronError, CronField, Schedule};
///
/// let error = Schedule::cron("0 25 * * *", jiff::tz::TimeZone::UTC).unwrap_err();
/// let cause = error.source().unwrap().downcast_ref::<CronError>().unwrap();
/// assert_eq!((cause.field, cause.offset), (Some(CronField::Hour), 2));
/// assert_eq!(cause.to_string(), "hour: 25 is not between 0 and 23");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CronError {
    /// The field; `None` if the whole expression is meant.
    pub field: Option<CronField>,
    /// Where in the expression it is, in bytes.
    pub offset: usize,
    /// The part that is wrong.
    pub part: String,
    /// What is wrong with it.
    pub fault: CronFault,
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = self.field {
            write!(f, "{}: ", field.as_str())?;
        }
        let part = &self.part;
        match self.fault {
            CronFault::FieldCount(found) => {
                write!(f, "{found} fields: minute, hour, day of month, month and day of week are needed")
            }
            CronFault::TooLong => write!(f, "the expression is longer than {EXPRESSION_BYTES_MAX} bytes"),
            CronFault::UnknownNickname => {
                write!(f, "{part:?} is none of {}", NICKNAMES.map(|(nickname, _)| nickname).join(", "))
            }
            CronFault::NotANumber => write!(f, "{part:?} is not a number, a range, a name or *"),
            CronFault::OutOfRange { min, max } => write!(f, "{part} is not between {min} and {max}"),
            CronFault::Backwards => write!(f, "the range {part} ends before it begins"),
            CronFault::NoStep => write!(f, "{part:?} needs a step of 1 or more behind the /"),
            CronFault::StepWithoutRange => write!(f, "the step of {part} needs a range before it, such as 5-59/15"),
            CronFault::NeverADay => write!(f, "no chosen month has a day {part}"),
        }
    }
}

impl StdError for CronError {}

impl CronError {
    pub(super) fn into_error(self) -> Error {
        Error::config(format!("the cron expression can't be used: {self}"))
            .with_context("at", self.offset)
            .with_source(self)
    }
}

/// A cron expression: sets of numbers as bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// The field begins with `*`.
    any_hour: bool,
    any_day: bool,
    any_weekday: bool,
}

impl Cron {
    pub(super) fn parse(text: &str) -> Result<Self, CronError> {
        let whole = |fault, part: &str| CronError { field: None, offset: 0, part: part.to_owned(), fault };
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(whole(CronFault::TooLong, ""));
        }
        let trimmed = text.trim();
        let expression = match trimmed.starts_with('@') {
            false => text,
            true => NICKNAMES
                .iter()
                .find(|(nickname, _)| nickname.eq_ignore_ascii_case(trimmed))
                .map(|(_, expression)| *expression)
                .ok_or_else(|| whole(CronFault::UnknownNickname, trimmed))?,
        };
        let words = words(expression);
        let count = words.len();
        let Ok(words) = <[(usize, &str); 5]>::try_from(words) else {
            return Err(whole(CronFault::FieldCount(count), trimmed));
        };
        let [minutes, hours, days, months, weekdays] = words;
        let [minute, hour, day, month, weekday] = CronField::ALL;
        let mut cron = Self {
            text: trimmed.to_owned(),
            minutes: set(minute, minutes)?,
            hours: set(hour, hours)?,
            days: set(day, days)?,
            months: set(month, months)?,
            weekdays: set(weekday, weekdays)?,
            any_hour: hours.1.starts_with('*'),
            any_day: days.1.starts_with('*'),
            any_weekday: weekdays.1.starts_with('*'),
        };
        // Sunday has two numbers.
        cron.weekdays |= cron.weekdays >> 7;
        match cron.has_a_day() {
            true => Ok(cron),
            false => {
                let (offset, part) = days;
                let field = Some(CronField::DayOfMonth);
                Err(CronError { field, offset, part: part.to_owned(), fault: CronFault::NeverADay })
            }
        }
    }

    /// The expression as it was given.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it has no hour of its own, so that it follows the wall clock through every change of it.
    pub(super) fn ticks(&self) -> bool {
        self.any_hour
    }

    /// Whether any month has a day that it wants. A weekday is in every month, and on every February 29 some day.
    fn has_a_day(&self) -> bool {
        let by_weekday = !self.any_day && !self.any_weekday;
        by_weekday
            || (1..=12_u8)
                .zip(MONTH_DAYS)
                .any(|(month, days)| has(self.months, month) && (1..=days).any(|day| has(self.days, day)))
    }

    /// Both day fields must fit, unless both are restricted: then one of them is enough.
    fn has_date(&self, date: Date) -> bool {
        let day = has(self.days, number(date.day()));
        let weekday = has(self.weekdays, number(date.weekday().to_sunday_zero_offset()));
        match self.any_day || self.any_weekday {
            true => day && weekday,
            false => day || weekday,
        }
    }

    /// The first wanted minute at or after `from`, which is a whole minute.
    pub(super) fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
        let last_year = from.year().saturating_add(YEARS_AHEAD_MAX);
        let (mut date, mut time) = (from.date(), from.time());
        while date.year() <= last_year {
            if !has(self.months, number(date.month())) {
                date = date.last_of_month().tomorrow().ok()?;
                time = Time::midnight();
                continue;
            }
            if self.has_date(date)
                && let Some(found) = self.time_at_or_after(time)
            {
                return Some(date.to_datetime(found));
            }
            date = date.tomorrow().ok()?;
            time = Time::midnight();
        }
        None
    }

    fn time_at_or_after(&self, time: Time) -> Option<Time> {
        let (hour, minute) = (number(time.hour()), number(time.minute()));
        if has(self.hours, hour)
            && let Some(minute) = next(self.minutes, minute)
        {
            return clock_time(hour, minute);
        }
        clock_time(next(self.hours, hour + 1)?, next(self.minutes, 0)?)
    }
}

fn clock_time(hour: u8, minute: u8) -> Option<Time> {
    Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()
}

/// A number of the calendar; they are all small and none is negative.
fn number(of_calendar: i8) -> u8 {
    of_calendar.unsigned_abs()
}

fn has(set: u64, number: u8) -> bool {
    set >> number & 1 == 1
}

/// The least number of the set that is not below `from`.
fn next(set: u64, from: u8) -> Option<u8> {
    (from..60).find(|number| has(set, *number))
}

/// The words of a text, each with its offset.
fn words(text: &str) -> Vec<(usize, &str)> {
    let start = text.as_ptr().addr();
    text.split_whitespace().map(|word| (word.as_ptr().addr() - start, word)).collect()
}

/// The set of numbers that a field names.
fn set(field: CronField, (offset, text): (usize, &str)) -> Result<u64, CronError> {
    let mut numbers = 0;
    let mut at = offset;
    for item in text.split(',') {
        let wrong = |fault| CronError { field: Some(field), offset: at, part: item.to_owned(), fault };
        numbers |= item_set(field, item).map_err(wrong)?;
        at += item.len() + 1;
    }
    Ok(numbers)
}

/// One item of a list: `*`, `7`, `mon`, `1-5`, each range with a step or without.
fn item_set(field: CronField, item: &str) -> Result<u64, CronFault> {
    let (range, step) = match item.split_once('/') {
        None => (item, 1),
        Some((range, step)) => (range, step.parse::<u8>().ok().filter(|step| *step > 0).ok_or(CronFault::NoStep)?),
    };
    let (min, max) = field.range();
    let (first, last) = match range.split_once('-') {
        // Day 7 is Sunday again: it is not one more day of `*`.
        None if range == "*" && field == CronField::DayOfWeek => (min, max - 1),
        None if range == "*" => (min, max),
        None if item.contains('/') => return Err(CronFault::StepWithoutRange),
        None => {
            let number = one(field, range)?;
            (number, number)
        }
        Some((first, last)) => (one(field, first)?, one(field, last)?),
    };
    if last < first {
        return Err(CronFault::Backwards);
    }
    let numbers = (first..=last).step_by(usize::from(step));
    Ok(numbers.fold(0, |set, number| set | 1 << number))
}

fn one(field: CronField, text: &str) -> Result<u8, CronFault> {
    if let Some(number) = field.number_of_name(text) {
        return Ok(number);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CronFault::NotANumber);
    }
    let (min, max) = field.range();
    // What does not fit the type does not fit the range.
    text.parse().ok().filter(|number| (min..=max).contains(number)).ok_or(CronFault::OutOfRange { min, max })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> (Option<CronField>, usize, CronFault) {
        let error = Cron::parse(text).unwrap_err();
        (error.field, error.offset, error.fault)
    }

    fn numbers(set: u64) -> Vec<u8> {
        (0..64).filter(|number| has(set, *number)).collect()
    }

    #[test]
    fn fields_are_sets() {
        let cron = Cron::parse(" 0,30 8-18/5\t*/10 jan,Mar-MAY mon-fri ").unwrap();
        assert_eq!(numbers(cron.minutes), [0, 30]);
        assert_eq!(numbers(cron.hours), [8, 13, 18]);
        assert_eq!(numbers(cron.days), [1, 11, 21, 31]);
        assert_eq!(numbers(cron.months), [1, 3, 4, 5]);
        assert_eq!(numbers(cron.weekdays), [1, 2, 3, 4, 5]);
        assert_eq!(cron.text(), "0,30 8-18/5\t*/10 jan,Mar-MAY mon-fri");
        for (sunday, days) in [("7", &[0, 7][..]), ("0", &[0]), ("5-7", &[0, 5, 6, 7]), ("*", &[0, 1, 2, 3, 4, 5, 6])] {
            assert_eq!(numbers(Cron::parse(&format!("0 0 * * {sunday}")).unwrap().weekdays), days, "{sunday}");
        }
        assert_eq!(numbers(Cron::parse("0 0 * * */7").unwrap().weekdays), [0]);
        assert_eq!(Cron::parse("@Daily").unwrap().hours, 1);
    }

    #[test]
    fn an_error_points_at_the_field() {
        use CronField::{DayOfMonth, DayOfWeek, Hour, Minute, Month};
        for (text, field, offset, expected) in [
            ("60 * * * *", Minute, 0, CronFault::OutOfRange { min: 0, max: 59 }),
            ("0 24 * * *", Hour, 2, CronFault::OutOfRange { min: 0, max: 23 }),
            ("0 1,2,99999 * * *", Hour, 6, CronFault::OutOfRange { min: 0, max: 23 }),
            ("0 0 0 * *", DayOfMonth, 4, CronFault::OutOfRange { min: 1, max: 31 }),
            ("0 0 * 13 *", Month, 6, CronFault::OutOfRange { min: 1, max: 12 }),
            ("0 0 * * 8", DayOfWeek, 8, CronFault::OutOfRange { min: 0, max: 7 }),
            ("0 0 * foo *", Month, 6, CronFault::NotANumber),
            ("mon 0 * * *", Minute, 0, CronFault::NotANumber),
            ("0 0 L * *", DayOfMonth, 4, CronFault::NotANumber),
            ("0 0 ? * *", DayOfMonth, 4, CronFault::NotANumber),
            ("0 -1 * * *", Hour, 2, CronFault::NotANumber),
            ("0 +1 * * *", Hour, 2, CronFault::NotANumber),
            ("0 1, * * *", Hour, 4, CronFault::NotANumber),
            ("0 **  * * *", Hour, 2, CronFault::NotANumber),
            ("0 ٣ * * *", Hour, 2, CronFault::NotANumber),
            ("0 20-4 * * *", Hour, 2, CronFault::Backwards),
            ("0 0 * * fri-mon", DayOfWeek, 8, CronFault::Backwards),
            ("*/0 * * * *", Minute, 0, CronFault::NoStep),
            ("*/ * * * *", Minute, 0, CronFault::NoStep),
            ("*/256 * * * *", Minute, 0, CronFault::NoStep),
            ("5/15 * * * *", Minute, 0, CronFault::StepWithoutRange),
            ("0 0 30 2 *", DayOfMonth, 4, CronFault::NeverADay),
            ("0 0 31 2,4,6,9,11 */2", DayOfMonth, 4, CronFault::NeverADay),
        ] {
            assert_eq!(fault(text), (Some(field), offset, expected), "{text}");
        }
        for (text, expected) in [
            ("", CronFault::FieldCount(0)),
            ("* * * *", CronFault::FieldCount(4)),
            ("0 0 0 1 1 *", CronFault::FieldCount(6)),
            ("@reboot", CronFault::UnknownNickname),
        ] {
            assert_eq!(fault(text), (None, 0, expected), "{text}");
        }
        assert_eq!(fault(&"*".repeat(EXPRESSION_BYTES_MAX + 1)).2, CronFault::TooLong);
        let error = Cron::parse("0 0 30 2 *").unwrap_err().into_error();
        assert_eq!(error.kind(), stackkit_core::ErrorKind::Config);
        let expected = "the cron expression can't be used: day of month: no chosen month has a day 30 (at=4)";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn two_restricted_day_fields_are_an_or() {
        let days = |text: &str| -> Vec<i8> {
            let cron = Cron::parse(text).unwrap();
            (1..=30).filter(|day| cron.has_date(jiff::civil::date(2026, 11, *day))).collect()
        };
        assert_eq!(days("0 0 13 * fri"), [6, 13, 20, 27], "November 13, 2026 is a Friday");
        assert_eq!(days("0 0 1 * mon"), [1, 2, 9, 16, 23, 30]);
        assert_eq!(days("0 0 * * mon"), [2, 9, 16, 23, 30]);
        assert_eq!(days("0 0 15 * *"), [15]);
        assert_eq!(days("0 0 */2 * mon"), [9, 23], "a field that begins with * restricts the other");
        // February 30 does not exist, its Mondays do.
        assert!(Cron::parse("0 0 30 2 mon").is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-0-9*/, @a-z]{0,40}|.{0,20}") {
            let _ = Cron::parse(&text);
        }
    }
}
