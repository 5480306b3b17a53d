//! A dashboard for Grafana.

use serde_json::{Value, json};
use stackkit_core::health::{MeasurementKind, Metric, Side};

use super::Catalogue;
use crate::metrics::store::help;

/// The model that it is written in: Grafana 11. A later one reads it too.
const SCHEMA_VERSION: u32 = 39;
/// Grafana's grid is 24 wide.
const WIDTH: usize = 8;
const PER_LINE: usize = 3;
const HEIGHT: usize = 7;

/// The dashboard as JSON to import: statuses and probes of all services, then a row for each kind with a panel for each metric
/// and the limits as lines in it.
#[must_use]
pub fn dashboard(catalogues: &[Catalogue]) -> String {
    let mut panels = overview();
    let top = panels.len().div_ceil(PER_LINE) * HEIGHT;
    for (at, catalogue) in catalogues.iter().filter(|catalogue| !catalogue.metrics.is_empty()).enumerate() {
        panels.push(row(catalogue, top + at));
    }
    number(&mut panels, &mut 0);
    let dashboard = json!({
        "uid": "stackkit",
        "title": "stackkit",
        "description": "Made from the checks' catalogues by the test `catalogue`; see CONTRIBUTING.md.",
        "tags": ["stackkit"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": true,
        "graphTooltip": 1,
        "time": { "from": "now-6h", "to": "now" },
        "refresh": "30s",
        "templating": { "list": [
            { "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source" },
            variable("job", "label_values(stackkit_health_ready, job)"),
            variable("service", "label_values(stackkit_service{job=~\"$job\"}, service)"),
        ] },
        "panels": panels,
    });
    format!("{dashboard:#}\n")
}

fn variable(name: &str, query: &str) -> Value {
    json!({
        "name": name, "type": "query", "label": name, "query": query, "definition": query, "refresh": 2,
        "datasource": datasource(), "multi": true, "includeAll": true,
        "current": { "text": "All", "value": "$__all" },
    })
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// What is of all services alike.
fn overview() -> Vec<Value> {
    let of = "{job=~\"$job\", service=~\"$service\"}";
    let graphs = [
        ("Ready", "stat", "none", "stackkit_health_ready{job=~\"$job\"}".to_owned(), "{{instance}}"),
        (
            "Status: 0 healthy, 1 degraded, 2 unknown, 3 unhealthy",
            "state-timeline",
            "none",
            "stackkit_health_status{job=~\"$job\", service=~\"$service\", state=\"degraded\"} \
             + ignoring(state) 2 * stackkit_health_status{job=~\"$job\", service=~\"$service\", state=\"unknown\"} \
             + ignoring(state) 3 * stackkit_health_status{job=~\"$job\", service=~\"$service\", state=\"unhealthy\"}"
                .to_owned(),
            "{{instance}} {{service}}",
        ),
        (
            "Availability, 24 h",
            "stat",
            "percentunit",
            "stackkit_health_availability_ratio{job=~\"$job\", service=~\"$service\", window=\"24h\"}".to_owned(),
            "{{service}}",
        ),
        (
            "Probe duration, 95th percentile",
            "timeseries",
            "s",
            format!(
                "histogram_quantile(0.95, sum by (service, tier, le) (rate(stackkit_probe_duration_seconds_bucket{of}[$__rate_interval])))"
            ),
            "{{service}} {{tier}}",
        ),
        (
            "Probes that could not observe, per second",
            "timeseries",
            "short",
            format!("rate(stackkit_probe_errors_total{of}[$__rate_interval])"),
            "{{service}} {{class}} {{phase}}",
        ),
        ("Findings", "timeseries", "none", format!("stackkit_finding{of}"), "{{service}} {{severity}} {{code}}"),
    ];
    let panel = |(at, (title, kind, unit, expr, legend)): (usize, (&str, &str, &str, String, &str))| {
        let defaults = json!({ "unit": unit });
        json!({
            "title": title, "type": kind, "datasource": datasource(), "gridPos": place(at, 0),
            "fieldConfig": { "defaults": defaults, "overrides": [] },
            "targets": [target(&expr, legend)],
        })
    };
    graphs.into_iter().enumerate().map(panel).collect()
}

/// One kind of service, folded.
fn row(catalogue: &Catalogue, y: usize) -> Value {
    let panels: Vec<Value> =
        catalogue.metrics.iter().enumerate().map(|(at, metric)| panel(catalogue, metric, at, y + 1)).collect();
    json!({
        "title": catalogue.kind, "type": "row", "collapsed": true,
        "gridPos": { "h": 1, "w": WIDTH * PER_LINE, "x": 0, "y": y },
        "panels": panels,
    })
}

fn panel(catalogue: &Catalogue, metric: &Metric, at: usize, top: usize) -> Value {
    let exported = catalogue.exported(metric.name);
    let samples = format!("{}{{job=~\"$job\", service=~\"$service\"}}", exported.sample());
    let (expr, unit) = match (metric.kind, exported.unit) {
        (MeasurementKind::Counter, Some("bytes")) => (format!("rate({samples}[$__rate_interval])"), "Bps"),
        (MeasurementKind::Counter, _) => (format!("rate({samples}[$__rate_interval])"), "short"),
        (MeasurementKind::Gauge, Some("bytes")) => (samples, "bytes"),
        (MeasurementKind::Gauge, Some("seconds")) => (samples, "s"),
        (MeasurementKind::Gauge, Some("ratio")) => (samples, "percentunit"),
        (MeasurementKind::Gauge, _) => (samples, "short"),
    };
    let labels: Vec<String> =
        metric.labels.iter().map(|name| format!(" {{{{{}}}}}", crate::metrics::name::label(name))).collect();
    let legend = format!("{{{{service}}}}{}", labels.join(""));
    let defaults = match limits(catalogue, metric, exported.divisor) {
        None => json!({ "unit": unit }),
        Some(steps) => json!({
            "unit": unit,
            "thresholds": { "mode": "absolute", "steps": steps },
            "custom": { "thresholdsStyle": { "mode": "dashed" } },
        }),
    };
    json!({
        "title": title(exported.family.as_str(), catalogue.kind),
        "description": help(metric), "type": "timeseries", "datasource": datasource(), "gridPos": place(at, top),
        "fieldConfig": { "defaults": defaults, "overrides": [] },
        "targets": [target(&expr, &legend)],
    })
}

/// The name without what all of a row have in common.
fn title(family: &str, kind: &str) -> String {
    let prefix = format!("stackkit_{kind}_");
    family.strip_prefix(&prefix).unwrap_or(family).replace('_', " ")
}

/// The limits on a gauge as lines: a counter is shown as a rate, on which its limits have no meaning.
fn limits(catalogue: &Catalogue, metric: &Metric, divisor: f64) -> Option<Vec<Value>> {
    let rule = catalogue.rules.iter().find(|rule| rule.metric == metric.name)?;
    if metric.kind == MeasurementKind::Counter {
        return None;
    }
    let (lowest, highest) = match rule.side {
        Side::Above => ("green", "red"),
        Side::Below => ("red", "green"),
    };
    let mut limits: Vec<f64> =
        [rule.warning, rule.critical].into_iter().flatten().map(|limit| limit / divisor).collect();
    limits.sort_by(f64::total_cmp);
    let colour = |at| if at + 1 == limits.len() { highest } else { "orange" };
    let steps = limits.iter().enumerate().map(|(at, limit)| json!({ "color": colour(at), "value": limit }));
    Some(std::iter::once(json!({ "color": lowest, "value": null })).chain(steps).collect())
}

fn target(expr: &str, legend: &str) -> Value {
    json!({ "refId": "A", "expr": expr, "legendFormat": legend })
}

fn place(at: usize, top: usize) -> Value {
    json!({ "h": HEIGHT, "w": WIDTH, "x": at % PER_LINE * WIDTH, "y": top + at / PER_LINE * HEIGHT })
}

/// Gives each panel its number, those inside rows too.
fn number(panels: &mut [Value], last: &mut u32) {
    for panel in panels {
        *last += 1;
        if let Some(panel) = panel.as_object_mut() {
            panel.insert("id".to_owned(), (*last).into());
        }
        if let Some(inner) = panel.get_mut("panels").and_then(Value::as_array_mut) {
            number(inner, last);
        }
    }
}
