//! `/health` in its forms. All of them tell the same report.

mod draft;
mod native;
mod simple;
mod spring;

use stackkit_core::Report;
use stackkit_core::health::Status;

use crate::options::Access;

pub use native::HEALTH_SCHEMA;
pub(crate) use native::one;

/// A form of `/health`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `stackkit.health/1`.
    Native,
    /// `application/health+json`: draft-inadarei-api-health-check-06.
    Draft,
    /// `{"status":"healthy","databases":{"postgresql":"connected"}}`.
    Simple,
    /// What Spring Boot's actuator answers with.
    Spring,
}

impl Form {
    /// All of them; the first is the one of a request that asks for none.
    pub(crate) const ALL: [Self; 4] = [Self::Native, Self::Draft, Self::Simple, Self::Spring];

    /// What a request's `Accept` calls them, in the order of [`Form::ALL`].
    pub(crate) const ACCEPTED: [&str; 4] = [
        "application/json",
        "application/health+json",
        "application/vnd.stackkit.simple+json",
        "application/vnd.spring-boot.actuator.v3+json",
    ];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Native => 0,
            Self::Draft => 1,
            Self::Simple => 2,
            Self::Spring => 3,
        }
    }

    /// The form in a word, for tags and paths.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Native => "json",
            Self::Draft => "draft",
            Self::Simple => "simple",
            Self::Spring => "spring",
        }
    }

    /// The media type of the answer.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Native | Self::Simple => "application/json",
            Self::Draft => "application/health+json",
            Self::Spring => "application/vnd.spring-boot.actuator.v3+json",
        }
    }

    /// The report in this form.
    pub(crate) fn render(self, report: &Report, access: Access) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Native => native::all(report, access),
            Self::Draft => draft::all(report, access),
            Self::Simple => simple::all(report),
            Self::Spring => spring::all(report, access),
        }
    }
}

/// How the stack is, in the words of forms that know of no readiness beside the status: a stack that gets no requests is
/// unhealthy, and one that may get them is degraded at worst.
fn overall(report: &Report) -> Status {
    match report.ready {
        true => report.status.min(Status::Degraded),
        false => Status::Unhealthy,
    }
}

/// Whether services of this kind hold an application's data, as databases do.
fn is_datastore(kind: &str) -> bool {
    matches!(kind, "postgresql" | "redis" | "valkey" | "mongodb" | "neo4j" | "rabbitmq" | "mysql" | "mariadb" | "s3")
}
