//! Which backups there are.

use std::fmt;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use stackkit_core::{Error, ErrorKind, Result};
use tokio_util::task::AbortOnDropHandle;

use super::Repository;
use super::cache::Raw;
use super::read::{Found, is_unusable};
use super::scan::{self, Spot, Stamp};
use crate::id::BackupId;
use crate::manifest::{Manifest, Status};
use crate::retention::Announcement;
use crate::run::format_bytes;
use crate::trust::SignatureState;

/// Manifests that are read at once: enough to hide the latency of a storage in a network.
const READS_AT_ONCE: usize = 16;

/// Entries that are looked at together: of a directory, their manifests are read at once by one thread.
const BATCH: usize = 128;

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
    /// Who signed it; `None` if it is not known.
    pub signature: Option<SignatureState>,
    /// The BLAKE3 of the bytes of its manifest, 64 hex digits; `None` if it can't be read.
    pub manifest_blake3: Option<String>,
    /// Whether its deletion is announced, and when it may be done.
    pub announcement: Announcement,
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
    /// It is a backup whose deletion is announced: it is whole until its grace time has passed.
    Announced(Box<Manifest>),
}

impl BackupEntry {
    /// The manifest, if the entry is a backup.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        match &self.state {
            EntryState::Ready(manifest) | EntryState::Announced(manifest) => Some(manifest),
            _ => None,
        }
    }

    /// Whether it is a backup of every service, and not announced for deletion.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(&self.state, EntryState::Ready(manifest) if manifest.status == Status::Complete)
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
            EntryState::Ready(manifest) | EntryState::Announced(manifest) => {
                let stored = manifest.artifacts().map(|(_, artifact)| artifact.stored.bytes).sum();
                let status = match (&self.state, manifest.status) {
                    (EntryState::Announced(_), _) => "to be deleted",
                    (_, Status::Complete) => "complete",
                    (_, Status::Partial) => "partial",
                };
                let services: Vec<_> = manifest.services.iter().map(|service| service.id.as_str()).collect();
                write!(f, "{status}  {}  {}", services.join(","), format_bytes(stored))?;
                if let Some(signature) = &self.signature {
                    write!(f, "  {signature}")?;
                }
                manifest.tags.iter().try_for_each(|tag| write!(f, "  #{tag}"))
            }
        }
    }
}

impl Repository {
    /// All backups of all stacks, newest first. One whose manifest is damaged, or not signed by a key that the caller
    /// trusts, is among them, as such; one whose deletion is announced is not.
    ///
    /// # Errors
    /// The storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn list(&self) -> Result<Vec<BackupEntry>> {
        let mut entries = self.list_all().await?;
        entries.retain(|entry| matches!(entry.state, EntryState::Ready(_) | EntryState::Damaged(_)));
        Ok(entries)
    }

    /// As [`list`](Self::list), with those whose deletion is announced, and with what has no manifest: backups that run,
    /// and what interrupted ones left.
    ///
    /// # Errors
    /// The storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn list_all(&self) -> Result<Vec<BackupEntry>> {
        let mut entries = self.entries(|entry| entry).await?;
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.started()));
        Ok(entries)
    }

    /// The folders that have the name of a backup.
    pub(crate) async fn spots(&self) -> Result<Vec<Spot>> {
        scan::spots(&self.storage, None).await
    }

    /// Everything that [`list_all`](Self::list_all) gives, in no order. `digest` takes out of each entry what is needed,
    /// so that ten thousand manifests are never in memory together.
    pub(crate) async fn entries<T: Send + 'static>(
        &self,
        digest: impl Fn(BackupEntry) -> T + Clone + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        let spots = self.spots().await?;
        if let Some(cache) = self.cache() {
            cache.retain(&spots);
        }
        self.digested(spots, digest).await
    }

    /// As [`entries`](Self::entries), of one stack: nothing of the others is listed or read.
    pub(crate) async fn entries_of<T: Send + 'static>(
        &self,
        stack: &str,
        digest: impl Fn(BackupEntry) -> T + Clone + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        let spots = scan::spots(&self.storage, Some(stack)).await?;
        self.digested(spots, digest).await
    }

    /// As [`entries_of`](Self::entries_of), of the backups that began at `since` or later.
    pub(crate) async fn entries_since<T: Send + 'static>(
        &self,
        stack: &str,
        since: Timestamp,
        digest: impl Fn(BackupEntry) -> T + Clone + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        let mut spots = scan::spots(&self.storage, Some(stack)).await?;
        // An id knows whole seconds.
        spots.retain(|spot| spot.id.time().as_second() >= since.as_second());
        self.digested(spots, digest).await
    }

    async fn digested<T: Send + 'static>(
        &self,
        spots: Vec<Spot>,
        digest: impl Fn(BackupEntry) -> T + Clone + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        // Reading hides the storage's latency, checking costs cores: the work is cut into as many tasks as there are.
        let tasks = std::thread::available_parallelism().map_or(1, usize::from);
        let mut shares: Vec<Vec<Spot>> = std::iter::repeat_with(Vec::new).take(tasks).collect();
        for (place, spot) in spots.into_iter().enumerate() {
            shares[place % tasks].push(spot);
        }
        let reading = shares.into_iter().map(|share| {
            let (repository, digest) = (self.clone(), digest.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                let (repository, mut digested) = (&repository, Vec::with_capacity(share.len()));
                let mut share = share.into_iter();
                loop {
                    let batch: Vec<Spot> = share.by_ref().take(BATCH).collect();
                    if batch.is_empty() {
                        return Ok::<_, Error>(digested);
                    }
                    let batch = scan::read_ahead(&repository.storage, batch).await?;
                    let entries = stream::iter(batch).map(|(spot, raw)| repository.entry(spot, raw));
                    let entries: Vec<T> = entries.buffer_unordered(READS_AT_ONCE).map_ok(&digest).try_collect().await?;
                    digested.extend(entries);
                }
            }))
        });
        let mut entries = Vec::new();
        for share in reading.collect::<Vec<_>>() {
            let share = share.await;
            entries.extend(share.map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))??);
        }
        Ok(entries)
    }

    /// The newest complete backup of a stack.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Integrity` if there is a newer one whose manifest is damaged or not trusted: which
    /// one to take is the caller's to say.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn latest(&self, stack: &str) -> Result<BackupId> {
        let mut entries = self.entries_of(stack, |entry| entry).await?;
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.started()));
        let is_taken = |entry: &BackupEntry| entry.is_complete() || matches!(entry.state, EntryState::Damaged(_));
        let mut usable = entries.into_iter().filter(is_taken);
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

    async fn entry(&self, spot: Spot, raw: Option<Raw>) -> Result<BackupEntry> {
        let entry = |state| BackupEntry {
            id: spot.id,
            stack: spot.stack.clone(),
            state,
            signature: None,
            manifest_blake3: None,
            announcement: Announcement::None,
        };
        let Some(stamp) = &spot.manifest else { return Ok(entry(EntryState::Incomplete)) };
        let found = match self.read_listed(&spot, stamp, raw).await {
            Ok(found) => found,
            // It went since the listing.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(entry(EntryState::Incomplete)),
            Err(error) if is_unusable(&error) => return Ok(entry(EntryState::Damaged(error))),
            Err(error) => return Err(error),
        };
        let announcement = match spot.announced {
            false => Announcement::None,
            // Somebody who can write but not sign must not hide a backup: only what can be believed announces.
            true => self.announcement(&found).await?,
        };
        let manifest = Box::new(found.manifest);
        let state = match self.trust().refuses_in_lists(found.signature) {
            true => EntryState::Damaged(not_trusted(found.signature, self)),
            false if matches!(announcement, Announcement::PurgeAfter(_)) => EntryState::Announced(manifest),
            false => EntryState::Ready(manifest),
        };
        let (signature, manifest_blake3) = (Some(found.signature), Some(found.blake3));
        Ok(BackupEntry { signature, manifest_blake3, announcement, ..entry(state) })
    }

    /// Checks a manifest that a listing showed; it is read unless that was done, from the cache if it is there.
    async fn read_listed(&self, spot: &Spot, stamp: &Stamp, raw: Option<Raw>) -> Result<Found> {
        let cache = self.cache().filter(|_| raw.is_none());
        let (raw, cached) = match raw.or_else(|| cache.as_ref()?.get(spot, stamp)) {
            Some(raw) => (raw, true),
            None => (self.fetch_manifest(&spot.stack, &spot.id).await?, false),
        };
        let found = self.check_manifest(&spot.stack, &spot.id, &raw)?;
        self.check_origin(&found).await?;
        if let Some(cache) = cache.filter(|_| !cached) {
            cache.put(spot, stamp, &raw);
        }
        Ok(found)
    }
}

fn not_trusted(signature: SignatureState, repository: &Repository) -> Error {
    match repository.trust().accept(signature, repository.marker().is_signed()) {
        Err(error) => error,
        Ok(()) => Error::unexpected("a manifest was refused without a reason"),
    }
}
