//! What a restore would do.

use std::fmt;

use serde::{Deserialize, Serialize};
use stackkit_core::backup::RestorePlan;

use crate::id::BackupId;

/// What a restore of a backup into a stack would do: plain data that can be shown, stored and applied later.
///
/// It is tied to the bytes of the backup's manifest and, through each service's plan, to the state of each target. If
/// either changed since, it is refused. Only [`Repository::plan_restore`](crate::Repository::plan_restore) makes one:
///
/// ```compile_fail,E0639
/// # fn made_up(backup: stackkit_backup::BackupId) -> stackkit_backup::StackRestorePlan {
/// let (stack, manifest_blake3) = (String::new(), String::new());
/// stackkit_backup::StackRestorePlan { backup, stack, manifest_blake3, services: Vec::new(), skipped: Vec::new() }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StackRestorePlan {
    /// The backup.
    pub backup: BackupId,
    /// The name of the stack that the backup is of.
    pub stack: String,
    /// The BLAKE3 of the manifest that the plan was made from, 64 hex digits.
    pub manifest_blake3: String,
    /// A plan for each service, in the order in which they are restored.
    pub services: Vec<RestorePlan>,
    /// What is in the backup and is not restored, each with the reason.
    pub skipped: Vec<String>,
}

impl StackRestorePlan {
    /// Whether data that exists is replaced, moved or removed.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        self.services.iter().any(RestorePlan::is_destructive)
    }
}

impl fmt::Display for StackRestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "restore of backup {} of {}", self.backup, self.stack)?;
        self.services.iter().try_for_each(|plan| write!(f, "{plan}"))?;
        self.skipped.iter().try_for_each(|skipped| writeln!(f, "not restored: {skipped}"))?;
        f.write_str(match self.is_destructive() {
            true => "data that exists is replaced",
            false => "no data that exists is touched",
        })
    }
}
