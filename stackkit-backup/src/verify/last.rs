//! What is newest of a stack: backup, verify, drill.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use object_store::path::Path;
use stackkit_core::Result;

use super::{Evidence, VerifyLevel};
use crate::id::BackupId;
use crate::repository::{BackupEntry, EntryState, Repository};

/// How far the clocks of two machines may be apart. A backup that is dated further in the future would hide that no
/// others are made.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Backups with evidence that are looked at for the last verify and drill. Verifies that begin with the newest backup
/// need one; more are for those that take turns.
const VERIFIED_LOOKED_AT: usize = 64;

/// What is newest of a stack.
#[derive(Debug, Clone)]
pub(crate) struct Last {
    /// The newest complete backup.
    pub(crate) backup: Option<Kept>,
    /// The stored bytes of the complete one before it.
    pub(crate) bytes_before: Option<u64>,
    /// How many complete backups there are.
    pub(crate) complete: u64,
    /// How many manifests can't be used.
    pub(crate) damaged: u64,
    /// When some backup was last found whole, at the level content or drill.
    pub(crate) verified: Option<Timestamp>,
    /// The same at the level drill.
    pub(crate) drilled: Option<Timestamp>,
    /// Whether the evidence of the newest backup tells of damage.
    pub(crate) verify_failed: bool,
}

/// A complete backup.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) id: BackupId,
    pub(crate) started: Timestamp,
    pub(crate) stored_bytes: u64,
    manifest_blake3: String,
}

/// What is taken out of an entry.
enum Row {
    Complete(Kept),
    Damaged,
    Other,
}

fn row(entry: BackupEntry) -> Row {
    match (entry.is_complete(), entry.state, entry.manifest_blake3) {
        (_, EntryState::Damaged(_), _) => Row::Damaged,
        (true, EntryState::Ready(manifest), Some(manifest_blake3)) => {
            let stored_bytes = manifest.artifacts().map(|(_, artifact)| artifact.stored.bytes).sum();
            Row::Complete(Kept { id: entry.id, started: manifest.started, stored_bytes, manifest_blake3 })
        }
        _ => Row::Other,
    }
}

impl Repository {
    /// Lists the backups of a stack, and reads their evidence.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn last(&self, stack: &str, now: Timestamp) -> Result<Last> {
        let (mut kept, mut damaged) = (Vec::new(), 0);
        for row in self.entries_of(stack, row).await? {
            match row {
                Row::Complete(backup) if backup.started <= now + CLOCK_SKEW => kept.push(backup),
                Row::Damaged => damaged += 1,
                _ => {}
            }
        }
        kept.sort_unstable_by_key(|backup| std::cmp::Reverse((backup.started, backup.id)));
        let mut last = Last {
            backup: kept.first().cloned(),
            bytes_before: kept.get(1).map(|before| before.stored_bytes),
            complete: kept.len() as u64,
            damaged,
            verified: None,
            drilled: None,
            verify_failed: false,
        };
        self.add_evidence(&mut last, stack, &kept, now + CLOCK_SKEW).await?;
        Ok(last)
    }

    async fn add_evidence(&self, last: &mut Last, stack: &str, kept: &[Kept], until: Timestamp) -> Result<()> {
        let mut paths: BTreeMap<BackupId, Vec<Path>> = self.evidence_by_backup().await?;
        let mut looked_at = 0;
        for (place, backup) in kept.iter().enumerate() {
            let Some(paths) = paths.remove(&backup.id) else { continue };
            let mut evidence = self.evidence_of(stack, &backup.id, &backup.manifest_blake3, paths).await?;
            // A clock that was wrong must not vouch for years, nor hide what is found until then.
            evidence.retain(|one| !one.ok || one.finished <= until);
            if place == 0 {
                last.verify_failed = Evidence::tells_of_damage(&evidence);
            }
            last.verified = last.verified.max(Evidence::whole_since(&evidence, VerifyLevel::Content));
            last.drilled = last.drilled.max(Evidence::whole_since(&evidence, VerifyLevel::Drill));
            looked_at += 1;
            if looked_at == VERIFIED_LOOKED_AT {
                break;
            }
        }
        Ok(())
    }
}
