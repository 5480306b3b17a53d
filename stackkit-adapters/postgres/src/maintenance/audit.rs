//! Who did what, when, for how long, and what came of it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, ErrorKind, ServiceId};

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
#[non_exhaustive]
pub enum MaintenanceOutcome {
    /// The server did it.
    Done,
    /// The server did not; the table or index is as it was, but for what [`MaintenanceReport::leftovers`] names.
    Failed {
        /// What a caller can act on.
        kind: ErrorKind,
        /// The server's code (SQLSTATE), if it gave one.
        code: Option<String>,
        /// What went wrong, in one line.
        message: String,
    },
    /// It was not begun: the connection was lost before.
    NotBegun,
}

impl MaintenanceOutcome {
    pub(crate) fn of(error: &Error) -> Self {
        Self::Failed { kind: error.kind(), code: error.code().map(str::to_owned), message: error.to_string() }
    }
}

impl fmt::Display for MaintenanceOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed { message, .. } => write!(f, "failed: {message}"),
            Self::NotBegun => f.write_str("not begun"),
        }
    }
}

/// The record of one step. There is no secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MaintenanceAudit {
    /// When it began.
    pub at: Timestamp,
    /// The role that did it.
    pub role: String,
    /// In which database.
    pub database: String,
    /// The statement.
    pub command: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: MaintenanceOutcome,
    /// The size before, in bytes: of a table with its indexes and what it keeps aside.
    pub bytes_before: u64,
    /// The size after, in bytes; nothing if there is nothing any more, or it could not be asked.
    pub bytes_after: Option<u64>,
}

impl MaintenanceAudit {
    /// Writes the record as an event.
    pub(crate) fn trace(&self, service: &ServiceId) {
        let (bytes_before, bytes_after) = (self.bytes_before, self.bytes_after);
        tracing::info!(
            service = service.as_str(), role = self.role, database = self.database, command = self.command,
            duration_ms = self.duration_ms, outcome = %self.outcome, bytes_before, bytes_after, "maintenance"
        );
    }
}

impl fmt::Display for MaintenanceAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {} in {} ms", self.at, self.role, self.command, self.outcome, self.duration_ms)?;
        match self.bytes_after {
            Some(after) => write!(f, ", {} to {after} bytes", self.bytes_before),
            None => Ok(()),
        }
    }
}

/// What a maintenance did. A step that failed is in it, and does not keep the others from being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MaintenanceReport {
    /// The service that was maintained.
    pub service: ServiceId,
    /// One record a step, in order.
    pub steps: Vec<MaintenanceAudit>,
    /// Indexes that are not valid, left by rebuilds that failed: the next plan for their tables drops them.
    pub leftovers: Vec<String>,
}

impl MaintenanceReport {
    /// Whether every step was done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.steps.iter().all(|step| step.outcome == MaintenanceOutcome::Done)
    }
}

impl fmt::Display for MaintenanceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        self.leftovers.iter().try_for_each(|index| writeln!(f, "left over: {index}, which is not valid"))
    }
}
