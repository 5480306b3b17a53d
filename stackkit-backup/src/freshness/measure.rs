//! From what was looked at to measurements, rules and findings.

use std::time::Duration;

use jiff::Timestamp;
use stackkit_core::Observation;
use stackkit_core::health::{
    Axis, Finding, Measurement, MeasurementKind, MeasurementValue, Metric, Rule, Severity, Tier,
};

use super::look::Looked;
use super::place::{PlaceSeen, Written};
use crate::verify::Last;

/// A nightly backup, and two hours in which it may be late.
const MAX_AGE: Duration = Duration::from_secs(26 * 60 * 60);

/// A verify in seven daily parts, and a day in which one may be late.
const MAX_VERIFY_AGE: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// Below half of the one before it a backup has lost more than most days delete.
const SHRUNK_PERCENT: u8 = 50;

/// The next backup fits, and the one after it may not.
const ROOM_WARNING_RATIO: f64 = 2.0;
/// The next backup does not fit.
const ROOM_CRITICAL_RATIO: f64 = 1.0;

const fn metric(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    Metric::gauge(name, source, help).labelled(&["stack"]).on(Tier::Inventory)
}

/// What the probes measure.
pub(super) const METRICS: &[Metric] = &[
    metric("backup_age_seconds", "manifest: started", "Since the last complete backup began"),
    metric("backup_size_bytes", "manifest: stored bytes", "Stored bytes of the last complete backup"),
    metric("backup_size_ratio", "manifests: stored bytes", "Stored bytes of the last backup against the one before"),
    metric("verify_age_seconds", "evidence", "Since a whole backup was last found good at the level content or drill"),
    metric("drill_age_seconds", "evidence", "Since a whole backup was last found good by a drill"),
    metric("backups_complete_count", "manifests", "Complete backups of the stack"),
    metric("backups_damaged_count", "manifests", "Backups whose manifest can't be used"),
    metric("repository_write_ms", "an object of one byte", "Time to write an object and to remove it"),
    metric("repository_available_bytes", "statvfs: f_bavail", "Bytes that can still be written, in a directory"),
    metric("repository_room_ratio", "statvfs: f_bavail, manifest", "How many backups of the last one's size still fit"),
];

/// From which ages and sizes on it complains.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) max_age: Duration,
    pub(super) max_verify_age: Option<Duration>,
    pub(super) max_drill_age: Option<Duration>,
    pub(super) shrunk_percent: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_age: MAX_AGE,
            max_verify_age: Some(MAX_VERIFY_AGE),
            max_drill_age: None,
            shrunk_percent: SHRUNK_PERCENT,
        }
    }
}

impl Limits {
    pub(super) fn rules(&self) -> Vec<Rule> {
        let older = |metric, code, limit: Duration| Rule::above(metric, code).warning(limit.as_secs_f64());
        let mut rules = vec![
            older("backup_age_seconds", "backup.stale", self.max_age).saying(
                "the last complete backup is too old",
                "look at what the last runs reported, and whether the schedule still runs",
            ),
            Rule::above("backups_damaged_count", "backup.damaged")
                .warning(1.0)
                .saying("manifests can't be used", "list the repository's backups"),
            Rule::below("repository_room_ratio", "backup.repository.space_low")
                .warning(ROOM_WARNING_RATIO)
                .critical(ROOM_CRITICAL_RATIO)
                .saying("there is hardly room for the next backup", "prune older backups, or enlarge the file system"),
        ];
        if self.shrunk_percent > 0 {
            let shrunk =
                Rule::below("backup_size_ratio", "backup.shrunk").warning(f64::from(self.shrunk_percent) / 100.0);
            let hint = "compare what both hold before the older one goes";
            rules.push(shrunk.saying("the last backup is much smaller than the one before", hint));
        }
        if let Some(limit) = self.max_verify_age {
            rules.push(older("verify_age_seconds", "backup.unverified", limit).saying(UNVERIFIED, VERIFY_HINT));
        }
        if let Some(limit) = self.max_drill_age {
            rules.push(older("drill_age_seconds", "backup.drill.stale", limit).saying(UNDRILLED, DRILL_HINT));
        }
        rules
    }
}

const UNVERIFIED: &str = "no whole backup was verified for too long";
const VERIFY_HINT: &str = "verify one at the level content, and schedule the next";
const UNDRILLED: &str = "no backup was drilled for too long";
const DRILL_HINT: &str = "drill one: restore it into a scratch server";

/// Whose backups are told of, and when.
pub(super) struct Seen<'a> {
    pub(super) stack: &'a str,
    pub(super) limits: &'a Limits,
    pub(super) now: Timestamp,
}

impl Seen<'_> {
    /// What was found now, and what is known of the backups since the last inventory.
    pub(super) fn observe(&self, seen: Observation, looked: &Looked, known: Option<&Last>) -> Observation {
        let mut seen = seen;
        if looked.changed {
            let message = "the repository is another one than when it was opened";
            let hint = "compare its stackkit.json with a copy; open it anew if it was meant";
            seen = seen.finding(risk("backup.repository.changed", Severity::Critical, message, hint));
        }
        let Some(last) = known else { return seen };
        seen = self.measured(seen, last);
        // Facts without a number are told by the tier that looked.
        let Some(place) = &looked.place else { return seen };
        self.place(self.facts(seen, last), place, last)
    }

    fn gauge(&self, seen: Observation, name: &'static str, value: Option<f64>, absent: &str) -> Observation {
        let value = value.map_or_else(|| MeasurementValue::Unavailable(absent.to_owned()), MeasurementValue::from);
        seen.measurement(Measurement::new(name, MeasurementKind::Gauge, value).with_label("stack", self.stack))
    }

    fn measured(&self, seen: Observation, last: &Last) -> Observation {
        let age = |since: Option<Timestamp>| since.map(|since| age(since, self.now).as_secs_f64());
        let backup = last.backup.as_ref();
        let stored = backup.map(|backup| number(backup.stored_bytes));
        let gauges = [
            ("backup_age_seconds", age(backup.map(|backup| backup.started)), "there is no backup"),
            ("backup_size_bytes", stored, "there is no backup"),
            ("backup_size_ratio", grown(last), "there is no backup before it"),
            ("verify_age_seconds", age(last.verified), "no whole backup was verified"),
            ("drill_age_seconds", age(last.drilled), "no backup was drilled"),
            ("backups_complete_count", Some(number(last.complete)), ""),
            ("backups_damaged_count", Some(number(last.damaged)), ""),
        ];
        let mut seen =
            gauges.into_iter().fold(seen, |seen, (name, value, absent)| self.gauge(seen, name, value, absent));
        let facts = [
            ("last_backup", backup.map(|backup| backup.id.to_string())),
            ("last_verify_at", last.verified.map(|at| at.to_string())),
            ("last_drill_at", last.drilled.map(|at| at.to_string())),
        ];
        for (name, fact) in facts {
            if let Some(fact) = fact {
                seen = seen.info(name, fact);
            }
        }
        seen
    }

    /// What is wrong without a number: something that is not there, or was found damaged.
    fn facts(&self, seen: Observation, last: &Last) -> Observation {
        let has = last.backup.is_some();
        let facts = [
            (
                !has,
                risk(
                    "backup.none",
                    Severity::Critical,
                    "there is no complete backup",
                    "make one, and schedule the next",
                ),
            ),
            (
                last.verify_failed,
                risk(
                    "backup.verify.failed",
                    Severity::Critical,
                    "a verify of the last backup found damage",
                    "make another backup, and look at the storage",
                ),
            ),
            (
                has && self.limits.max_verify_age.is_some() && last.verified.is_none(),
                risk("backup.unverified", Severity::Warning, "no whole backup was ever verified", VERIFY_HINT),
            ),
            (
                has && self.limits.max_drill_age.is_some() && last.drilled.is_none(),
                risk("backup.drill.stale", Severity::Warning, "no backup was ever drilled", DRILL_HINT),
            ),
        ];
        facts.into_iter().filter(|(is_so, _)| *is_so).fold(seen, |seen, (_, finding)| seen.finding(finding))
    }

    fn place(&self, seen: Observation, place: &PlaceSeen, last: &Last) -> Observation {
        let (took, reason) = match place.written {
            Written::Within(took) => (Some(took), ""),
            Written::Not(reason) => (None, reason),
            Written::Refused => (None, "the write failed"),
        };
        let mut seen = self.gauge(seen, "repository_write_ms", took, reason);
        if matches!(place.written, Written::Refused) {
            let message = "an object can't be written to the repository, or not removed";
            let hint = "look at the rights and at the space; turn the probe off where this process may only read";
            seen = seen.finding(risk("backup.repository.unwritable", Severity::Critical, message, hint));
        }
        let available = place.available_bytes.ok().map(number);
        let reason = place.available_bytes.err().unwrap_or_default();
        let size = last.backup.as_ref().map(|backup| number(backup.stored_bytes.max(1)));
        let room = available.zip(size).map(|(available, size)| available / size);
        let no_room = if available.is_none() { reason } else { "there is no backup" };
        let seen = self.gauge(seen, "repository_available_bytes", available, reason);
        self.gauge(seen, "repository_room_ratio", room, no_room)
    }
}

/// The size of the last backup against the one before.
fn grown(last: &Last) -> Option<f64> {
    let (size, before) = (last.backup.as_ref()?.stored_bytes, last.bytes_before?);
    (before > 0).then(|| number(size) / number(before))
}

fn risk(code: &'static str, severity: Severity, message: &'static str, hint: &'static str) -> Finding {
    Finding::new(code, Axis::Risk, severity, message).with_hint(hint)
}

/// How long ago something was; nothing if it lies in the future by a clock's error.
fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// A count as a measurement: exact up to 2^53.
fn number(count: u64) -> f64 {
    count as f64
}
