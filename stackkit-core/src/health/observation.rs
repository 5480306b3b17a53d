//! What a probe saw: measurements, findings, facts. Not yet a verdict.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whether a measurement goes up and down, or only up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasurementKind {
    /// A value at this moment.
    Gauge,
    /// A count since the server started.
    Counter,
}

/// A number, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasurementValue {
    /// The number.
    Value(f64),
    /// There is no honest number, and why: a missing right, an older version.
    Unavailable(String),
}

impl From<f64> for MeasurementValue {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Value(value) } else { Self::Unavailable("not a finite number".to_owned()) }
    }
}

/// One number with its name, unit and labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Measurement {
    /// The name; its last word is the unit: `memory_used_bytes`, `hit_ratio`, `connections_count`.
    pub name: Cow<'static, str>,
    /// Gauge or counter.
    pub kind: MeasurementKind,
    /// The unit: the last word of the name, or `count` if that is none of the known ones.
    #[serde(default)]
    pub unit: Cow<'static, str>,
    /// The vendor's view that the number was read from; the runner takes it from the check's catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Cow<'static, str>>,
    /// What tells several measurements of one name apart: `db` = `0`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The number, or why there is none.
    #[serde(flatten)]
    pub value: MeasurementValue,
}

impl Measurement {
    /// A measurement without labels.
    pub fn new(name: impl Into<Cow<'static, str>>, kind: MeasurementKind, value: MeasurementValue) -> Self {
        let name = name.into();
        let unit = Cow::Borrowed(unit_of(&name));
        Self { name, kind, unit, source: None, labels: BTreeMap::new(), value }
    }

    /// Adds a label.
    #[must_use]
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// The number, if there is one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self.value {
            MeasurementValue::Value(value) => Some(value),
            MeasurementValue::Unavailable(_) => None,
        }
    }

    /// Whether `other` is the same quantity: same name, same labels.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.labels == other.labels
    }
}

/// The unit that a measurement's name ends in; `count` if its last word is none of the known ones.
///
/// ```
/// use stackkit_core::health::unit_of;
/// assert_eq!((unit_of("memory_used_bytes"), unit_of("index_documents")), ("bytes", "count"));
/// ```
#[must_use]
pub fn unit_of(name: &str) -> &'static str {
    const UNITS: [&str; 6] = ["bytes", "seconds", "ms", "ratio", "percent", "bool"];
    let last = name.rsplit('_').next().unwrap_or_default();
    UNITS.into_iter().find(|unit| *unit == last).unwrap_or("count")
}

/// What a finding is about. The three are kept apart: a risk never makes a service unready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Whether it answers.
    Reach,
    /// Whether it can serve.
    Ready,
    /// Whether it will be in trouble later: a disk filling up, a default password.
    Risk,
}

impl Axis {
    /// The axis as the word that views print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reach => "reach",
            Self::Ready => "ready",
            Self::Risk => "risk",
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth acting on.
    Warning,
    /// Broken, on its axis.
    Critical,
}

impl Severity {
    /// The severity as the word that views print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something that was observed and is not as it should be.
///
/// ```
/// use stackkit_core::health::{Axis, Finding, Severity};
/// let finding = Finding::new("redis.bgsave.failed", Axis::Risk, Severity::Warning, "the last background save failed")
///     .with_hint("look at the server's log; writes may be refused until a save succeeds");
/// assert_eq!(finding.code, "redis.bgsave.failed");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// A stable code, `store.thing.state`.
    pub code: Cow<'static, str>,
    /// What it is about.
    pub axis: Axis,
    /// How bad it is.
    pub severity: Severity,
    /// One line of own words; never a server's text, never a secret.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The measurement that a rule found it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Cow<'static, str>>,
    /// What that measurement was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The limit that it met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
}

impl Finding {
    /// A finding without a hint.
    pub fn new(code: impl Into<Cow<'static, str>>, axis: Axis, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            axis,
            severity,
            message: message.into(),
            hint: None,
            metric: None,
            value: None,
            limit: None,
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What one probe saw. The runner makes a verdict of it, so a verdict can be tested without a server.
///
/// ```
/// use stackkit_core::Observation;
/// let observation = Observation::new()
///     .gauge("connections_used_count", 12.0)
///     .counter("evictions_count", 0.0)
///     .unavailable("replication_lag_seconds", "not a replica")
///     .info("version", "15.18");
/// assert_eq!(observation.value("connections_used_count"), Some(12.0));
/// assert_eq!(observation.value("replication_lag_seconds"), None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Observation {
    /// The numbers.
    pub measurements: Vec<Measurement>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// Facts: version, role, edition.
    pub info: BTreeMap<String, String>,
}

impl Observation {
    /// An observation of nothing yet: the service answered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value that goes up and down. One that is not finite, such as a ratio of nothing, is
    /// [`MeasurementValue::Unavailable`]: JSON has no word for it.
    #[must_use]
    pub fn gauge(self, name: impl Into<Cow<'static, str>>, value: f64) -> Self {
        self.measurement(Measurement::new(name, MeasurementKind::Gauge, MeasurementValue::from(value)))
    }

    /// Adds a count since the server started; not a finite one as in [`Observation::gauge`].
    #[must_use]
    pub fn counter(self, name: impl Into<Cow<'static, str>>, value: f64) -> Self {
        self.measurement(Measurement::new(name, MeasurementKind::Counter, MeasurementValue::from(value)))
    }

    /// Says that a measurement has no honest number, and why.
    #[must_use]
    pub fn unavailable(self, name: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        let value = MeasurementValue::Unavailable(reason.into());
        self.measurement(Measurement::new(name, MeasurementKind::Gauge, value))
    }

    /// Says that a measurement can't be read for want of a right, and names the grant that is missing; its value reads
    /// `permission: GRANT …`.
    ///
    /// ```
    /// use stackkit_core::Observation;
    /// use stackkit_core::health::MeasurementValue;
    /// let seen = Observation::new().not_permitted("connections_active_count", "GRANT pg_monitor TO app");
    /// let reason = MeasurementValue::Unavailable("permission: GRANT pg_monitor TO app".to_owned());
    /// assert_eq!(seen.measurements[0].value, reason);
    /// ```
    #[must_use]
    pub fn not_permitted(self, name: impl Into<Cow<'static, str>>, grant: impl std::fmt::Display) -> Self {
        self.unavailable(name, format!("permission: {grant}"))
    }

    /// Adds a measurement, with labels perhaps.
    #[must_use]
    pub fn measurement(mut self, measurement: Measurement) -> Self {
        self.measurements.push(measurement);
        self
    }

    /// Adds a finding.
    #[must_use]
    pub fn finding(mut self, finding: Finding) -> Self {
        self.findings.push(finding);
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn info(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.info.insert(name.into(), value.into());
        self
    }

    /// The number of the first measurement of that name, if it has one.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        self.measurements.iter().find(|measurement| measurement.name == name).and_then(Measurement::number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_nothing_is_unavailable() {
        let observation = Observation::new().gauge("hit_ratio", f64::NAN).counter("bytes", f64::INFINITY);
        assert_eq!(observation.value("hit_ratio").or(observation.value("bytes")), None);
        assert!(!serde_json::to_string(&observation).unwrap().contains("null"));
    }
}
