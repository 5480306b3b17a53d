//! What a probe asks, and what the answers mean: the catalogue drives both, so no measurement can be missing from it.

mod catalogue;
mod fields;
mod inventory;
mod rules;
mod vitals;

use stackkit_core::health::{Growth, Measurement, MeasurementValue, Metric, Tier};
use stackkit_core::{Observation, ProbeContext};

pub(crate) use catalogue::METRICS;
pub(crate) use fields::{Fields, read_all};
pub(crate) use inventory::{facts_sql, inventory_sql, take_inventory};
pub(crate) use rules::rules;
pub(crate) use vitals::{observe, vitals_sql};

/// The grant that shows what belongs to other sessions.
const GRANT_MONITOR: &str = "GRANT pg_monitor TO <role>";

/// The oldest major version whose views the queries read.
pub(crate) const VERSION_MIN: u32 = 12;

/// How many tables, slots and standbys are told by name. Each is a label of its own, and a view of thousands helps nobody.
const NAMED_MAX: u32 = 20;

/// The metrics of one tier that have no label.
fn plain(tier: Tier) -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().filter(move |metric| metric.tier == tier && metric.labels.is_empty())
}

/// A measurement of the catalogue's `name`, with its kind. A name that the catalogue lacks measures nothing.
fn measured(name: &str, value: MeasurementValue) -> Option<Measurement> {
    let metric = METRICS.iter().find(|metric| metric.name == name)?;
    Some(Measurement::new(metric.name, metric.kind, value))
}

/// Adds the measurement `name`, with its label if it has one.
fn add(observation: Observation, name: &str, label: Option<&str>, value: MeasurementValue) -> Observation {
    let Some(measurement) = measured(name, value) else { return observation };
    let label_name = METRICS.iter().find(|metric| metric.name == name).and_then(|metric| metric.labels.first());
    observation.measurement(match (label_name, label) {
        (Some(label_name), Some(label)) => measurement.with_label(*label_name, label),
        _ => measurement,
    })
}

/// A missing right, in the words of [`Observation::not_permitted`].
fn not_permitted(grant: &str) -> MeasurementValue {
    MeasurementValue::Unavailable(format!("permission: {grant}"))
}

fn unavailable(reason: &str) -> MeasurementValue {
    MeasurementValue::Unavailable(reason.to_owned())
}

/// How much a value changed in a unit of time since the last probe of the same tier, rounded; negative if it shrank.
fn change_per(
    cx: &ProbeContext,
    (name, label): (&str, Option<&str>),
    value: f64,
    unit_seconds: f64,
) -> MeasurementValue {
    let is_it = |measurement: &&Measurement| {
        measurement.name == name && label.is_none_or(|label| measurement.labels.values().any(|own| own == label))
    };
    let before = cx.previous().and_then(|previous| previous.measurements.iter().find(is_it)?.number());
    match before.zip(cx.elapsed()) {
        Some((before, elapsed)) => ((value - before) / elapsed.as_secs_f64() * unit_seconds).round().into(),
        None => Growth::First.value(),
    }
}

/// The part that `part` grew of what both grew since the last probe: a ratio since the server's start hardly ever moves.
fn share_of_growth(part: Growth, rest: Growth, nothing: &str) -> MeasurementValue {
    match (part.amount(), rest.amount()) {
        (Some(part), Some(rest)) if part + rest > 0.0 => (part / (part + rest)).into(),
        (Some(_), Some(_)) => unavailable(nothing),
        (None, _) => part.value(),
        (Some(_), None) => rest.value(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::time::Duration;

    use stackkit_core::Clock;
    use stackkit_core::health::MeasurementKind;

    use super::*;

    #[test]
    fn the_catalogue_names_each_metric_once_with_its_unit() {
        let mut seen = HashSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{} is there twice", metric.name);
            assert!(metric.name.ends_with(metric.unit()), "{}", metric.name);
            assert!(!metric.source.is_empty() && !metric.help.is_empty(), "{}", metric.name);
            assert!(metric.labels.len() <= 1, "{}: values before are found by one label", metric.name);
        }
    }

    #[test]
    fn a_change_is_of_the_same_label_and_may_be_negative() {
        let now = Clock::system().instant();
        let rows = |table: &str, rows: f64| {
            Measurement::new("table_rows_count", MeasurementKind::Gauge, rows.into()).with_label("table", table)
        };
        let before = Observation::new().measurement(rows("a", 10.0)).measurement(rows("b", 500.0));
        let cx = ProbeContext::new(Tier::Inventory, now)
            .with_previous(Some(Arc::new(before)))
            .with_previous_at(Some(now - Duration::from_secs(3600)));
        let change = |label, value| match change_per(&cx, ("table_rows_count", Some(label)), value, 3600.0) {
            MeasurementValue::Value(value) => Some(value),
            MeasurementValue::Unavailable(_) => None,
        };
        assert_eq!(change("b", 500.0), Some(0.0));
        assert!(change("b", 400.0).is_some_and(|change| (-101.0..=-99.0).contains(&change)));
        assert_eq!(change("c", 1.0), None);
    }
}
