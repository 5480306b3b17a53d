//! The native form: everything, in the words of the report itself.

use jiff::Timestamp;
use serde::Serialize;
use stackkit_core::health::{ServiceReport, Status};
use stackkit_core::{Report, ServiceId};

use crate::options::Access;

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
    draining: bool,
    groups: Vec<BriefGroup<'a>>,
    services: Vec<BriefService<'a>>,
}

#[derive(Serialize)]
struct BriefGroup<'a> {
    name: &'a str,
    passing: bool,
    status: Status,
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

/// One service, in short or whole.
#[derive(Serialize)]
struct One<T: Serialize> {
    schema: &'static str,
    #[serde(flatten)]
    service: T,
}

/// The whole report, or its statuses.
pub(super) fn all(report: &Report, access: Access) -> serde_json::Result<Vec<u8>> {
    match access {
        Access::Operator => serde_json::to_vec(&Full { schema: HEALTH_SCHEMA, report }),
        Access::Public => serde_json::to_vec(&brief(report)),
    }
}

/// One service alone.
pub(crate) fn one(service: &ServiceReport, access: Access) -> serde_json::Result<Vec<u8>> {
    match access {
        Access::Operator => serde_json::to_vec(&One { schema: HEALTH_SCHEMA, service }),
        Access::Public => serde_json::to_vec(&One { schema: HEALTH_SCHEMA, service: brief_service(service) }),
    }
}

fn brief(report: &Report) -> Brief<'_> {
    let groups = report.groups.iter();
    Brief {
        schema: HEALTH_SCHEMA,
        stack: &report.stack,
        generated_at: report.generated_at,
        status: report.status,
        ready: report.ready,
        draining: report.draining,
        groups: groups.map(|it| BriefGroup { name: &it.name, passing: it.passing, status: it.status }).collect(),
        services: report.services.iter().map(|service| brief_service(service)).collect(),
    }
}

fn brief_service(service: &ServiceReport) -> BriefService<'_> {
    BriefService { id: &service.id, status: service.status }
}
