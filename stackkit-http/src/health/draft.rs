//! `application/health+json`, draft-inadarei-api-health-check-06: `pass`, `warn` and `fail`, and checks by
//! `component:measurement`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use stackkit_core::health::{Measurement, ServiceReport, Severity, Status};
use stackkit_core::{Report, ServiceId};

use crate::options::Access;
use crate::text::reason;

#[derive(Serialize)]
struct Draft<'a> {
    status: &'static str,
    #[serde(rename = "serviceId")]
    service_id: &'a str,
    checks: BTreeMap<String, Vec<Check<'a>>>,
}

/// One entry; a service has one under its own name, and one for each number under `service:number`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Check<'a> {
    component_id: &'a ServiceId,
    component_type: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    /// What is wrong; the draft leaves it out of what passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    /// What tells several values of one measurement apart; the draft allows fields of one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a BTreeMap<String, String>>,
}

pub(super) fn all(report: &Report, access: Access) -> serde_json::Result<Vec<u8>> {
    let mut checks = BTreeMap::new();
    for service in &report.services {
        checks.insert(service.id.to_string(), vec![component(service, access)]);
        if access.is_operator() {
            measured(service, &mut checks);
        }
    }
    serde_json::to_vec(&Draft { status: word(super::overall(report)), service_id: &report.stack, checks })
}

fn component(service: &ServiceReport, access: Access) -> Check<'_> {
    let status = word(service.status);
    let mut check = bare(service, status);
    if access.is_operator() {
        check.time = service.checked_at;
        check.output = (status != PASS).then(|| reason(service));
    }
    check
}

/// The latency, and each measurement that has a number.
fn measured<'a>(service: &'a ServiceReport, checks: &mut BTreeMap<String, Vec<Check<'a>>>) {
    if let Some(latency_ms) = service.latency_ms {
        let check = Check {
            observed_value: Some(latency_ms),
            observed_unit: Some("ms"),
            time: service.checked_at,
            ..bare(service, word(service.axes.reach))
        };
        checks.insert(format!("{}:responseTime", service.id), vec![check]);
    }
    for measurement in service.observation.iter().flat_map(|seen| &seen.measurements) {
        let Some(value) = measurement.number() else { continue };
        let (status, output) = judged(service, measurement, value);
        let check = Check {
            observed_value: Some(value),
            observed_unit: Some(&measurement.unit),
            output,
            labels: Some(&measurement.labels).filter(|labels| !labels.is_empty()),
            ..bare(service, status)
        };
        checks.entry(format!("{}:{}", service.id, measurement.name)).or_default().push(check);
    }
}

/// What the rules found in one measurement.
fn judged(service: &ServiceReport, measurement: &Measurement, value: f64) -> (&'static str, Option<String>) {
    let about = |name: &str, found: Option<f64>| name == measurement.name && found == Some(value);
    let found = service.exceeded.iter().filter(|found| found.metric.as_deref().is_some_and(|m| about(m, found.value)));
    match found.max_by_key(|found| found.severity) {
        None => (PASS, None),
        Some(found) if found.severity == Severity::Info => (PASS, None),
        Some(found) if found.severity == Severity::Warning => (WARN, Some(found.message.clone())),
        Some(found) => (FAIL, Some(found.message.clone())),
    }
}

fn bare<'a>(service: &'a ServiceReport, status: &'static str) -> Check<'a> {
    Check {
        component_id: &service.id,
        component_type: component_type(service.kind),
        status,
        observed_value: None,
        observed_unit: None,
        time: None,
        output: None,
        labels: None,
    }
}

/// The draft's three words for what a component is.
fn component_type(kind: &str) -> &'static str {
    match kind {
        _ if super::is_datastore(kind) => "datastore",
        "volume" | "disk" | "process" => "system",
        _ => "component",
    }
}

const PASS: &str = "pass";
const WARN: &str = "warn";
const FAIL: &str = "fail";

fn word(status: Status) -> &'static str {
    match status {
        Status::Healthy => PASS,
        Status::Degraded => WARN,
        Status::Unknown | Status::Unhealthy => FAIL,
    }
}
