//! The deletion of one backup, in an order in which no moment is a lie.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind, Result};

use super::report::PruneOutcome;
use super::tombstone::{FoundTombstone, Tombstone, record_of};
use crate::id::BackupId;
use crate::lease::Lease;
use crate::repository::{MANIFEST, Repository, TOMBSTONE, folder_of};
use crate::storage::{Deleted, DeletedBytes};

/// Objects that are deleted between two looks at the lease. Few, so that a holder that lost it stops soon.
const DELETE_BATCH: usize = 64;

/// Objects that are deleted or asked about at once: enough to hide the latency of a storage in a network.
const CALLS_AT_ONCE: usize = 16;

const PURGE: &str = "purge a backup";

/// Deletes under a lease.
pub(crate) struct Purge<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) lease: &'a Lease,
}

/// What became of the objects of a folder.
pub(crate) enum Emptied {
    /// They are gone.
    All { freed_bytes: u64, kept_bytes: u64 },
    /// The storage keeps at least one.
    Locked(Option<Timestamp>),
}

impl Emptied {
    fn outcome(self) -> PruneOutcome {
        match self {
            Self::All { freed_bytes, kept_bytes } => PruneOutcome::Purged { freed_bytes, kept_bytes },
            Self::Locked(until) => PruneOutcome::Retained { until },
        }
    }
}

impl Purge<'_> {
    /// Deletes a backup whose tombstone is `tombstone`. It is recorded under `pruned/` first; then the manifest goes, and
    /// with it the backup; then everything else, the tombstone last, so that whatever is left is known as garbage.
    ///
    /// # Errors
    /// `Busy` or `Cancelled` if the lease was lost; the storage's kinds. A retry goes on where this ended.
    pub(super) async fn backup(&self, tombstone: &Tombstone, bytes: bytes::Bytes) -> Result<PruneOutcome> {
        let folder = folder_of(&tombstone.stack, &tombstone.id);
        if let Some(until) = self.locked_until(&folder).await? {
            return Ok(PruneOutcome::Retained { until: Some(until) });
        }
        self.record(tombstone, bytes).await?;
        let manifest = folder.clone().join(MANIFEST);
        let manifest_bytes = self.repository.storage().size_bytes(PURGE, &manifest).await;
        self.lease.check().await?;
        if let Deleted::Locked { until } = self.repository.storage().delete(PURGE, &manifest).await? {
            return Ok(PruneOutcome::Retained { until });
        }
        let mut emptied = self.empty(&folder).await?;
        if let (Emptied::All { freed_bytes, kept_bytes }, Ok(size)) = (&mut emptied, manifest_bytes) {
            let counted = if *kept_bytes > 0 { kept_bytes } else { freed_bytes };
            *counted = counted.saturating_add(size);
        }
        Ok(emptied.outcome())
    }

    /// Goes on with a deletion that was interrupted after the manifest went.
    ///
    /// # Errors
    /// As [`backup`](Self::backup).
    pub(super) async fn rest(&self, stack: &str, id: &BackupId) -> Result<PruneOutcome> {
        Ok(self.empty(&folder_of(stack, id)).await?.outcome())
    }

    /// Removes every object of a folder that has no manifest, the tombstone last, and the directory. What is left is
    /// what a listing shows afterwards.
    ///
    /// # Errors
    /// `Integrity` if there is a manifest; `Busy` or `Cancelled` if the lease was lost; the storage's kinds.
    pub(crate) async fn empty(&self, folder: &Path) -> Result<Emptied> {
        let storage = self.repository.storage();
        let manifest = folder.clone().join(MANIFEST);
        let before = storage.objects(PURGE, folder).await?;
        if before.iter().any(|(path, _)| *path == manifest) {
            return Err(Error::integrity("a folder that was to be emptied has a manifest again")
                .with_operation(PURGE)
                .with_context("object", &manifest));
        }
        self.empty_of(folder, before).await
    }

    /// As [`empty`](Self::empty), of objects that were listed when it was said that they will go.
    ///
    /// # Errors
    /// As [`empty`](Self::empty).
    pub(crate) async fn empty_of(&self, folder: &Path, before: Vec<(Path, u64)>) -> Result<Emptied> {
        let storage = self.repository.storage();
        let (manifest, tombstone) = (folder.clone().join(MANIFEST), folder.clone().join(TOMBSTONE));
        let paths: Vec<_> = before.iter().map(|(path, _)| path.clone()).filter(|path| *path != tombstone).collect();
        for batch in paths.chunks(DELETE_BATCH) {
            self.lease.check().await?;
            let deletions = stream::iter(batch.to_vec()).map(|path| async move { storage.delete(PURGE, &path).await });
            let deleted: Vec<_> = deletions.buffer_unordered(CALLS_AT_ONCE).try_collect().await?;
            let locked = deleted.into_iter().find_map(|deleted| match deleted {
                Deleted::Locked { until } => Some(until),
                _ => None,
            });
            if let Some(until) = locked {
                return Ok(Emptied::Locked(until));
            }
        }
        self.lease.check().await?;
        if let Deleted::Locked { until } = storage.delete(PURGE, &tombstone).await? {
            return Ok(Emptied::Locked(until));
        }
        let total: u64 = before.iter().map(|(_, bytes)| bytes).sum();
        let mut left = storage.objects(PURGE, folder).await?;
        if left.iter().any(|(path, _)| *path == manifest) {
            // A backup that was taken for garbage wrote it, without seeing the tombstone or what became of its artifacts.
            if let Deleted::Locked { until } = storage.delete(PURGE, &manifest).await? {
                return Ok(Emptied::Locked(until));
            }
            left.retain(|(path, _)| *path != manifest);
        }
        if left.is_empty() && storage.root().is_some() {
            storage.remove_all(folder).await?;
        }
        let gone = total.saturating_sub(left.iter().map(|(_, bytes)| bytes).sum());
        Ok(match storage.deleted_bytes().await? {
            DeletedBytes::Freed => Emptied::All { freed_bytes: gone, kept_bytes: 0 },
            DeletedBytes::KeptAsVersions => Emptied::All { freed_bytes: 0, kept_bytes: gone },
        })
    }

    /// Until when the storage keeps any object of a folder from being deleted. Asked before anything is deleted, so that
    /// a backup that can't go stays whole.
    async fn locked_until(&self, folder: &Path) -> Result<Option<Timestamp>> {
        if !self.repository.marker().capabilities().object_lock {
            return Ok(None);
        }
        let storage = self.repository.storage();
        let objects = storage.objects(PURGE, folder).await?;
        let asked = stream::iter(objects).map(|(path, _)| async move { storage.locked_until(PURGE, &path).await });
        let locks: Vec<_> = asked.buffer_unordered(CALLS_AT_ONCE).try_collect().await?;
        let now = self.repository.clock().now();
        Ok(locks.into_iter().flatten().filter(|until| *until > now).max())
    }

    /// Writes the record that the backup is being deleted. One that is there already must be about the same manifest.
    async fn record(&self, tombstone: &Tombstone, bytes: bytes::Bytes) -> Result<()> {
        let Tombstone { stack, id, manifest_blake3, .. } = tombstone;
        let path = record_of(stack, id);
        let storage = self.repository.storage();
        let written = storage.create("record a deletion", &path, bytes).await;
        match (self.repository.read_tombstone(&path, stack, id).await?, written) {
            (FoundTombstone::Usable(record, _), _) if record.manifest_blake3 == *manifest_blake3 => Ok(()),
            (_, Err(error)) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Err(Error::integrity("there is another record of the deletion: remove it if nobody knows why")
                .with_operation("record a deletion")
                .with_context("object", &path)),
        }
    }
}
