//! Copies one backup: artifacts, what the manifest refers to, the manifest last.

use std::time::Duration;

use blake3::Hasher;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind, Result};

use super::report::CopyOutcome;
use crate::lease::{Lease, LeaseOptions, PRUNE};
use crate::manifest::{ArtifactRecord, SEALED_MANIFEST, ServiceRecord};
use crate::pipeline::{Layout, Parts, Pool, Upload};
use crate::progress::{ProgressEvent, ProgressPhase, Reporter};
use crate::repository::{Found, MANIFEST, Raw, Repository, SIGNATURE, TOMBSTONE};
use crate::retention::record_of;
use crate::storage::Deleted;

/// Artifacts that are copied at once: one is opened or closed while another moves bytes.
const ARTIFACTS_AT_ONCE: usize = 2;

/// Bytes that are read at once.
const READ_BYTES: u64 = 2 << 20;

/// Reads in flight for each artifact.
const READS_AHEAD: usize = 2;

/// How long a prune of the target is waited for: one that deletes thousands of backups takes its time.
const LEASE_WAIT: Duration = Duration::from_secs(60 * 60);

/// On which side something failed.
pub(super) enum Failure {
    /// The backup can't be read as it was written; others may be.
    Source(Error),
    /// The other repository can't be written or read, or may not have this.
    Target(Error),
}

/// One backup on its way.
pub(super) struct Transfer<'a> {
    pub(super) source: &'a Repository,
    pub(super) target: &'a Repository,
    pub(super) found: Found,
    pub(super) raw: Raw,
    pub(super) reporter: &'a Reporter,
}

impl Transfer<'_> {
    /// Copies what is missing. The backup exists at the target when this returns.
    pub(super) async fn run(&self) -> Result<CopyOutcome, Failure> {
        let artifacts: Vec<_> = self.found.manifest.artifacts().collect();
        let total = artifacts.iter().map(|(_, artifact)| artifact.stored.bytes).sum();
        self.reporter.phase(ProgressPhase::Copying, Some(total));
        let copies: Vec<_> =
            artifacts.into_iter().map(|(service, artifact)| self.artifact(service, artifact)).collect();
        let copied: Vec<u64> = stream::iter(copies).buffer_unordered(ARTIFACTS_AT_ONCE).try_collect().await?;
        let copied_bytes = copied.iter().sum();
        self.reporter.phase(ProgressPhase::Committing, None);
        self.commit().await?;
        self.reporter.tell(|| ProgressEvent::Committed);
        Ok(CopyOutcome::Copied { copied_bytes, found_bytes: total - copied_bytes })
    }

    /// Copies an artifact unless it is there; returns how many bytes were copied.
    async fn artifact(&self, service: &ServiceRecord, artifact: &ArtifactRecord) -> Result<u64, Failure> {
        let layout = artifact.layout(&self.found.folder);
        let tell = |bytes| {
            self.reporter.tell(|| ProgressEvent::Read {
                service: service.id.clone(),
                artifact: artifact.spec.name.clone(),
                bytes,
            });
        };
        let named = |failure| match failure {
            Failure::Source(error) => Failure::Source(error.with_service(service.id.clone())),
            Failure::Target(error) => Failure::Target(error.with_service(service.id.clone())),
        };
        if self.is_there(&layout).await.map_err(|e| named(Failure::Target(e)))? {
            tell(layout.stored_bytes);
            return Ok(0);
        }
        self.move_bytes(&layout, &tell).await.map_err(named)?;
        Ok(layout.stored_bytes)
    }

    /// Whether an earlier copy left the artifact: read and checked, for a size proves nothing.
    async fn is_there(&self, layout: &Layout) -> Result<bool> {
        let store = self.target.storage().store();
        match self.target.storage().size_bytes("check an artifact", &layout.path).await {
            Ok(size_bytes) if size_bytes == layout.stored_bytes => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut reads = std::pin::pin!(reads(&**store, layout));
        let mut hash = Hasher::new();
        while let Some(bytes) = reads.next().await {
            match bytes {
                Ok(bytes) => hash.update(&bytes),
                // It was cut or removed meanwhile, or lies on a bad sector: it is written again.
                Err(error) if matches!(error.kind(), ErrorKind::Integrity | ErrorKind::NotFound | ErrorKind::Io) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
        }
        Ok(hash.finalize().to_hex().as_str() == layout.stored_blake3)
    }

    async fn move_bytes(&self, layout: &Layout, tell: &impl Fn(u64)) -> Result<(), Failure> {
        let size =
            self.source.storage().size_bytes("check an artifact", &layout.path).await.map_err(Failure::Source)?;
        if size != layout.stored_bytes {
            let wrong = Error::integrity("the object is of another size").with_context("object", &layout.path);
            return Err(Failure::Source(
                wrong.with_context("expected", layout.stored_bytes).with_context("found", size),
            ));
        }
        let storage = self.target.storage();
        let parts = if storage.root().is_some() { Parts::Local } else { Parts::Remote };
        let pool = Pool::get().map_err(Failure::Target)?;
        let upload = Upload::open(&**storage.store(), layout.path.clone(), parts, pool).await;
        let mut upload = upload.map_err(Failure::Target)?;
        let moved = self.fill(&mut upload, layout, tell).await;
        if moved.is_err() {
            upload.abort().await;
        }
        moved
    }

    async fn fill(&self, upload: &mut Upload, layout: &Layout, tell: &impl Fn(u64)) -> Result<(), Failure> {
        let mut reads = std::pin::pin!(reads(&**self.source.storage().store(), layout));
        let (mut bytes, mut hash) = (0, Hasher::new());
        while let Some(read) = reads.try_next().await.map_err(Failure::Source)? {
            hash.update(&read);
            upload.append(&read).await.map_err(Failure::Target)?;
            bytes += read.len() as u64;
            tell(bytes);
        }
        // Asked before the object exists: what is wrong is not even there as a fragment.
        if hash.finalize().to_hex().as_str() != layout.stored_blake3 {
            return Err(Failure::Source(
                Error::integrity("the stored bytes are not those of the backup").with_context("object", &layout.path),
            ));
        }
        let uploaded = upload.complete().await.map_err(Failure::Target)?;
        match uploaded.blake3 == layout.stored_blake3 {
            true => Ok(()),
            false => Err(Failure::Target(Error::unexpected("other bytes were sent than were read"))),
        }
    }

    /// Makes the backup exist at the target. A garbage collection there takes a folder without a manifest for one that
    /// was given up; under its lease no artifact goes between the last look at it and the manifest.
    async fn commit(&self) -> Result<(), Failure> {
        let options = LeaseOptions::default().with_wait(LEASE_WAIT);
        let lease = match Lease::acquire_with(self.target, PRUNE, "copy", &options).await {
            Ok(lease) => lease,
            // Then only somebody who promises to be alone collects garbage there.
            Err(error) if error.kind() == ErrorKind::Unsupported => return self.commit_now(None).await,
            Err(error) => return Err(Failure::Target(error)),
        };
        let committed = lease.hold(async { Ok(self.commit_now(Some(&lease)).await) }).await;
        if let Err(error) = lease.release().await {
            // Who comes next waits until it is free by itself.
            tracing::warn!(error = %error.chain(), "the lease of a copy could not be released");
        }
        committed.map_err(Failure::Target)?
    }

    async fn commit_now(&self, lease: Option<&Lease>) -> Result<(), Failure> {
        let folder = &self.found.folder;
        for (service, artifact) in self.found.manifest.artifacts() {
            self.check_size(&artifact.layout(folder))
                .await
                .map_err(|e| Failure::Target(e.with_service(service.id.clone())))?;
        }
        let artifacts = self.found.manifest.artifacts().map(|(_, artifact)| artifact.layout(folder).path);
        self.lock(artifacts.collect()).await.map_err(Failure::Target)?;
        if let Some(sealed) = self.sealed().await.map_err(Failure::Source)? {
            self.put(&folder.clone().join(SEALED_MANIFEST), sealed).await.map_err(Failure::Target)?;
        }
        if !self.raw.signature.is_empty() {
            let signature = self.raw.signature.clone();
            self.put(&folder.clone().join(SIGNATURE), signature).await.map_err(Failure::Target)?;
        }
        // With this the copy becomes a backup; without the record before it, it would be a foreign one.
        self.target.accept_from(&self.found.manifest.repository).await.map_err(Failure::Target)?;
        if let Some(lease) = lease {
            lease.check().await.map_err(Failure::Target)?;
        }
        self.put_manifest().await.map_err(Failure::Target)?;
        self.lock_documents().await.map_err(Failure::Target)
    }

    /// Writes the manifest, and takes back that the backup was to be deleted here.
    async fn put_manifest(&self) -> Result<()> {
        let folder = &self.found.folder;
        // What an interrupted deletion left would delete the copy too.
        self.remove_left(&folder.clone().join(TOMBSTONE)).await?;
        self.put(&folder.clone().join(MANIFEST), self.raw.manifest.clone()).await?;
        // Nobody may take it away any more and point at the record.
        let record = record_of(&self.found.manifest.stack, &self.found.manifest.id);
        self.remove_left(&record).await
    }

    /// Locks the manifest and what stands beside it, if the backup is to be locked. The copy exists, whatever comes of
    /// this.
    pub(super) async fn lock_documents(&self) -> Result<()> {
        let manifest = &self.found.manifest;
        let sealed = manifest.sealed.as_ref().map(|_| SEALED_MANIFEST);
        let signature = manifest.signature.as_ref().map(|_| SIGNATURE);
        let names = [sealed, signature, Some(MANIFEST)].into_iter().flatten();
        self.lock(names.map(|name| self.found.folder.clone().join(name)).collect()).await
    }

    /// Locks objects of the target until the time that the backup was locked until, if that is not over and the target
    /// has locks.
    async fn lock(&self, paths: Vec<Path>) -> Result<()> {
        let until = self.found.manifest.retain_until.filter(|until| *until > self.target.clock().now());
        let (Some(until), true) = (until, self.target.capabilities().object_lock) else { return Ok(()) };
        let mode = self.target.options().object_lock_mode();
        for path in paths {
            self.target.storage().retain_until("lock a copy", &path, until, mode).await?;
        }
        Ok(())
    }

    /// Removes an object if it is there: who may not delete at the target can copy all the same.
    async fn remove_left(&self, path: &Path) -> Result<()> {
        let operation = "take a deletion back";
        let storage = self.target.storage();
        match storage.size_bytes(operation, path).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        match storage.delete(operation, path).await? {
            Deleted::Locked { .. } => Err(Error::new(ErrorKind::Busy, "a deletion at the target is locked")
                .with_operation(operation)
                .with_context("object", path)),
            Deleted::Gone | Deleted::Absent => Ok(()),
        }
    }

    async fn check_size(&self, layout: &Layout) -> Result<()> {
        let found = self.target.storage().size_bytes("check an artifact", &layout.path).await?;
        match found == layout.stored_bytes {
            true => Ok(()),
            false => Err(Error::integrity("the storage holds another number of bytes than it was given")
                .with_context("object", &layout.path)
                .with_context("expected", layout.stored_bytes)
                .with_context("found", found)),
        }
    }

    /// The encrypted manifest, as its public part describes it.
    async fn sealed(&self) -> Result<Option<Bytes>> {
        let Some(sealed) = &self.found.manifest.sealed else { return Ok(None) };
        let path = self.found.folder.clone().join(SEALED_MANIFEST);
        let bytes = self.source.storage().read("read the encrypted manifest", &path).await?;
        match bytes.len() as u64 == sealed.bytes && blake3::hash(&bytes).to_hex().as_str() == sealed.blake3 {
            true => Ok(Some(bytes)),
            false => Err(Error::integrity("the encrypted manifest is not the one that was written")
                .with_context("object", &path)),
        }
    }

    /// Writes a small object that must not exist with another content, and reads it back: what counts is what the
    /// storage holds, not what it answered.
    async fn put(&self, path: &Path, content: Bytes) -> Result<()> {
        let storage = self.target.storage();
        let written = storage.create("write a copy", path, content.clone()).await;
        match (storage.read("read a copy back", path).await, written) {
            (Ok(found), _) if found == content => Ok(()),
            (Ok(_), _) => {
                Err(Error::integrity("the target holds another object than the copy").with_context("object", path))
            }
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }
}

/// The bytes of an object, in order.
fn reads<'a>(
    store: &'a dyn object_store::ObjectStore,
    layout: &'a Layout,
) -> impl stream::Stream<Item = Result<Bytes>> + Send + 'a {
    let starts = (0..layout.stored_bytes).step_by(usize::try_from(READ_BYTES).unwrap_or(usize::MAX));
    let fetch = move |start: u64| layout.fetch(store, start..(start + READ_BYTES).min(layout.stored_bytes));
    stream::iter(starts.map(fetch)).buffered(READS_AHEAD)
}
