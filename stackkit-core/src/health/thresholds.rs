//! From an observation to a verdict, without a server.

use std::borrow::Cow;

use crate::health::rule::Side;
use crate::health::{Axis, Finding, Observation, Rule, Severity, Status};

/// The code of a finding that a user's own limit makes where no rule of the adapter is about the measurement.
const OWN_LIMIT: &str = "threshold.exceeded";

/// From which value on a measurement is bad.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// Degraded at or above this.
    WarnAbove(f64),
    /// Unhealthy at or above this.
    FailAbove(f64),
    /// Degraded at or below this.
    WarnBelow(f64),
    /// Unhealthy at or below this.
    FailBelow(f64),
}

impl Limit {
    fn side(self) -> Side {
        match self {
            Self::WarnAbove(_) | Self::FailAbove(_) => Side::Above,
            Self::WarnBelow(_) | Self::FailBelow(_) => Side::Below,
        }
    }

    fn value(self) -> f64 {
        match self {
            Self::WarnAbove(value) | Self::FailAbove(value) | Self::WarnBelow(value) | Self::FailBelow(value) => value,
        }
    }

    fn put(self, rule: &mut Rule) {
        match self {
            Self::WarnAbove(limit) | Self::WarnBelow(limit) => rule.warning = Some(limit),
            Self::FailAbove(limit) | Self::FailBelow(limit) => rule.critical = Some(limit),
        }
    }
}

/// One change of the rules.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    Limit(Axis, String, Limit),
    Replace(Rule),
    Without(String),
}

/// A user's own limits on measurements: they stand beside the adapter's [rules](crate::HealthCheck::rules), change them, or
/// take them away.
///
/// ```
/// use stackkit_core::health::{Limit, Status, Thresholds};
/// use stackkit_core::Observation;
/// let thresholds = Thresholds::new()
///     .with_limit("connections_used_ratio", Limit::WarnAbove(0.8))
///     .with_limit("connections_used_ratio", Limit::FailAbove(0.95));
/// let status = |ratio| thresholds.judge(&Observation::new().gauge("connections_used_ratio", ratio)).0;
/// assert_eq!(status(0.5), Status::Healthy);
/// assert_eq!(status(0.9), Status::Degraded);
/// assert_eq!(status(0.99), Status::Unhealthy);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Thresholds {
    changes: Vec<Change>,
    risk_fails_readiness: bool,
}

/// What an observation means: a status on each axis, and why.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// How the service is, by the findings that count.
    pub status: Status,
    /// Whether it answers.
    pub reach: Status,
    /// Whether it can serve.
    pub ready: Status,
    /// Whether it will be in trouble later.
    pub risk: Status,
    /// What the rules found, beside the observation's own findings.
    pub findings: Vec<Finding>,
}

impl Thresholds {
    /// No limits of one's own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a limit on each measurement of that name, about readiness: what meets a `Fail…` limit is unhealthy. The limits
    /// on one side of one measurement replace those of the adapter's rule, warning and critical each for itself.
    #[must_use]
    pub fn with_limit(self, measurement: impl Into<String>, limit: Limit) -> Self {
        self.with_limit_on(Axis::Ready, measurement, limit)
    }

    /// Adds a limit about one axis: on [`Axis::Risk`] a `Fail…` limit degrades, and never makes a service unready.
    ///
    /// ```
    /// use stackkit_core::health::{Axis, Limit, Status, Thresholds};
    /// use stackkit_core::Observation;
    /// let thresholds = Thresholds::new().with_limit_on(Axis::Risk, "disk_used_ratio", Limit::FailAbove(0.9));
    /// assert_eq!(thresholds.judge(&Observation::new().gauge("disk_used_ratio", 0.95)).0, Status::Degraded);
    /// ```
    #[must_use]
    pub fn with_limit_on(mut self, axis: Axis, measurement: impl Into<String>, limit: Limit) -> Self {
        self.changes.push(Change::Limit(axis, measurement.into(), limit));
        self
    }

    /// Adds a rule; one of the adapter's with the same code is replaced.
    #[must_use]
    pub fn with_rule(mut self, rule: Rule) -> Self {
        self.changes.push(Change::Replace(rule));
        self
    }

    /// Takes away every rule about that measurement, or with that code.
    #[must_use]
    pub fn without(mut self, measurement_or_code: impl Into<String>) -> Self {
        self.changes.push(Change::Without(measurement_or_code.into()));
        self
    }

    /// Lets a critical risk make the service unready, as it does not unless this is said.
    #[must_use]
    pub fn with_risk_failing_readiness(mut self) -> Self {
        self.risk_fails_readiness = true;
        self
    }

    /// What has a limit that is no number, which nothing ever exceeds.
    pub(crate) fn without_number(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().filter_map(|change| match change {
            Change::Limit(_, name, limit) => limit.value().is_nan().then_some(name.as_str()),
            Change::Replace(rule) => {
                let is_nan = [rule.warning, rule.critical].into_iter().flatten().any(f64::is_nan);
                is_nan.then_some(rule.code.as_ref())
            }
            Change::Without(_) => None,
        })
    }

    /// The measurements and codes that the changes are about.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().map(|change| match change {
            Change::Limit(_, name, _) | Change::Without(name) => name.as_str(),
            Change::Replace(rule) => rule.metric.as_ref(),
        })
    }

    /// The adapter's rules with these changes.
    #[must_use]
    pub fn apply(&self, rules: &[Rule]) -> Vec<Rule> {
        let mut applied = rules.to_vec();
        for change in &self.changes {
            match change {
                Change::Limit(axis, metric, limit) => put_limit(&mut applied, *axis, metric, *limit),
                Change::Replace(rule) => {
                    applied.retain(|old| old.code != rule.code);
                    applied.push(rule.clone());
                }
                Change::Without(name) => applied.retain(|rule| rule.metric != *name && rule.code != *name),
            }
        }
        applied
    }

    /// The status that an observation means by these limits alone, with a finding for each that is exceeded.
    ///
    /// A critical finding about reach or readiness is unhealthy; any other warning or critical one is degraded, so
    /// a risk never makes a service unready.
    #[must_use]
    pub fn judge(&self, observation: &Observation) -> (Status, Vec<Finding>) {
        let verdict = self.verdict(&[], observation);
        (verdict.status, verdict.findings)
    }

    /// What an observation means by an adapter's rules and these limits.
    #[must_use]
    pub fn verdict(&self, rules: &[Rule], observation: &Observation) -> Verdict {
        self.verdict_by(&self.apply(rules), observation)
    }

    /// What an observation means by rules that [`Thresholds::apply`] made.
    pub(crate) fn verdict_by(&self, applied: &[Rule], observation: &Observation) -> Verdict {
        let measurements = &observation.measurements;
        let findings: Vec<Finding> =
            applied.iter().flat_map(|rule| measurements.iter().filter_map(|measured| rule.judge(measured))).collect();
        let all = || observation.findings.iter().chain(&findings);
        let worst = |axis| all().filter(|finding| finding.axis == axis).map(own_status).max();
        let [reach, ready, risk] =
            [Axis::Reach, Axis::Ready, Axis::Risk].map(|axis| worst(axis).unwrap_or(Status::Healthy));
        let counted = if self.risk_fails_readiness { risk } else { risk.min(Status::Degraded) };
        Verdict { status: reach.max(ready).max(counted), reach, ready, risk, findings }
    }
}

/// Changes the adapter's rule about this side of a measurement, or adds a rule.
fn put_limit(rules: &mut Vec<Rule>, axis: Axis, metric: &str, limit: Limit) {
    let about = |rule: &&mut Rule| rule.metric == metric && rule.side == limit.side();
    if let Some(rule) = rules.iter_mut().find(about) {
        // A warning moved elsewhere must not make the adapter's own critical limit fail the readiness.
        if matches!(limit, Limit::FailAbove(_) | Limit::FailBelow(_)) {
            rule.axis = axis;
        }
        return limit.put(rule);
    }
    let mut rule = Rule::above(metric.to_owned(), Cow::Borrowed(OWN_LIMIT)).on(axis);
    rule.side = limit.side();
    limit.put(&mut rule);
    rules.push(rule);
}

/// What a finding means on its own axis.
fn own_status(finding: &Finding) -> Status {
    match finding.severity {
        Severity::Info => Status::Healthy,
        Severity::Warning => Status::Degraded,
        Severity::Critical => Status::Unhealthy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_critical_risk_is_degraded_not_unhealthy() {
        let risk = || Observation::new().finding(Finding::new("x", Axis::Risk, Severity::Critical, "soon"));
        assert_eq!(Thresholds::new().judge(&risk()).0, Status::Degraded);
        assert_eq!(Thresholds::new().with_risk_failing_readiness().judge(&risk()).0, Status::Unhealthy);
        let ready = Finding::new("x", Axis::Ready, Severity::Critical, "now");
        assert_eq!(Thresholds::new().judge(&Observation::new().finding(ready)).0, Status::Unhealthy);
    }

    #[test]
    fn an_unavailable_measurement_exceeds_nothing() {
        let thresholds = Thresholds::new().with_limit("a_ratio", Limit::FailBelow(1.0));
        assert_eq!(thresholds.judge(&Observation::new().unavailable("a_ratio", "no right")).0, Status::Healthy);
    }

    #[test]
    fn a_limit_changes_the_adapters_rule_and_keeps_its_words() {
        let rule = Rule::above("used_ratio", "x.full").warning(0.8).critical(0.9).saying("nearly full", "clean up");
        let seen = Observation::new().gauge("used_ratio", 0.85);
        let verdict = |limits: Thresholds| limits.verdict(std::slice::from_ref(&rule), &seen);
        let own = verdict(Thresholds::new());
        assert_eq!((own.status, own.findings[0].limit), (Status::Degraded, Some(0.8)));
        let later = Thresholds::new().with_limit_on(Axis::Risk, "used_ratio", Limit::WarnAbove(0.87));
        assert_eq!(verdict(later).findings, []);
        let sooner = verdict(Thresholds::new().with_limit("used_ratio", Limit::FailAbove(0.82)));
        assert_eq!((sooner.status, sooner.findings[0].code.as_ref()), (Status::Unhealthy, "x.full"));
        assert_eq!(verdict(Thresholds::new().without("x.full")).findings, []);
        assert_eq!(verdict(Thresholds::new().without("used_ratio")).findings, []);
    }

    #[test]
    fn each_label_is_judged_for_itself_and_named() {
        use crate::health::{Measurement, MeasurementKind, MeasurementValue};
        let lag = |name: &str, value| {
            let value = MeasurementValue::Value(value);
            Measurement::new("lag_seconds", MeasurementKind::Gauge, value).with_label("standby", name)
        };
        let seen = Observation::new().measurement(lag("one", 1.0)).measurement(lag("two", 40.0));
        let rule = Rule::above("lag_seconds", "x.lag").warning(30.0).saying("a standby is behind", "look at it");
        let verdict = Thresholds::new().verdict(&[rule], &seen);
        assert_eq!(verdict.findings.len(), 1);
        assert_eq!(verdict.findings[0].message, "a standby is behind (standby two)");
        let odd = Observation::new().measurement(lag("\u{1b}[2J", 40.0));
        let rule = Rule::above("lag_seconds", "x.lag").warning(30.0).saying("behind", "look at it");
        let verdict = Thresholds::new().verdict(&[rule], &odd);
        assert_eq!(verdict.findings[0].message, "behind (standby \\u{1b}[2J)", "a terminal obeys no name");
    }
}
