//! The form of Spring Boot's actuator, for those who come from it.

use std::collections::BTreeMap;

use serde::Serialize;
use stackkit_core::health::{ServiceReport, Status};
use stackkit_core::{Criticality, Report};

use crate::options::Access;
use crate::text::reason;

#[derive(Serialize)]
struct Spring<'a> {
    status: &'static str,
    groups: Vec<&'a str>,
    components: BTreeMap<&'a str, Component<'a>>,
}

#[derive(Serialize)]
struct Component<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    kind: &'a str,
    endpoint: &'a str,
    criticality: Criticality,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a BTreeMap<String, String>>,
}

pub(super) fn all(report: &Report, access: Access) -> serde_json::Result<Vec<u8>> {
    let status = match report.draining {
        true => "OUT_OF_SERVICE",
        false => word(super::overall(report)),
    };
    let components = report.services.iter().map(|service| {
        let details = access.is_operator().then(|| details(service));
        (service.id.as_str(), Component { status: word(service.status), details })
    });
    let groups = report.groups.iter().map(|group| group.name.as_ref()).collect();
    serde_json::to_vec(&Spring { status, groups, components: components.collect() })
}

fn details(service: &ServiceReport) -> Details<'_> {
    Details {
        kind: service.kind,
        endpoint: &service.endpoint,
        criticality: service.criticality,
        latency_ms: service.latency_ms,
        reason: (service.status != Status::Healthy).then(|| reason(service)),
        info: service.observation.as_ref().map(|seen| &seen.info).filter(|info| !info.is_empty()),
    }
}

/// Spring knows no degraded service: one that serves is up.
fn word(status: Status) -> &'static str {
    match status {
        Status::Healthy | Status::Degraded => "UP",
        Status::Unhealthy => "DOWN",
        Status::Unknown => "UNKNOWN",
    }
}
