//! Announces deletions, and does those that were announced.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use stackkit_core::{Error, ErrorKind, Result};

use super::inventory::Stock;
use super::plan::{RetentionAction, RetentionDecision, RetentionPlan};
use super::planner::SummaryState;
use super::purge::Purge;
use super::report::{PruneOutcome, PruneReport};
use super::tombstone::{FoundTombstone, TOMBSTONE_SCHEMA, Tombstone, record_of};
use crate::id::BackupId;
use crate::lease::{Lease, LeaseOptions, PRUNE, restores_of};
use crate::manifest::{Extra, Previous};
use crate::progress::{Operation, ProgressEvent, ProgressPhase, Reporter};
use crate::repository::{Repository, TOMBSTONE, folder_of};
use crate::storage::Deleted;

/// Tombstones that are written at once: enough to hide the latency of a storage in a network.
const CALLS_AT_ONCE: usize = 16;

/// Backups that are deleted at once. Each deletes several objects at once itself.
const PURGES_AT_ONCE: usize = 4;

impl Repository {
    /// Announces the deletions of a plan, and deletes what was announced and whose time of grace has passed. Only one
    /// prune of a repository runs at a time. [`prune`](Self::prune) can tell how far it is.
    ///
    /// The repository is looked at again: a backup is deleted only if the plan and the same policy at this moment delete
    /// it, and its manifest is the one that the plan was made from. All others are left alone, with the reason in the
    /// report; so are the backups of a stack while one of them is being restored, or something into a stack of its name.
    /// Backups that appeared since the plan are no obstacle. What an interrupted prune left is finished.
    ///
    /// A prune that fails or is killed leaves every backup either whole or without a manifest, which is none; a retry
    /// goes on. A plan that is applied twice announces nothing twice.
    ///
    /// # Errors
    /// `Config` if the plan deletes more than half of a stack's backups without [`force`](RetentionPlan::force), if it is
    /// another repository's, or if the repository is signed and there is no key to sign the announcements with; `Integrity` if the plan was changed; `Busy` if somebody else prunes; `Unsupported` if the
    /// storage has no means for a lease; the storage's kinds.
    ///
    /// # Cancel safety
    /// Dropping the future ends the prune between two objects; a later one goes on.
    pub async fn apply_retention(&self, plan: RetentionPlan) -> Result<PruneReport> {
        self.prune(plan).run().await
    }

    pub(super) async fn apply(&self, plan: &RetentionPlan, progress: &Reporter) -> Result<PruneReport> {
        plan.check()?;
        plan.policy.validate()?;
        if plan.repository != self.id() {
            return Err(Error::config("the retention plan is another repository's")
                .with_context("repository", self.id())
                .with_context("plan", &plan.repository));
        }
        self.check_own_signature()?;
        progress.started(Operation::Prune);
        progress.phase(ProgressPhase::Preparing, None);
        let lease = Lease::acquire(self, PRUNE, "prune").await?;
        let prune = Prune { repository: self, lease: &lease, plan, progress };
        let done = lease.hold(prune.run().boxed()).await;
        let done = finish(lease, done).await?;
        progress.phase(ProgressPhase::Done, None);
        Ok(done)
    }

    /// Takes back the announcement that a backup will be deleted: it counts and is listed again. The next prune may
    /// announce it again, unless its policy keeps it; see [`Retention::keep_id`](super::Retention::keep_id).
    ///
    /// # Errors
    /// `NotFound` if there is no such backup, or its deletion is not announced; `Busy` if somebody prunes, or if the
    /// announcement is locked by the storage; the storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: the announcement is taken back, or it is not.
    pub async fn undelete(&self, id: &BackupId) -> Result<()> {
        let lease = Lease::acquire(self, PRUNE, "undelete").await?;
        let done = lease.hold(self.take_back(id, &lease).boxed()).await;
        finish(lease, done).await
    }

    async fn take_back(&self, id: &BackupId, lease: &Lease) -> Result<()> {
        let found = self.find(id).await?;
        let stack = &found.manifest.stack;
        if let FoundTombstone::Nothing = self.tombstone(stack, id).await? {
            return Err(Error::new(ErrorKind::NotFound, "the deletion of the backup is not announced")
                .with_context("backup", id));
        }
        lease.check().await?;
        // The record of an interrupted purge goes first: without it the tombstone still says that the backup may go.
        for object in [record_of(stack, id), found.folder.join(TOMBSTONE)] {
            if let Deleted::Locked { until } = self.storage().delete("undelete a backup", &object).await? {
                let error = Error::new(ErrorKind::Busy, "the announced deletion is locked by the storage")
                    .with_context("object", &object);
                return Err(until.into_iter().fold(error, |error, until| error.with_context("until", until)));
            }
        }
        Ok(())
    }
}

/// Gives a lease back. What was done under it counts, whatever comes of that: a lease that is not given back ends by
/// itself.
pub(crate) async fn finish<T>(lease: Lease, done: Result<T>) -> Result<T> {
    if let Err(error) = lease.release().await {
        tracing::warn!(error = %error.chain(), "a lease was not given back");
    }
    done
}

/// A tombstone and its bytes.
type Announced = (Tombstone, bytes::Bytes);

/// A prune that holds its lease.
struct Prune<'a> {
    repository: &'a Repository,
    lease: &'a Lease,
    plan: &'a RetentionPlan,
    progress: &'a Reporter,
}

impl Prune<'_> {
    async fn run(&self) -> Result<PruneReport> {
        let Stock { inventory, previous } = self.repository.stock().await?;
        let now = self.plan.policy.plan(&inventory)?;
        let fresh: BTreeMap<_, _> =
            now.decisions.iter().map(|decision| ((decision.stack.as_str(), decision.backup), decision)).collect();
        let mut report = PruneReport::default();
        let mut deletions = Vec::new();
        for planned in self.plan.deletions() {
            match refusal(planned, fresh.get(&(planned.stack.as_str(), planned.backup)).copied()) {
                Some(outcome) => report.push(&planned.stack, planned.backup, outcome),
                None => deletions.push(planned),
            }
        }
        self.check_brake(&now, &deletions)?;
        let due = self.announce(&deletions, &previous, &mut report).await?;
        self.progress.phase(ProgressPhase::Removing, self.bytes_of(&due).await?);
        for (stack, tombstones) in due {
            self.purge(&stack, tombstones, &mut report).await?;
        }
        self.finish_interrupted(&mut report).await?;
        Ok(report)
    }

    /// Announces deletions. Returns what was announced long enough ago, by stack.
    async fn announce(
        &self,
        deletions: &[&RetentionDecision],
        previous: &BTreeMap<(String, BackupId), Previous>,
        report: &mut PruneReport,
    ) -> Result<BTreeMap<String, Vec<Announced>>> {
        let drafts = deletions.iter().map(|deletion| {
            let prev = previous.get(&(deletion.stack.clone(), deletion.backup)).cloned();
            self.draft(deletion, prev)
        });
        let announcements = stream::iter(drafts.collect::<Vec<_>>()).map(|draft| async move {
            let found = self.repository.announce(&draft).await?;
            Ok::<_, Error>((draft, found))
        });
        let announced: Vec<_> = announcements.buffered(CALLS_AT_ONCE).try_collect().await?;
        let mut due: BTreeMap<String, Vec<Announced>> = BTreeMap::new();
        for (draft, found) in announced {
            let outcome = match found {
                FoundTombstone::Usable(found, bytes) if found.manifest_blake3 == draft.manifest_blake3 => {
                    let purge_after = found.purge_after;
                    if purge_after <= self.repository.clock().now() {
                        due.entry(draft.stack).or_default().push((*found, bytes));
                        continue;
                    }
                    match *found == draft {
                        true => PruneOutcome::Announced { purge_after },
                        false => PruneOutcome::Pending { purge_after },
                    }
                }
                FoundTombstone::Unusable(reason) => PruneOutcome::Skipped { reason },
                _ => PruneOutcome::Skipped { reason: "its tombstone is about another manifest".to_owned() },
            };
            report.push(&draft.stack, draft.id, outcome);
        }
        Ok(due)
    }

    /// The bytes of all objects of backups, if anybody wants to know.
    async fn bytes_of(&self, due: &BTreeMap<String, Vec<Announced>>) -> Result<Option<u64>> {
        if !self.progress.is_heard() {
            return Ok(None);
        }
        let storage = self.repository.storage();
        let folders = due.values().flatten().map(|(tombstone, _)| folder_of(&tombstone.stack, &tombstone.id));
        let sizes = stream::iter(folders.collect::<Vec<_>>()).map(|folder| async move {
            let objects = storage.objects("measure a backup", &folder).await?;
            Ok::<u64, Error>(objects.iter().map(|(_, bytes)| bytes).sum())
        });
        let sizes: Vec<u64> = sizes.buffer_unordered(CALLS_AT_ONCE).try_collect().await?;
        Ok(Some(sizes.iter().sum()))
    }

    /// Notes what became of a backup that was to be deleted.
    fn purged(&self, report: &mut PruneReport, stack: &str, backup: BackupId, outcome: PruneOutcome) {
        if let PruneOutcome::Purged { freed_bytes, .. } = outcome {
            self.progress.tell(|| ProgressEvent::Removed { backup, freed_bytes });
        }
        report.push(stack, backup, outcome);
    }

    /// The brake, by what the repository holds at this moment.
    fn check_brake(&self, now: &RetentionPlan, deletions: &[&RetentionDecision]) -> Result<()> {
        let deleted: BTreeSet<_> = deletions.iter().map(|decision| (&decision.stack, decision.backup)).collect();
        let mut braked = now.clone();
        for decision in &mut braked.decisions {
            let stays = !deleted.contains(&(&decision.stack, decision.backup));
            decision.action = if stays { RetentionAction::Keep } else { RetentionAction::Delete };
        }
        if self.plan.is_forced() { Ok(()) } else { braked.check_brake() }
    }

    fn draft(&self, decision: &RetentionDecision, prev: Option<Previous>) -> Tombstone {
        let now = self.repository.clock().now();
        Tombstone {
            schema: TOMBSTONE_SCHEMA.to_owned(),
            repository: self.repository.id().to_owned(),
            stack: decision.stack.clone(),
            id: decision.backup,
            manifest_blake3: decision.manifest_blake3.clone().unwrap_or_default(),
            prev,
            announced: now,
            purge_after: now.checked_add(self.plan.policy.grace()).unwrap_or(jiff::Timestamp::MAX),
            reasons: decision.reasons.iter().map(ToString::to_string).collect(),
            stackkit_version: env!("CARGO_PKG_VERSION").to_owned(),
            extra: Extra::new(),
        }
    }

    /// Deletes backups of one stack, unless it is being restored.
    async fn purge(&self, stack: &str, tombstones: Vec<Announced>, report: &mut PruneReport) -> Result<()> {
        // A restore, or a prune, that was killed must not keep the stack's backups for ever.
        let options = LeaseOptions::default().only_from_the_dead();
        let restores = match Lease::acquire_with(self.repository, &restores_of(stack), "prune", &options).await {
            Ok(lease) => lease,
            Err(error) if error.kind() == ErrorKind::Busy => {
                for (tombstone, _) in tombstones {
                    let reason = format!("the stack is being restored: {error}");
                    report.push(stack, tombstone.id, PruneOutcome::Skipped { reason });
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let purge = Purge { repository: self.repository, lease: self.lease };
        let purges = stream::iter(tombstones).map(|(tombstone, bytes)| {
            let purge = &purge;
            async move {
                let outcome =
                    purge.backup(&tombstone, bytes).await.map_err(|e| e.with_context("backup", tombstone.id))?;
                Ok::<_, Error>((tombstone.id, outcome))
            }
        });
        let purges = purges.buffered(PURGES_AT_ONCE).try_for_each(|(id, outcome)| {
            self.purged(report, stack, id, outcome);
            std::future::ready(Ok(()))
        });
        let done = restores.hold(purges.boxed()).await;
        finish(restores, done).await
    }

    /// Deletes what is left of backups whose manifest an interrupted prune deleted. The record of the deletion proves
    /// that there was one: a backup that runs has no manifest either.
    async fn finish_interrupted(&self, report: &mut PruneReport) -> Result<()> {
        let purge = Purge { repository: self.repository, lease: self.lease };
        for (stack, id) in self.repository.half_purged().await? {
            let outcome = purge.rest(&stack, &id).await.map_err(|e| e.with_context("backup", id))?;
            self.purged(report, &stack, id, outcome);
        }
        Ok(())
    }
}

impl Repository {
    /// Folders without a manifest whose backup was being deleted.
    pub(crate) async fn half_purged(&self) -> Result<Vec<(String, BackupId)>> {
        let mut found = Vec::new();
        for spot in self.spots().await?.into_iter().filter(|spot| spot.manifest.is_none()) {
            if self.is_recorded_as_pruned(&spot.stack, &spot.id).await? {
                found.push((spot.stack, spot.id));
            }
        }
        Ok(found)
    }
}

/// Why a deletion of the plan is not one any more.
fn refusal(planned: &RetentionDecision, now: Option<&RetentionDecision>) -> Option<PruneOutcome> {
    let Some(now) = now else { return Some(PruneOutcome::Gone) };
    let skipped = |reason: String| Some(PruneOutcome::Skipped { reason });
    if matches!(now.state, SummaryState::Unusable(_)) || now.manifest_blake3 != planned.manifest_blake3 {
        return skipped("its manifest is not the one that the plan was made from".to_owned());
    }
    match now.action {
        RetentionAction::Delete => None,
        RetentionAction::Keep => {
            let reasons: Vec<_> = now.reasons.iter().map(ToString::to_string).collect();
            skipped(format!("it is kept by now: {}", reasons.join(", ")))
        }
    }
}
