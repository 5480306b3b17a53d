//! What a copy did.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::BackupId;
use crate::run::format_bytes;

/// What a copy did, backup by backup, the oldest first. `Display` prints a line for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyReport {
    /// The id of the repository that was read.
    pub source: String,
    /// The id of the one that was written.
    pub target: String,
    /// Each backup that was chosen.
    pub backups: Vec<CopiedBackup>,
}

/// What became of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopiedBackup {
    /// The backup.
    pub backup: BackupId,
    /// Its stack.
    pub stack: String,
    /// What was done.
    pub outcome: CopyOutcome,
}

/// What was done with one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CopyOutcome {
    /// It was copied; every stored byte was checked on its way.
    Copied {
        /// The bytes of artifacts that were copied now.
        copied_bytes: u64,
        /// The bytes of artifacts that an earlier copy had left there, and that were read there and found right.
        found_bytes: u64,
    },
    /// The target has it: its manifest is there, byte for byte.
    AlreadyThere,
    /// The target's retention deleted it before, so it is not brought again.
    Pruned,
    /// It is not at the target, because something is wrong with it.
    Refused {
        /// What is wrong.
        finding: String,
    },
}

impl CopyReport {
    /// Whether everything that was chosen is at the target, but for what was deleted there on purpose.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        !self.backups.iter().any(|backup| matches!(backup.outcome, CopyOutcome::Refused { .. }))
    }

    /// How many bytes of artifacts were copied.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.backups.iter().map(CopiedBackup::copied_bytes).sum()
    }
}

impl CopiedBackup {
    fn copied_bytes(&self) -> u64 {
        match self.outcome {
            CopyOutcome::Copied { copied_bytes, .. } => copied_bytes,
            _ => 0,
        }
    }
}

impl fmt::Display for CopyOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copied { copied_bytes, found_bytes: 0 } => write!(f, "copied  {}", format_bytes(*copied_bytes)),
            Self::Copied { copied_bytes, found_bytes } => {
                let (copied, found) = (format_bytes(*copied_bytes), format_bytes(*found_bytes));
                write!(f, "copied  {copied}, {found} were there")
            }
            Self::AlreadyThere => f.write_str("already there"),
            Self::Pruned => f.write_str("deleted there before"),
            Self::Refused { finding } => write!(f, "NOT COPIED: {finding}"),
        }
    }
}

impl fmt::Display for CopyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "copy from {} to {}", self.source, self.target)?;
        self.backups.iter().try_for_each(|one| writeln!(f, "  {}  {}  {}", one.backup, one.stack, one.outcome))?;
        let refused = self.backups.iter().filter(|one| matches!(one.outcome, CopyOutcome::Refused { .. })).count();
        match refused {
            0 => write!(f, "{} copied", format_bytes(self.copied_bytes())),
            more => write!(f, "{} copied, {more} NOT COPIED", format_bytes(self.copied_bytes())),
        }
    }
}
