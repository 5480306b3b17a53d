//! Which backups there are.

use std::fmt;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind, Result};

use super::{BACKUPS, Repository};
use crate::id::BackupId;
use crate::manifest::{Manifest, Status};
use crate::run::format_bytes;

/// Manifests that are read at once: enough to hide the latency of a storage in a network.
const READS_AT_ONCE: usize = 16;

/// One backup, or what looks like one.
#[derive(Debug)]
#[non_exhaustive]
pub struct BackupEntry {
    /// Its id.
    pub id: BackupId,
    /// The stack's name.
    pub stack: String,
    /// What is there.
    pub state: EntryState,
}

/// What is known of an entry.
#[derive(Debug)]
#[non_exhaustive]
pub enum EntryState {
    /// A backup with its manifest.
    Ready(Box<Manifest>),
    /// There is a manifest, and it can't be used.
    Damaged(Error),
    /// There is none: a backup that runs, or that was interrupted.
    Incomplete,
}

impl BackupEntry {
    /// The manifest, if the entry is a backup.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        match &self.state {
            EntryState::Ready(manifest) => Some(manifest),
            _ => None,
        }
    }

    /// Whether it is a backup of every service.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.manifest().is_some_and(|manifest| manifest.status == Status::Complete)
    }

    /// When it began: to the fraction of a second if the manifest tells, else to the second.
    fn started(&self) -> (Timestamp, BackupId) {
        (self.manifest().map_or_else(|| self.id.time(), |manifest| manifest.started), self.id)
    }
}

impl fmt::Display for BackupEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  ", self.id, self.stack)?;
        match &self.state {
            EntryState::Damaged(error) => write!(f, "damaged: {error}"),
            EntryState::Incomplete => f.write_str("incomplete"),
            EntryState::Ready(manifest) => {
                let stored = manifest.artifacts().map(|(_, artifact)| artifact.stored.bytes).sum();
                let status = if self.is_complete() { "complete" } else { "partial" };
                let services: Vec<_> = manifest.services.iter().map(|service| service.id.as_str()).collect();
                write!(f, "{status}  {}  {}", services.join(","), format_bytes(stored))?;
                manifest.tags.iter().try_for_each(|tag| write!(f, "  #{tag}"))
            }
        }
    }
}

impl Repository {
    /// All backups of all stacks, newest first. One whose manifest is damaged is among them, as such.
    ///
    /// # Errors
    /// The storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn list(&self) -> Result<Vec<BackupEntry>> {
        let mut entries = self.list_all().await?;
        entries.retain(|entry| !matches!(entry.state, EntryState::Incomplete));
        Ok(entries)
    }

    /// As [`list`](Self::list), with what has no manifest: backups that run, and what interrupted ones left.
    ///
    /// # Errors
    /// The storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn list_all(&self) -> Result<Vec<BackupEntry>> {
        let mut ids = Vec::new();
        let backups = Path::from(BACKUPS);
        for stack in self.storage.folders(&backups).await? {
            let names = self.storage.folders(&backups.clone().join(stack.as_str())).await?;
            ids.extend(names.iter().filter_map(|name| name.parse().ok()).map(|id: BackupId| (stack.clone(), id)));
        }
        let entries = stream::iter(ids).map(|(stack, id)| async move { self.entry(stack, id).await });
        let mut entries: Vec<_> = entries.buffer_unordered(READS_AT_ONCE).try_collect().await?;
        entries.sort_by_key(|entry: &BackupEntry| std::cmp::Reverse(entry.started()));
        Ok(entries)
    }

    /// The newest complete backup of a stack.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Integrity` if there is a newer one whose manifest is damaged: which one to trust
    /// is the caller's to say.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn latest(&self, stack: &str) -> Result<BackupId> {
        let entries = self.list().await?;
        let mut usable = entries.into_iter().filter(|entry| {
            entry.stack == stack && (entry.is_complete() || matches!(entry.state, EntryState::Damaged(_)))
        });
        match usable.next() {
            Some(BackupEntry { state: EntryState::Damaged(error), id, .. }) => {
                Err(Error::integrity("the manifest of the newest backup can't be used: name another by its id")
                    .with_context("backup", id)
                    .with_source(error))
            }
            Some(entry) => Ok(entry.id),
            None => Err(Error::new(ErrorKind::NotFound, "the repository has no complete backup of the stack")
                .with_context("stack", stack)),
        }
    }

    async fn entry(&self, stack: String, id: BackupId) -> Result<BackupEntry> {
        let state = match self.read_manifest(&stack, &id).await {
            Ok((manifest, _)) => EntryState::Ready(Box::new(manifest)),
            Err(error) => match error.kind() {
                ErrorKind::NotFound => EntryState::Incomplete,
                // One bad sector must not hide all other backups.
                ErrorKind::Integrity | ErrorKind::Incompatible | ErrorKind::Io | ErrorKind::PermissionDenied => {
                    EntryState::Damaged(error)
                }
                _ => return Err(error),
            },
        };
        Ok(BackupEntry { id, stack, state })
    }
}
