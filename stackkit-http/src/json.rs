//! `/health`: the native JSON view of a report.

use jiff::Timestamp;
use serde::Serialize;
use stackkit_core::health::Status;
use stackkit_core::{Report, ServiceId};

/// The name and version of the JSON that `/health` answers with. Fields are added under this name, never changed or
/// removed.
pub const HEALTH_SCHEMA: &str = "stackkit.health/1";

/// What anybody may see.
#[derive(Serialize)]
struct Brief<'a> {
    schema: &'static str,
    stack: &'a str,
    generated_at: Timestamp,
    status: Status,
    ready: bool,
    services: Vec<BriefService<'a>>,
}

#[derive(Serialize)]
struct BriefService<'a> {
    id: &'a ServiceId,
    status: Status,
}

/// Everything; the fields of [`Brief`] and more.
#[derive(Serialize)]
struct Full<'a> {
    schema: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

/// Statuses without details.
pub(crate) fn brief(report: &Report) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Brief {
        schema: HEALTH_SCHEMA,
        stack: &report.stack,
        generated_at: report.generated_at,
        status: report.status,
        ready: report.ready,
        services: report
            .services
            .iter()
            .map(|service| BriefService { id: &service.id, status: service.status })
            .collect(),
    })
}

/// The whole report.
pub(crate) fn full(report: &Report) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Full { schema: HEALTH_SCHEMA, report })
}
