//! Documents made of the checks' own catalogues, so that none of them can say anything else than the code does: a page of all
//! metrics, alert rules for Prometheus, a dashboard for Grafana. Pure: no I/O.
//!
//! ```
//! use stackkit_core::health::{Metric, Rule};
//! use stackkit_http::catalogue::{Catalogue, alert_rules};
//! const METRICS: &[Metric] = &[Metric::gauge("used_percent", "df", "Used share of the disk")];
//! let rule = Rule::above("used_percent", "disk.full").warning(85.0).saying("the disk fills", "make room");
//! let rules = alert_rules(&[Catalogue::new("disk", METRICS, vec![rule])]);
//! assert!(rules.contains("expr: \"stackkit_disk_used_ratio >= 0.85\""));
//! ```

mod alerts;
mod dashboard;
mod markdown;

use stackkit_core::Service;
use stackkit_core::health::{MeasurementKind, Metric, Rule};

use crate::metrics::name::Exported;

pub use alerts::alert_rules;
pub use dashboard::dashboard;
pub use markdown::markdown;

/// What services of one kind measure, and from where on it is bad.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    kind: &'static str,
    metrics: &'static [Metric],
    rules: Vec<Rule>,
}

impl Catalogue {
    /// A catalogue of these parts.
    #[must_use]
    pub fn new(kind: &'static str, metrics: &'static [Metric], rules: Vec<Rule>) -> Self {
        Self { kind, metrics, rules }
    }

    /// The catalogue of a service, whose handle is made without I/O; `None` if it has no health check.
    #[must_use]
    pub fn of(service: &dyn Service) -> Option<Self> {
        let check = service.health_check()?;
        Some(Self::new(service.kind(), check.metrics(), check.rules()))
    }

    /// How a measurement of this kind is exported; one that is not in the catalogue is taken for a gauge.
    fn exported(&self, name: &str) -> Exported {
        let metric = self.metrics.iter().find(|metric| metric.name == name);
        Exported::new(self.kind, name, metric.map_or(MeasurementKind::Gauge, |metric| metric.kind))
    }
}
