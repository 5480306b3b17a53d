//! Removes what was found.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use object_store::path::Path;
use stackkit_core::{Error, Result};

use super::{AGE_MIN, COLLECT, GcItem, GcKind, GcPlan, GcReport, Leftover};
use crate::id::BackupId;
use crate::lease::{Lease, PRUNE};
use crate::progress::{Operation, Progress, ProgressEvent, ProgressPhase, Reporter};
use crate::repository::{MANIFEST, Repository, TOMBSTONE, folder_of};
use crate::retention::{Emptied, Purge, finish};
use crate::storage::Deleted;

/// Why a folder is left alone.
const FINISHED: &str = "it has a manifest by now";

/// A collection of garbage that is being prepared: see [`Repository::gc`].
#[must_use = "a collection of garbage removes nothing until it is run"]
pub struct GcRun<'a> {
    repository: &'a Repository,
    plan: GcPlan,
    progress: Reporter,
}

impl fmt::Debug for GcRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcRun")
            .field("repository", &self.repository.id())
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl GcRun<'_> {
    /// Tells each step to `progress`: the bytes of the folders that are removed.
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Reporter::new(Some(progress));
        self
    }

    /// Removes what the plan found.
    ///
    /// # Errors
    /// As [`Repository::apply_gc`].
    ///
    /// # Cancel safety
    /// As [`Repository::apply_gc`].
    pub async fn run(self) -> Result<GcReport> {
        let Self { repository, plan, progress } = self;
        if plan.repository != repository.id() {
            return Err(Error::config("the plan to collect garbage is another repository's")
                .with_context("repository", repository.id())
                .with_context("plan", &plan.repository));
        }
        // A plan that was stored may have been changed: it can't make garbage of a backup that runs.
        let youngest = repository.clock().now().checked_sub(AGE_MIN).unwrap_or(jiff::Timestamp::MIN);
        if plan.older_than > youngest {
            return Err(Error::config("the plan to collect garbage is about the last hour: make it again"));
        }
        progress.started(Operation::Prune);
        progress.phase(ProgressPhase::Preparing, None);
        let lease = Lease::acquire(repository, PRUNE, "collect garbage").await?;
        let report = GcReport::default();
        let collection = Collection { repository, lease: &lease, progress: &progress, report };
        let done = lease.hold(collection.run(&plan).boxed()).await;
        let done = finish(lease, done).await?;
        progress.phase(ProgressPhase::Done, None);
        Ok(done)
    }
}

impl Repository {
    /// Prepares what [`apply_gc`](Self::apply_gc) does; [`GcRun::run`] does it.
    pub fn gc(&self, plan: GcPlan) -> GcRun<'_> {
        GcRun { repository: self, plan, progress: Reporter::default() }
    }

    /// Removes what a plan found, under the lease of a prune. Each folder is judged again before: one that has a manifest
    /// by now is left alone. [`gc`](Self::gc) can tell how far it is.
    ///
    /// # Errors
    /// `Config` if the plan is another repository's; `Busy` if somebody prunes; `Unsupported` if the storage has no means
    /// for a lease; the storage's kinds. A retry goes on where this ended.
    ///
    /// # Cancel safety
    /// Dropping the future ends it between two objects; a later one goes on.
    pub async fn apply_gc(&self, plan: GcPlan) -> Result<GcReport> {
        self.gc(plan).run().await
    }
}

/// A collection that holds its lease.
struct Collection<'a> {
    repository: &'a Repository,
    lease: &'a Lease,
    progress: &'a Reporter,
    report: GcReport,
}

impl Collection<'_> {
    async fn run(mut self, plan: &GcPlan) -> Result<GcReport> {
        let folders = plan.items.iter().filter(|item| item.backup.is_some());
        self.progress.phase(ProgressPhase::Removing, Some(folders.map(|item| item.bytes).fold(0, u64::saturating_add)));
        for item in &plan.items {
            match &item.backup {
                Some((stack, id)) => self.folder(item, plan, stack, *id).await?,
                None => self.object(item).await?,
            }
        }
        self.lease.check().await?;
        self.report.uploads = self.repository.storage().abort_uploads(plan.older_than).await?;
        Ok(self.report)
    }

    fn leave(&mut self, item: &GcItem, why: impl Into<String>) {
        self.report.left.push((item.path.clone(), why.into()));
    }

    async fn folder(&mut self, item: &GcItem, plan: &GcPlan, stack: &str, backup: BackupId) -> Result<()> {
        let (repository, lease) = (self.repository, self.lease);
        let folder = folder_of(stack, &backup);
        if repository.storage().objects(COLLECT, &folder).await?.iter().any(|(path, _)| is_manifest(path)) {
            self.leave(item, FINISHED);
            return Ok(());
        }
        let item = match repository.leftover(stack, backup, plan.older_than).await? {
            Leftover::Garbage(item) => item,
            Leftover::TooYoung => {
                self.leave(item, "it was written to since the plan");
                return Ok(());
            }
        };
        let purge = Purge { repository, lease };
        let emptied = match item.kind {
            GcKind::Unfinished => {
                // A backup that runs longer than anybody thought writes its manifest and then looks for this; this looks
                // for the manifest after. One of them sees the other.
                lease.check().await?;
                repository.claim_unfinished(stack, &backup).await?;
                let objects = repository.storage().objects(COLLECT, &folder).await?;
                if objects.iter().any(|(path, _)| is_manifest(path)) {
                    repository.storage().delete(COLLECT, &folder.join(TOMBSTONE)).await?;
                    self.leave(&item, FINISHED);
                    return Ok(());
                }
                purge.empty_of(&folder, objects).await?
            }
            _ => purge.empty(&folder).await?,
        };
        match emptied {
            Emptied::All { freed_bytes, .. } => {
                // Without the tombstone that was written for it.
                let freed_bytes = freed_bytes.min(item.bytes);
                self.report.freed_bytes = self.report.freed_bytes.saturating_add(freed_bytes);
                self.report.removed.push(item);
                self.progress.tell(|| ProgressEvent::Removed { backup, freed_bytes });
            }
            Emptied::Locked(until) => {
                let until = until.map_or_else(String::new, |until| format!(" until {until}"));
                self.leave(&item, format!("locked by the storage{until}"));
            }
        }
        Ok(())
    }

    async fn object(&mut self, item: &GcItem) -> Result<()> {
        // The path comes from a plan, which may have been stored: nothing but a probe is removed here.
        let path = Path::from(item.path.as_str());
        if item.kind != GcKind::Probe || !path.prefix_matches(&Path::from(super::PROBES)) {
            return Err(Error::config("the plan to collect garbage names what is none").with_context("object", path));
        }
        self.lease.check().await?;
        match self.repository.storage().delete(COLLECT, &path).await? {
            Deleted::Locked { .. } => self.leave(item, "locked by the storage"),
            Deleted::Gone | Deleted::Absent => {
                self.report.freed_bytes = self.report.freed_bytes.saturating_add(item.bytes);
                self.report.removed.push(item.clone());
            }
        }
        Ok(())
    }
}

fn is_manifest(path: &Path) -> bool {
    path.filename() == Some(MANIFEST)
}
