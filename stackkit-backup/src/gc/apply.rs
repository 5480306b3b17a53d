//! Removes what was found.

use futures_util::FutureExt;
use object_store::path::Path;
use stackkit_core::{Error, Result};

use super::{AGE_MIN, COLLECT, GcItem, GcKind, GcPlan, GcReport, Leftover};
use crate::lease::Lease;
use crate::repository::{MANIFEST, Repository, folder_of};
use crate::retention::{Emptied, PRUNE_LEASE, Purge, finish};
use crate::storage::Deleted;

impl Repository {
    /// Removes what a plan found, under the lease of a prune. Each folder is judged again before: one that has a manifest
    /// by now is left alone.
    ///
    /// # Errors
    /// `Config` if the plan is another repository's; `Busy` if somebody prunes; `Unsupported` if the storage has no means
    /// for a lease; the storage's kinds. A retry goes on where this ended.
    ///
    /// # Cancel safety
    /// Dropping the future ends it between two objects; a later one goes on.
    pub async fn apply_gc(&self, plan: GcPlan) -> Result<GcReport> {
        if plan.repository != self.id() {
            return Err(Error::config("the plan to collect garbage is another repository's")
                .with_context("repository", self.id())
                .with_context("plan", &plan.repository));
        }
        // A plan that was stored may have been changed: it can't make garbage of a backup that runs.
        let youngest = self.clock().now().checked_sub(AGE_MIN).unwrap_or(jiff::Timestamp::MIN);
        if plan.older_than > youngest {
            return Err(Error::config("the plan to collect garbage is about the last hour: make it again"));
        }
        let lease = Lease::acquire(self, PRUNE_LEASE, "collect garbage").await?;
        let done = lease.hold(self.collect(&plan, &lease).boxed()).await;
        finish(lease, done).await
    }

    async fn collect(&self, plan: &GcPlan, lease: &Lease) -> Result<GcReport> {
        let mut report = GcReport::default();
        for item in &plan.items {
            match &item.backup {
                Some((stack, id)) => {
                    let folder = folder_of(stack, id);
                    if self.storage().objects(COLLECT, &folder).await?.iter().any(|(path, _)| is_manifest(path)) {
                        report.left.push((item.path.clone(), "it has a manifest by now".to_owned()));
                        continue;
                    }
                    match self.leftover(stack, *id, plan.older_than).await? {
                        Leftover::TooYoung => {
                            report.left.push((item.path.clone(), "it was written to since the plan".to_owned()));
                        }
                        Leftover::Garbage(item) => self.collect_folder(item, &folder, lease, &mut report).await?,
                    }
                }
                None => self.collect_object(item, lease, &mut report).await?,
            }
        }
        lease.check().await?;
        report.uploads = self.storage().abort_uploads(plan.older_than).await?;
        Ok(report)
    }

    async fn collect_folder(&self, item: GcItem, folder: &Path, lease: &Lease, report: &mut GcReport) -> Result<()> {
        match (Purge { repository: self, lease }).empty(folder).await? {
            Emptied::All { freed_bytes, .. } => {
                report.freed_bytes = report.freed_bytes.saturating_add(freed_bytes);
                report.removed.push(item);
            }
            Emptied::Locked(until) => {
                let until = until.map_or_else(String::new, |until| format!(" until {until}"));
                report.left.push((item.path, format!("locked by the storage{until}")));
            }
        }
        Ok(())
    }

    async fn collect_object(&self, item: &GcItem, lease: &Lease, report: &mut GcReport) -> Result<()> {
        // The path comes from a plan, which may have been stored: nothing but a probe is removed here.
        let path = Path::from(item.path.as_str());
        if item.kind != GcKind::Probe || !path.prefix_matches(&Path::from(super::PROBES)) {
            return Err(Error::config("the plan to collect garbage names what is none").with_context("object", path));
        }
        lease.check().await?;
        match self.storage().delete(COLLECT, &path).await? {
            Deleted::Locked { .. } => report.left.push((item.path.clone(), "locked by the storage".to_owned())),
            Deleted::Gone | Deleted::Absent => {
                report.freed_bytes = report.freed_bytes.saturating_add(item.bytes);
                report.removed.push(item.clone());
            }
        }
        Ok(())
    }
}

fn is_manifest(path: &Path) -> bool {
    path.filename() == Some(MANIFEST)
}
