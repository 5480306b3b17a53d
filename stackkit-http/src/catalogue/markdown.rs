//! The page of all metrics.

use std::fmt::Write as _;

use stackkit_core::health::{MeasurementKind, Metric, Rule, Side};

use super::Catalogue;
use crate::metrics::engine;
use crate::metrics::family::Type;

const INTRODUCTION: &str = "\
# Metrics

<!-- Made from the checks' catalogues by the test `catalogue`; see CONTRIBUTING.md. Do not edit. -->

What `/metrics` exports, by the kind of the service. In JSON the same numbers have the name of the third column. Every metric of a
check has the label `service`. A number that can't be had is left out here, and says why in `/health`. The limits are those of
the adapters; `Thresholds` change them.

";

/// A page in Markdown of every metric and every limit, with the view that each number is read from and the grant that it needs.
#[must_use]
pub fn markdown(catalogues: &[Catalogue]) -> String {
    let mut page = INTRODUCTION.to_owned();
    engine(&mut page);
    for catalogue in catalogues {
        // Writing to a `String` can't fail, here and below.
        let _ = writeln!(page, "\n## {}\n", catalogue.kind);
        measured(&mut page, catalogue);
        if !catalogue.rules.is_empty() {
            page.push_str(
                "\n| finding | axis | of | warning | critical | says | do |\n|---|---|---|---|---|---|---|\n",
            );
            catalogue.rules.iter().for_each(|rule| limits(&mut page, rule));
        }
    }
    page
}

/// What the engine itself exports.
fn engine(page: &mut String) {
    page.push_str("## The engine\n\n| metric | type | labels | what |\n|---|---|---|---|\n");
    for own in engine::ALL {
        let (ending, kind) = match own.kind {
            Type::Counter => ("_total", "counter"),
            Type::Gauge => ("", "gauge"),
            Type::Histogram => ("", "histogram"),
        };
        let _ = writeln!(page, "| `{}{ending}` | {kind} | {} | {} |", own.name, own.labels.join(", "), cell(own.help));
    }
}

fn measured(page: &mut String, catalogue: &Catalogue) {
    page.push_str(
        "| metric | type | measurement | tier | labels | what | source | needs |\n|---|---|---|---|---|---|---|---|\n",
    );
    for metric in catalogue.metrics {
        let Metric { name, tier, labels, help, source, grant, .. } = metric;
        let kind = match metric.kind {
            MeasurementKind::Gauge => "gauge",
            MeasurementKind::Counter => "counter",
        };
        let sample = catalogue.exported(name).sample();
        let grant = grant.map(|grant| format!("`{}`", code(grant))).unwrap_or_default();
        let labels = labels.join(", ");
        let (help, source) = (cell(help), cell(source));
        let _ = writeln!(page, "| `{sample}` | {kind} | `{name}` | {tier} | {labels} | {help} | {source} | {grant} |");
    }
}

fn limits(page: &mut String, rule: &Rule) {
    let side = match rule.side {
        Side::Above => "≥",
        Side::Below => "≤",
    };
    let limit = |limit: Option<f64>| limit.map(|limit| format!("{side} {limit}")).unwrap_or_default();
    let (warning, critical) = (limit(rule.warning), limit(rule.critical));
    let hint = cell(rule.hint.as_deref().unwrap_or_default());
    let (code, axis, metric, message) = (&rule.code, rule.axis.as_str(), &rule.metric, cell(&rule.message));
    let _ = writeln!(page, "| `{code}` | {axis} | `{metric}` | {warning} | {critical} | {message} | {hint} |");
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    code(text).replace('<', "&lt;")
}

/// A text between backticks in a cell of a table.
fn code(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
