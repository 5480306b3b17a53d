//! What a repository holds, as retention must know it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use stackkit_core::Result;

use super::RetentionPlan;
use super::planner::{Announcement, BackupSummary, Inventory, SummaryState};
use super::policy::Retention;
use crate::id::BackupId;
use crate::manifest::{Manifest, Previous, Status};
use crate::repository::{BackupEntry, EntryState, Repository};

/// A backup, and what stands before it in the chain.
struct Seen {
    summary: BackupSummary,
    prev: Option<Previous>,
}

/// An inventory, and the chain.
pub(super) struct Stock {
    pub(super) inventory: Inventory,
    pub(super) previous: BTreeMap<(String, BackupId), Previous>,
}

impl Repository {
    /// Decides for every backup whether the policy keeps or deletes it, with all reasons. Nothing is changed.
    ///
    /// Where the repository is signed, only backups that a trusted key signed take a place; all others are kept.
    ///
    /// # Errors
    /// `Config` if the policy is empty; the storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn plan_retention(&self, policy: &Retention) -> Result<RetentionPlan> {
        policy.validate()?;
        policy.plan(&self.stock().await?.inventory)
    }

    /// Looks at everything that there is.
    pub(super) async fn stock(&self) -> Result<Stock> {
        let taken_at = self.clock().now();
        let repository = self.clone();
        let seen = self.entries(move |entry| repository.seen(entry)).await?;
        let mut previous = BTreeMap::new();
        let mut backups = Vec::with_capacity(seen.len());
        for Seen { summary, prev } in seen.into_iter().flatten() {
            previous.extend(prev.map(|prev| ((summary.stack.clone(), summary.id), prev)));
            backups.push(summary);
        }
        let mut inventory = Inventory::new(self.id(), taken_at, backups);
        inventory.verified = self.verified(&inventory).await?;
        Ok(Stock { inventory, previous })
    }

    /// A light extract of an entry; `None` if it is no backup.
    fn seen(&self, entry: BackupEntry) -> Option<Seen> {
        let BackupEntry { id, stack, state, signature, manifest_blake3, announcement } = entry;
        let refused = signature.and_then(|state| self.trust().accept(state, self.marker().is_signed()).err());
        let unusable = |message: &str| Seen {
            summary: BackupSummary {
                state: SummaryState::Unusable(message.to_owned()),
                manifest_blake3: None,
                ..BackupSummary::new(id, stack.clone(), String::new())
            },
            prev: None,
        };
        match (state, refused) {
            (EntryState::Incomplete, _) => None,
            (EntryState::Damaged(error), _) => Some(unusable(error.message())),
            (_, Some(refused)) => Some(unusable(refused.message())),
            (EntryState::Ready(manifest) | EntryState::Announced(manifest), None) => {
                let Manifest { started, status, tags, retain_until, .. } = &*manifest;
                let summary = BackupSummary {
                    id,
                    stack: stack.clone(),
                    started: *started,
                    state: match status {
                        Status::Complete => SummaryState::Complete,
                        Status::Partial => SummaryState::Partial,
                    },
                    tags: tags.clone(),
                    retain_until: *retain_until,
                    stored_bytes: manifest.artifacts().map(|(_, artifact)| artifact.stored.bytes).sum(),
                    manifest_blake3,
                    announcement,
                };
                Some(Seen { summary, prev: manifest.prev })
            }
        }
    }

    /// The newest verified backup of each stack, those dated in the future left aside. One whose deletion is announced
    /// counts only if there is no other.
    async fn verified(&self, inventory: &Inventory) -> Result<BTreeSet<BackupId>> {
        let mut stacks: BTreeMap<&str, Vec<&BackupSummary>> = BTreeMap::new();
        for backup in &inventory.backups {
            if backup.state == SummaryState::Complete && backup.started <= inventory.taken_at {
                stacks.entry(&backup.stack).or_default().push(backup);
            }
        }
        let mut evidence = self.evidence_by_backup().await?;
        let mut verified = BTreeSet::new();
        for backups in stacks.values_mut() {
            let announced = |backup: &BackupSummary| matches!(backup.announcement, Announcement::PurgeAfter(_));
            backups.sort_by_key(|backup| (announced(backup), Reverse((backup.started, backup.id))));
            let candidates = backups.iter().map(|backup| (backup.stack.as_str(), backup.id));
            verified.extend(self.first_verified(&mut evidence, candidates).await?);
        }
        Ok(verified)
    }
}
