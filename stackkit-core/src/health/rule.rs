//! From which value on a measurement is bad: data of an adapter, that a user can change.

use std::borrow::Cow;

use serde::Serialize;

use crate::health::{Axis, Finding, Measurement, Severity};

/// On which side of a limit a value is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// At or above it.
    Above,
    /// At or below it.
    Below,
}

impl Side {
    fn is_bad(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Above => value >= limit,
            Self::Below => value <= limit,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

/// A limit on a measurement, with the finding that is made when it is met. The runner judges it, so a verdict can be tested
/// without a server.
///
/// ```
/// use stackkit_core::Observation;
/// use stackkit_core::health::{Axis, Rule, Severity, Status, Thresholds};
/// let rule = Rule::above("connections_used_ratio", "pg.connections.near_max")
///     .warning(0.8)
///     .critical(0.95)
///     .saying("most of the connections are in use", "use a pooler, or raise max_connections");
/// let verdict = Thresholds::new().verdict(&[rule], &Observation::new().gauge("connections_used_ratio", 0.96));
/// assert_eq!(verdict.findings[0].severity, Severity::Critical);
/// assert_eq!((verdict.status, verdict.risk), (Status::Degraded, Status::Unhealthy)); // a risk does not make it unready
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rule {
    /// The measurement's name; each of its labels is judged for itself.
    pub metric: Cow<'static, str>,
    /// The finding's stable code.
    pub code: Cow<'static, str>,
    /// What the finding is about; [`Axis::Risk`] unless set.
    pub axis: Axis,
    /// On which side of the limits a value is bad.
    pub side: Side,
    /// From here on it is a warning.
    pub warning: Option<f64>,
    /// From here on it is critical.
    pub critical: Option<f64>,
    /// What is wrong, in one line; empty for words made of the name, the value and the limit.
    pub message: Cow<'static, str>,
    /// What to do about it.
    pub hint: Option<Cow<'static, str>>,
}

impl Rule {
    /// A value is bad at or above the limits.
    pub fn above(metric: impl Into<Cow<'static, str>>, code: impl Into<Cow<'static, str>>) -> Self {
        Self {
            metric: metric.into(),
            code: code.into(),
            axis: Axis::Risk,
            side: Side::Above,
            warning: None,
            critical: None,
            message: Cow::Borrowed(""),
            hint: None,
        }
    }

    /// A value is bad at or below the limits.
    pub fn below(metric: impl Into<Cow<'static, str>>, code: impl Into<Cow<'static, str>>) -> Self {
        Self { side: Side::Below, ..Self::above(metric, code) }
    }

    /// Sets from where on it is a warning.
    #[must_use]
    pub fn warning(mut self, limit: f64) -> Self {
        self.warning = Some(limit);
        self
    }

    /// Sets from where on it is critical.
    #[must_use]
    pub fn critical(mut self, limit: f64) -> Self {
        self.critical = Some(limit);
        self
    }

    /// Sets what the finding is about.
    #[must_use]
    pub fn on(mut self, axis: Axis) -> Self {
        self.axis = axis;
        self
    }

    /// Sets the finding's words.
    #[must_use]
    pub fn saying(mut self, message: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self.hint = Some(hint.into());
        self
    }

    /// The finding that a measurement makes, if it is bad and the rule is about it.
    pub(crate) fn judge(&self, measurement: &Measurement) -> Option<Finding> {
        if measurement.name != self.metric {
            return None;
        }
        let value = measurement.number()?;
        let met = |limit: Option<f64>| limit.filter(|limit| self.side.is_bad(value, *limit));
        let (severity, limit) = match (met(self.critical), met(self.warning)) {
            (Some(limit), _) => (Severity::Critical, limit),
            (None, Some(limit)) => (Severity::Warning, limit),
            (None, None) => return None,
        };
        let mut finding = Finding::new(self.code.clone(), self.axis, severity, self.words(measurement, value, limit));
        finding.hint = self.hint.as_deref().map(str::to_owned);
        finding.metric = Some(measurement.name.clone());
        finding.value = Some(value);
        finding.limit = Some(limit);
        Some(finding)
    }

    /// The rule's own words with the labels, or words made of the numbers.
    fn words(&self, measurement: &Measurement, value: f64, limit: f64) -> String {
        let labels: Vec<String> =
            measurement.labels.iter().map(|(name, value)| format!("{name} {}", printable(value))).collect();
        let place = if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
        match self.message.is_empty() {
            true => format!("{}{place} is {value}, at or {} the limit of {limit}", self.metric, self.side.as_str()),
            false => format!("{}{place}", self.message),
        }
    }
}

/// A name that somebody else chose, as a table's, without what a terminal would obey.
fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}
