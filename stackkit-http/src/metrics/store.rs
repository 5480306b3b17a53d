//! What the checks measured.

use std::collections::{BTreeMap, BTreeSet};

use stackkit_core::Report;
use stackkit_core::health::{Measurement, MeasurementKind, Metric, ServiceReport};

use super::family::{Families, Head, Type};
use super::name::{Exported, label};

/// How many series one measurement of one service may have. A server may have 100 000 tables; each series costs whoever
/// stores it some kilobytes. The largest are kept, the others are one series called [`OTHER`].
pub(super) const SERIES_MAX: usize = 50;
/// The value of every label of the series that stands for the ones that are left out.
const OTHER: &str = "other";
/// For what no catalogue knows.
const NO_HELP: &str = "Not in the catalogue of its check";

/// The catalogues of a stack's checks, by the service's position.
pub(crate) type Catalogues = [&'static [Metric]];

/// Adds what the checks measured.
pub(super) fn put(families: &mut Families, report: &Report, catalogues: &Catalogues) {
    for (position, service) in report.services.iter().enumerate() {
        let catalogue = catalogues.get(position).copied().unwrap_or_default();
        // A series that is told twice makes Prometheus refuse the page: of `ping_ms` and `ping_seconds` the first counts.
        let mut told = BTreeSet::new();
        for (name, measurements) in by_name(service) {
            let Some((first, _)) = measurements.first() else { continue };
            let exported = Exported::new(service.kind, name, first.kind);
            if told.insert(exported.sample()) {
                let help = catalogue.iter().find(|metric| metric.name == name).map_or(NO_HELP.to_owned(), help);
                put_one(families, service, (&exported, help), &measurements);
            }
        }
    }
}

/// The measurements that have a number. A counter below 0 is none.
fn by_name(service: &ServiceReport) -> BTreeMap<&str, Vec<(&Measurement, f64)>> {
    let mut names: BTreeMap<&str, Vec<(&Measurement, f64)>> = BTreeMap::new();
    for measurement in service.observation.iter().flat_map(|seen| &seen.measurements) {
        let number = measurement.number().filter(|value| measurement.kind == MeasurementKind::Gauge || *value >= 0.0);
        if let Some(value) = number {
            names.entry(&measurement.name).or_default().push((measurement, value));
        }
    }
    names
}

fn put_one(
    families: &mut Families,
    service: &ServiceReport,
    (exported, help): (&Exported, String),
    measurements: &[(&Measurement, f64)],
) {
    let Some(mut samples) = families.family(&head(exported, help)) else { return };
    for (labels, value) in series(measurements) {
        let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let labels: Vec<(&str, &str)> = std::iter::once(("service", service.id.as_str())).chain(labels).collect();
        samples.add(&labels, value / exported.divisor);
    }
}

/// The help text of a metric: what it is, and the view that it was read from.
pub(crate) fn help(metric: &Metric) -> String {
    format!("{} ({})", metric.help, metric.source)
}

fn head(exported: &Exported, help: String) -> Head {
    let kind = match exported.kind {
        MeasurementKind::Gauge => Type::Gauge,
        MeasurementKind::Counter => Type::Counter,
    };
    Head { name: exported.family.clone(), kind, unit: exported.unit, help }
}

/// The series of one measurement by their labels: the [`SERIES_MAX`] largest, and one for the others where a sum has a meaning.
fn series(measurements: &[(&Measurement, f64)]) -> BTreeMap<Vec<(String, String)>, f64> {
    let mut sorted: Vec<&(&Measurement, f64)> = measurements.iter().collect();
    sorted.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let (kept, left_out) = match sorted.split_at_checked(SERIES_MAX) {
        Some((_, [])) | None => (sorted.as_slice(), &[][..]),
        // One place is for the others.
        Some(_) => sorted.split_at(SERIES_MAX - 1),
    };
    let mut series = BTreeMap::new();
    for (measurement, value) in kept {
        series.insert(labels(measurement, |value| value), *value);
    }
    let is_additive = |measurement: &Measurement| {
        measurement.kind == MeasurementKind::Counter || matches!(measurement.unit.as_ref(), "bytes" | "count")
    };
    for (measurement, value) in left_out.iter().filter(|(measurement, _)| is_additive(measurement)) {
        *series.entry(labels(measurement, |_value| OTHER)).or_default() += value;
    }
    series
}

/// A measurement's labels under their exported names. Of two that have one name the first counts.
fn labels<'a>(measurement: &'a Measurement, of: impl Fn(&'a str) -> &'a str) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = Vec::new();
    for (name, value) in &measurement.labels {
        let name = label(name);
        if labels.iter().all(|(other, _)| *other != name) {
            labels.push((name, of(value).to_owned()));
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use stackkit_core::health::MeasurementValue;

    #[test]
    fn two_labels_of_one_exported_name_are_one() {
        let odd = Measurement::new("load_ratio", MeasurementKind::Gauge, MeasurementValue::Value(1.0))
            .with_label("a b", "first")
            .with_label("a_b", "second");
        assert_eq!(labels(&odd, |value| value), [("a_b".to_owned(), "first".to_owned())]);
    }

    fn tables(name: &'static str, count: usize) -> Vec<Measurement> {
        let value = |at: usize| MeasurementValue::Value(f64::from(u32::try_from(at).unwrap()));
        let new = |at| Measurement::new(name, MeasurementKind::Gauge, value(at)).with_label("table", format!("t{at}"));
        (0..count).map(new).collect()
    }

    fn series_of(measurements: &[Measurement]) -> BTreeMap<Vec<(String, String)>, f64> {
        series(&measurements.iter().map(|measurement| (measurement, measurement.number().unwrap())).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_beyond_the_cap_is_one_series() {
        assert_eq!(series_of(&tables("table_bytes", SERIES_MAX)).len(), SERIES_MAX);
        let capped = series_of(&tables("table_bytes", SERIES_MAX + 10));
        assert_eq!(capped.len(), SERIES_MAX);
        // The eleven smallest: 0 + 1 + … + 10.
        assert_eq!(capped[&vec![("table".to_owned(), OTHER.to_owned())]], 55.0);
        assert_eq!(capped.values().sum::<f64>(), series_of(&tables("table_bytes", 0)).values().sum::<f64>() + 1770.0);
    }

    #[test]
    fn ratios_are_not_added_up() {
        let capped = series_of(&tables("used_ratio", SERIES_MAX + 10));
        assert_eq!(capped.len(), SERIES_MAX - 1);
        assert!(capped.keys().flatten().all(|(_, value)| value != OTHER));
    }
}
