//! From an observation to a status, without a server.

use crate::health::{Axis, Finding, Measurement, MeasurementValue, Observation, Severity, Status};

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
    fn exceeded_by(self, value: f64) -> Option<(Severity, &'static str, f64)> {
        let (severity, word, limit, exceeded) = match self {
            Self::WarnAbove(limit) => (Severity::Warning, "above", limit, value >= limit),
            Self::FailAbove(limit) => (Severity::Critical, "above", limit, value >= limit),
            Self::WarnBelow(limit) => (Severity::Warning, "below", limit, value <= limit),
            Self::FailBelow(limit) => (Severity::Critical, "below", limit, value <= limit),
        };
        exceeded.then_some((severity, word, limit))
    }
}

/// A user's own limits on measurements, beside the findings that an adapter makes.
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
pub struct Thresholds(Vec<(String, Limit)>);

impl Thresholds {
    /// No limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a limit on each measurement of that name.
    #[must_use]
    pub fn with_limit(mut self, measurement: impl Into<String>, limit: Limit) -> Self {
        self.0.push((measurement.into(), limit));
        self
    }

    /// The status that an observation means, with a finding for each limit that is exceeded.
    ///
    /// A critical finding about reach or readiness is unhealthy; any other warning or critical one is degraded, so
    /// a risk never makes a service unready.
    #[must_use]
    pub fn judge(&self, observation: &Observation) -> (Status, Vec<Finding>) {
        let exceeded: Vec<Finding> = self
            .0
            .iter()
            .flat_map(|(name, limit)| observation.measurements.iter().filter_map(|m| exceeded(m, name, *limit)))
            .collect();
        let status = observation.findings.iter().chain(&exceeded).map(status_of).max().unwrap_or(Status::Healthy);
        (status, exceeded)
    }
}

fn exceeded(measurement: &Measurement, name: &str, limit: Limit) -> Option<Finding> {
    let MeasurementValue::Value(value) = measurement.value else { return None };
    if measurement.name != name {
        return None;
    }
    let (severity, word, limit) = limit.exceeded_by(value)?;
    let message = format!("{name} is {value}, at or {word} the limit of {limit}");
    Some(Finding::new("threshold.exceeded", Axis::Ready, severity, message))
}

fn status_of(finding: &Finding) -> Status {
    match (finding.axis, finding.severity) {
        (_, Severity::Info) => Status::Healthy,
        (Axis::Reach | Axis::Ready, Severity::Critical) => Status::Unhealthy,
        _ => Status::Degraded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_critical_risk_is_degraded_not_unhealthy() {
        let risk = Finding::new("x", Axis::Risk, Severity::Critical, "soon");
        assert_eq!(Thresholds::new().judge(&Observation::new().finding(risk)).0, Status::Degraded);
        let ready = Finding::new("x", Axis::Ready, Severity::Critical, "now");
        assert_eq!(Thresholds::new().judge(&Observation::new().finding(ready)).0, Status::Unhealthy);
    }

    #[test]
    fn an_unavailable_measurement_exceeds_nothing() {
        let thresholds = Thresholds::new().with_limit("a_ratio", Limit::FailBelow(1.0));
        assert_eq!(thresholds.judge(&Observation::new().unavailable("a_ratio", "no right")).0, Status::Healthy);
    }
}
