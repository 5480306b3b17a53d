//! The form for dashboards that want one word a database: `{"status":"healthy","databases":{"postgresql":"connected"}}`.

use std::collections::BTreeMap;

use serde::Serialize;
use stackkit_core::Report;
use stackkit_core::health::{ServiceReport, Status};

#[derive(Serialize)]
struct Simple<'a> {
    status: Status,
    /// By the service's id.
    databases: BTreeMap<&'a str, &'static str>,
    /// What is no database.
    services: BTreeMap<&'a str, Status>,
}

pub(super) fn all(report: &Report) -> serde_json::Result<Vec<u8>> {
    let (databases, services): (Vec<&ServiceReport>, Vec<_>) =
        report.services.iter().map(AsRef::as_ref).partition(|service| super::is_datastore(service.kind));
    serde_json::to_vec(&Simple {
        status: super::overall(report),
        databases: databases.into_iter().map(|service| (service.id.as_str(), connection(service))).collect(),
        services: services.into_iter().map(|service| (service.id.as_str(), service.status)).collect(),
    })
}

/// Whether a database answers, whatever else is to be said of it.
fn connection(service: &ServiceReport) -> &'static str {
    match (service.status, service.axes.reach) {
        (Status::Unknown, _) | (_, Status::Unknown) => "unknown",
        (_, Status::Unhealthy) => "disconnected",
        _ => "connected",
    }
}
