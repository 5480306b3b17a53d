//! What a prune did.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::BackupId;
use crate::run::format_bytes;

/// What a prune did with one backup that its plan deletes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PruneOutcome {
    /// Its deletion is announced. Until then it can be had back by [`undelete`](crate::Repository::undelete).
    Announced {
        /// When it may be deleted.
        purge_after: Timestamp,
    },
    /// Its deletion was announced before, and the time of grace has not passed.
    Pending {
        /// When it may be deleted.
        purge_after: Timestamp,
    },
    /// It is deleted.
    Purged {
        /// The bytes that are free again, by a listing before and one after.
        freed_bytes: u64,
        /// The bytes that the bucket keeps as old versions.
        kept_bytes: u64,
    },
    /// The storage keeps it from being deleted; a later prune deletes it.
    Retained {
        /// Until when, as far as it is known.
        until: Option<Timestamp>,
    },
    /// It was left alone.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It was gone already.
    Gone,
}

impl fmt::Display for PruneOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Announced { purge_after } => write!(f, "announced, to be purged after {purge_after}"),
            Self::Pending { purge_after } => write!(f, "announced before, to be purged after {purge_after}"),
            Self::Purged { freed_bytes, kept_bytes: 0 } => write!(f, "purged, {} freed", format_bytes(*freed_bytes)),
            Self::Purged { freed_bytes, kept_bytes } => {
                let (freed, kept) = (format_bytes(*freed_bytes), format_bytes(*kept_bytes));
                write!(f, "purged, {freed} freed, {kept} kept by the bucket as old versions")
            }
            Self::Retained { until: Some(until) } => write!(f, "locked by the storage until {until}"),
            Self::Retained { until: None } => f.write_str("locked by the storage"),
            Self::Skipped { reason } => write!(f, "left alone: {reason}"),
            Self::Gone => f.write_str("gone already"),
        }
    }
}

/// What a prune did with one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PruneResult {
    /// The backup.
    pub backup: BackupId,
    /// Its stack.
    pub stack: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: PruneOutcome,
}

/// What a prune did. `Display` prints a line for each backup that the plan deletes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PruneReport {
    /// Each backup that the plan deletes, in the plan's order; then those whose deletion an interrupted prune had begun.
    pub backups: Vec<PruneResult>,
}

impl PruneReport {
    /// The bytes that are free again.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        let freed = self.backups.iter().map(|result| match result.outcome {
            PruneOutcome::Purged { freed_bytes, .. } => freed_bytes,
            _ => 0,
        });
        freed.sum()
    }

    pub(super) fn push(&mut self, stack: &str, backup: BackupId, outcome: PruneOutcome) {
        self.backups.push(PruneResult { backup, stack: stack.to_owned(), outcome });
    }
}

impl fmt::Display for PruneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for result in &self.backups {
            writeln!(f, "{}  {}  {}", result.backup, result.stack, result.outcome)?;
        }
        write!(f, "{} freed", format_bytes(self.freed_bytes()))
    }
}
