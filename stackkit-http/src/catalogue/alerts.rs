//! Alert rules for Prometheus.

use std::fmt::Write as _;

use stackkit_core::health::{Rule, Severity, Side};

use super::Catalogue;

const INTRODUCTION: &str = "\
# Alert rules for Prometheus. Made from the checks' catalogues by the test `catalogue`; see CONTRIBUTING.md. Do not edit.
groups:
";

/// How long a limit must be met: a value that comes back by itself within minutes is nobody's business at night.
const LIMIT_FOR: &str = "5m";

/// What an alert says; `for` in Prometheus' words.
struct Alert<'a> {
    name: &'a str,
    expr: &'a str,
    lasts: &'a str,
    severity: Severity,
    summary: &'a str,
    description: &'a str,
}

/// By which labels two metrics of one service in one process meet.
const OF_SERVICE: &str = "on (job, instance, service)";

/// Rules in YAML: of the engine's own metrics (a service is down, nothing is ready, a service flaps, probes stopped), and one for
/// each limit of a check.
#[must_use]
pub fn alert_rules(catalogues: &[Catalogue]) -> String {
    let mut yaml = INTRODUCTION.to_owned();
    yaml.push_str("  - name: stackkit.health\n    rules:\n");
    engine(&mut yaml);
    for catalogue in catalogues.iter().filter(|catalogue| !catalogue.rules.is_empty()) {
        // Writing to a `String` can't fail, here and below.
        let _ = writeln!(yaml, "  - name: {}\n    rules:", quoted(&format!("stackkit.{}", catalogue.kind)));
        for rule in &catalogue.rules {
            limits(&mut yaml, catalogue, rule);
        }
    }
    yaml
}

/// The alerts about statuses; a service in maintenance raises none.
fn engine(yaml: &mut String) {
    let has = |state: &str, criticality: &str| {
        format!(
            "stackkit_health_status{{state=\"{state}\"}} == 1 and {OF_SERVICE} stackkit_service{{criticality=~\"{criticality}\"}} \
             unless {OF_SERVICE} stackkit_health_maintenance == 1"
        )
    };
    let both = "required|optional";
    let (down, optional) = (has("unhealthy", "required"), has("unhealthy", "optional"));
    let (degraded, unknown) = (has("degraded", both), has("unknown", both));
    let gone = "time() - max by (job, instance, service) (stackkit_probe_last_success_timestamp_seconds{tier!=\"inventory\"}) > 300";
    let service = |name, expr, lasts, severity, summary| Alert {
        name,
        expr,
        lasts,
        severity,
        summary,
        description: "/health or /status of {{ $labels.instance }} tells why",
    };
    let (warning, critical) = (Severity::Warning, Severity::Critical);
    for alert in [
        service("StackkitServiceDown", &down, "1m", critical, "{{ $labels.service }} does not serve"),
        service("StackkitOptionalServiceDown", &optional, "5m", warning, "{{ $labels.service }} does not serve"),
        service("StackkitServiceDegraded", &degraded, "15m", warning, "{{ $labels.service }} should be looked at"),
        service("StackkitServiceUnknown", &unknown, "5m", warning, "nobody knows how {{ $labels.service }} is"),
        service(
            "StackkitServiceFlapping",
            "stackkit_health_flapping == 1",
            "5m",
            warning,
            "{{ $labels.service }} comes and goes",
        ),
        service(
            "StackkitProbesStale",
            gone,
            "1m",
            warning,
            "no probe of {{ $labels.service }} could observe for 5 minutes",
        ),
        service(
            "StackkitNotReady",
            "stackkit_health_ready == 0 and stackkit_health_draining == 0",
            "1m",
            critical,
            "{{ $labels.instance }} may get no requests",
        ),
        Alert {
            name: "StackkitMetricsGone",
            expr: "absent(stackkit_health_ready)",
            lasts: "5m",
            severity: critical,
            summary: "nobody exports the health of a stack",
            description: "no process that Prometheus scrapes has stackkit's /metrics",
        },
    ] {
        put(yaml, &alert);
    }
}

/// A warning below the critical limit, and the critical one.
fn limits(yaml: &mut String, catalogue: &Catalogue, rule: &Rule) {
    let exported = catalogue.exported(&rule.metric);
    let (sample, lasts) = match counter_of(catalogue, &rule.metric) {
        Some(counter) => (format!("increase({}[{LIMIT_FOR}])", catalogue.exported(counter).sample()), "0m"),
        None => (exported.sample().to_string(), LIMIT_FOR),
    };
    let (met, unmet) = match rule.side {
        Side::Above => (">=", "<"),
        Side::Below => ("<=", ">"),
    };
    let limit = |limit: f64| limit / exported.divisor;
    let name = camel(&rule.code);
    let message = if rule.message.is_empty() { rule.metric.as_ref() } else { rule.message.as_ref() };
    let summary = format!("{{{{ $labels.service }}}}: {message}");
    let mut add = |expr: String, severity| {
        put(
            yaml,
            &Alert {
                name: &name,
                expr: &expr,
                lasts,
                severity,
                summary: &summary,
                description: rule.hint.as_deref().unwrap_or_default(),
            },
        );
    };
    match (rule.warning, rule.critical) {
        (Some(warning), Some(critical)) => {
            add(format!("{sample} {met} {} {unmet} {}", limit(warning), limit(critical)), Severity::Warning);
        }
        (Some(warning), None) => add(format!("{sample} {met} {}", limit(warning)), Severity::Warning),
        (None, _) => {}
    }
    if let Some(critical) = rule.critical {
        add(format!("{sample} {met} {}", limit(critical)), Severity::Critical);
    }
}

/// The counter behind a growth since the last probe. That gauge is above its limit for one probe only: a scrape may miss
/// it, and it lasts for no time.
fn counter_of(catalogue: &Catalogue, metric: &str) -> Option<&'static str> {
    let counter = format!("{}_count", metric.strip_suffix("_new_count")?);
    catalogue.metrics.iter().find(|metric| metric.name == counter).map(|metric| metric.name)
}

fn put(yaml: &mut String, alert: &Alert<'_>) {
    let Alert { name, expr, lasts, severity, summary, description } = alert;
    let severity = severity.as_str();
    let (expr, summary, description) = (quoted(expr), quoted(summary), quoted(description));
    let _ = write!(
        yaml,
        "      - alert: {name}\n        expr: {expr}\n        for: {lasts}\n        labels:\n          severity: {severity}\n        \
         annotations:\n          summary: {summary}\n          description: {description}\n"
    );
}

/// A text in double quotes: what JSON quotes, YAML reads.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `pg.connections.near_max` as `PgConnectionsNearMax`.
fn camel(code: &str) -> String {
    let words = code.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(|word| word.split_at_checked(1));
    words.map(|(first, rest)| format!("{}{rest}", first.to_ascii_uppercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stackkit_core::health::Metric;

    const METRICS: &[Metric] = &[
        Metric::gauge("used_percent", "df", "Used share"),
        Metric::gauge("free_bytes", "df", "Free"),
        Metric::counter("errors_count", "dmesg", "Errors"),
    ];

    #[test]
    fn limits_are_in_the_units_of_the_export() {
        let rules = vec![
            Rule::above("used_percent", "disk.used.near_max")
                .warning(85.0)
                .critical(95.0)
                .saying("it's \"full\"", "make room"),
            Rule::below("free_bytes", "disk.free.low").critical(1e9),
            Rule::above("errors_count", "disk.errors").warning(1.0),
            Rule::above("errors_new_count", "disk.errors.new").warning(1.0),
        ];
        let yaml = alert_rules(&[Catalogue::new("disk", METRICS, rules)]);
        for part in [
            "- alert: DiskUsedNearMax\n        expr: \"stackkit_disk_used_ratio >= 0.85 < 0.95\"\n        for: 5m\n        labels:\n          severity: warning\n",
            "expr: \"stackkit_disk_used_ratio >= 0.95\"\n        for: 5m\n        labels:\n          severity: critical\n",
            "summary: \"{{ $labels.service }}: it's \\\"full\\\"\"\n",
            "expr: \"stackkit_disk_free_bytes <= 1000000000\"\n",
            "expr: \"stackkit_disk_errors_total >= 1\"\n        for: 5m\n",
            "expr: \"increase(stackkit_disk_errors_total[5m]) >= 1\"\n        for: 0m\n",
        ] {
            assert!(yaml.contains(part), "{part} is missing in\n{yaml}");
        }
    }
}
