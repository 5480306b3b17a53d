//! From a measurement's name to the one that Prometheus sees: base units, and the words that its formats keep for
//! themselves.

use stackkit_core::health::{MeasurementKind, unit_of};

/// What every name begins with.
const PREFIX: &str = "stackkit";
/// Kinds whose metrics would be taken for the engine's own.
const OWN: [&str; 3] = ["health", "probe", "service"];
/// Endings that OpenMetrics reads as parts of other types.
const RESERVED: [&str; 6] = ["_total", "_count", "_sum", "_bucket", "_info", "_created"];

/// How a measurement is exported.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exported {
    /// The family's name; samples of a counter have `_total` behind it.
    pub(crate) family: String,
    /// The unit that the name ends in, if it is one of Prometheus' base units.
    pub(crate) unit: Option<&'static str>,
    /// By what a value is divided.
    pub(crate) divisor: f64,
    /// Gauge or counter.
    pub(crate) kind: MeasurementKind,
}

impl Exported {
    /// The measurement `name` of services of `kind`.
    pub(crate) fn new(service_kind: &str, name: &str, kind: MeasurementKind) -> Self {
        let stem = |unit: &str| name.strip_suffix(unit).map(|stem| stem.trim_end_matches('_')).unwrap_or(name);
        let (stem, unit, divisor) = match unit_of(name) {
            "ms" => (stem("ms"), Some("seconds"), 1e3),
            "percent" => (stem("percent"), Some("ratio"), 1e2),
            unit @ ("bytes" | "seconds" | "ratio") => (stem(unit), Some(unit), 1.0),
            "bool" => (stem("bool"), None, 1.0),
            _ => (stem("count"), None, 1.0),
        };
        let words = [PREFIX, &prefix_of(service_kind), &clean(stem), unit.unwrap_or("")];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let mut family = words.join("_");
        match kind {
            MeasurementKind::Counter => family = family.strip_suffix("_total").unwrap_or(&family).to_owned(),
            MeasurementKind::Gauge if RESERVED.iter().any(|word| family.ends_with(word)) => family.push_str("_value"),
            MeasurementKind::Gauge => {}
        }
        Self { family, unit, divisor, kind }
    }

    /// The name of its samples.
    pub(crate) fn sample(&self) -> String {
        match self.kind {
            MeasurementKind::Gauge => self.family.clone(),
            MeasurementKind::Counter => format!("{}_total", self.family),
        }
    }
}

fn prefix_of(kind: &str) -> String {
    let kind = clean(kind);
    if OWN.contains(&kind.as_str()) { format!("{kind}_check") } else { kind }
}

/// A text as part of a name: `[a-z0-9_]`.
pub(crate) fn clean(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    text.chars().map(plain).collect()
}

/// A measurement's label as the name of a label; `service` and the ones with two underscores in front are taken.
pub(crate) fn label(name: &str) -> String {
    let name = clean(name);
    let is_taken = name == "service" || name.starts_with("__") || !name.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_taken { format!("of_{}", name.trim_start_matches('_')) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MeasurementKind::{Counter, Gauge};

    #[test]
    fn names_end_in_base_units_and_keep_off_the_reserved_words() {
        for (name, kind, sample, divisor) in [
            ("connections_used_count", Gauge, "stackkit_redis_connections_used", 1.0),
            ("deadlocks_count", Counter, "stackkit_redis_deadlocks_total", 1.0),
            ("temp_written_bytes", Counter, "stackkit_redis_temp_written_bytes_total", 1.0),
            ("ping_ms", Gauge, "stackkit_redis_ping_seconds", 1e3),
            ("ping_seconds", Gauge, "stackkit_redis_ping_seconds", 1.0),
            ("used_percent", Gauge, "stackkit_redis_used_ratio", 1e2),
            ("in_recovery_bool", Gauge, "stackkit_redis_in_recovery", 1.0),
            ("keys_total_count", Gauge, "stackkit_redis_keys_total_value", 1.0),
            ("keys_total_count", Counter, "stackkit_redis_keys_total", 1.0),
            ("odd-Näme", Gauge, "stackkit_redis_odd_n_me", 1.0),
            ("ms", Gauge, "stackkit_redis_seconds", 1e3),
        ] {
            let exported = Exported::new("redis", name, kind);
            assert_eq!((exported.sample().as_str(), exported.divisor), (sample, divisor), "{name}");
        }
        assert_eq!(Exported::new("probe", "errors_count", Gauge).family, "stackkit_probe_check_errors");
    }

    #[test]
    fn labels_are_names_that_nobody_else_uses() {
        for (given, label_name) in
            [("db", "db"), ("service", "of_service"), ("__name__", "of_name__"), ("0x", "of_0x"), ("a b", "a_b")]
        {
            assert_eq!(label(given), label_name);
        }
    }
}
