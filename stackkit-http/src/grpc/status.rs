//! From a report to the protocol's words.

use std::collections::BTreeMap;

use stackkit_core::Report;
use stackkit_core::health::{LIVE, READY, STARTUP, ServiceReport, Status};

use super::message::ServingStatus;

/// The stack's own name.
const STACK: &str = "";

/// How a name is; `None` if nothing is called so.
pub(super) fn of(report: &Report, name: &str) -> Option<ServingStatus> {
    if name == STACK {
        return Some(serving(report.ready));
    }
    let group = || report.group(name).map(|group| passing(report, &group.name, group.passing));
    report.service(name).map(|it| service(report, it)).or_else(group)
}

/// All names. A service goes before a group of the same name.
pub(super) fn all(report: &Report) -> BTreeMap<String, ServingStatus> {
    let mut statuses = BTreeMap::from([(STACK.to_owned(), serving(report.ready))]);
    for group in &report.groups {
        statuses.insert(group.name.to_string(), passing(report, &group.name, group.passing));
    }
    for it in &report.services {
        statuses.insert(it.id.to_string(), service(report, it));
    }
    statuses
}

fn serving(serves: bool) -> ServingStatus {
    if serves { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn passing(report: &Report, group: &str, passing: bool) -> ServingStatus {
    match group {
        LIVE | STARTUP => serving(passing),
        READY => serving(report.ready),
        _ => serving(passing && !report.draining),
    }
}

fn service(report: &Report, service: &ServiceReport) -> ServingStatus {
    match service.status {
        _ if report.draining => ServingStatus::NotServing,
        Status::Healthy | Status::Degraded => ServingStatus::Serving,
        Status::Unhealthy => ServingStatus::NotServing,
        Status::Unknown => ServingStatus::Unknown,
    }
}
