//! What a check measures, as data: documents, alert rules and dashboards are generated from it.

use serde::Serialize;

use crate::health::{MeasurementKind, Tier, unit_of};

/// One quantity that a check measures.
///
/// ```
/// use stackkit_core::health::{MeasurementKind, Metric, Tier};
/// const USED: Metric = Metric::gauge("memory_used_bytes", "INFO memory: used_memory", "Bytes that the allocator gave out");
/// const KEYS: Metric = Metric::gauge("keys_count", "INFO keyspace", "Keys").labelled(&["db"]).on(Tier::Inventory);
/// assert_eq!((USED.unit(), USED.kind, KEYS.tier), ("bytes", MeasurementKind::Gauge, Tier::Inventory));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Metric {
    /// The name; its last word is the unit.
    pub name: &'static str,
    /// Gauge or counter.
    pub kind: MeasurementKind,
    /// The vendor's view that it is read from: `pg_stat_database.deadlocks`, `INFO memory: used_memory`.
    pub source: &'static str,
    /// What it counts, in one line.
    pub help: &'static str,
    /// The tier that measures it.
    pub tier: Tier,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The right that it needs beyond connecting, as the grant that gives it: `GRANT pg_monitor TO <role>`.
    pub grant: Option<&'static str>,
}

impl Metric {
    /// A value at a moment, of the tier vitals.
    #[must_use]
    pub const fn gauge(name: &'static str, source: &'static str, help: &'static str) -> Self {
        Self { name, kind: MeasurementKind::Gauge, source, help, tier: Tier::Vitals, labels: &[], grant: None }
    }

    /// A count since the server started, of the tier vitals.
    #[must_use]
    pub const fn counter(name: &'static str, source: &'static str, help: &'static str) -> Self {
        Self { kind: MeasurementKind::Counter, ..Self::gauge(name, source, help) }
    }

    /// Says which tier measures it.
    #[must_use]
    pub const fn on(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// Names its labels.
    #[must_use]
    pub const fn labelled(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }

    /// Names the grant that it needs.
    #[must_use]
    pub const fn needs(self, grant: &'static str) -> Self {
        Self { grant: Some(grant), ..self }
    }

    /// The unit that its name ends in.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        unit_of(self.name)
    }
}
