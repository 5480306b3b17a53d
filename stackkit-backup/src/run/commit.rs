//! The commit: the manifest is written last, and read back.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind};

use super::dump::Dumped;
use super::millis;
use super::sink::Shared;
use crate::age;
use crate::id::BackupId;
use crate::keys::{Recipient, TrustedKey};
use crate::manifest::{
    ArtifactRecord, ConsistencyRecord, Encryption, Extra, MANIFEST_SCHEMA, Manifest, Previous, SEALED_MANIFEST, Sealed,
    ServiceRecord, SignatureRecord, Status, Timings,
};
use crate::repository::{MANIFEST, Repository, SIGNATURE, TOMBSTONE};

/// Calls to the storage at once: enough to hide the latency of one in a network.
const CALLS_AT_ONCE: usize = 16;

/// What a manifest is made of.
pub(super) struct Draft {
    pub(super) repository: String,
    pub(super) id: BackupId,
    pub(super) stack: String,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
    pub(super) trigger: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) label: Option<String>,
    pub(super) prev: Option<Previous>,
    pub(super) retain_until: Option<Timestamp>,
    pub(super) signer: Option<TrustedKey>,
    pub(super) encryption: Encryption,
    pub(super) dumped: Dumped,
}

/// The manifest of a backup whose artifacts are all stored.
pub(super) fn draft(draft: Draft) -> Manifest {
    let failed = draft.dumped.records.iter().any(|record| record.error.is_some());
    Manifest {
        schema: MANIFEST_SCHEMA.to_owned(),
        repository: draft.repository,
        id: draft.id,
        stack: draft.stack,
        host: host(),
        stackkit_version: env!("CARGO_PKG_VERSION").to_owned(),
        started: draft.started,
        finished: draft.finished,
        status: if failed { Status::Partial } else { Status::Complete },
        trigger: draft.trigger,
        tags: draft.tags,
        label: draft.label,
        prev: draft.prev,
        retain_until: draft.retain_until,
        encryption: draft.encryption,
        signature: draft.signer.map(SignatureRecord::new),
        sealed: None,
        consistency: ConsistencyRecord {
            mode: "barrier".to_owned(),
            spread_ms: millis(draft.dumped.spread),
            extra: Extra::new(),
        },
        timings: Timings {
            begin_ms: millis(draft.dumped.begin),
            run_ms: millis(draft.dumped.run),
            extra: Extra::new(),
        },
        services: draft.dumped.records,
        extra: Extra::new(),
    }
}

/// The machine's name, where the system tells it in a file.
pub(crate) fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Asks the storage for the size of every artifact before any manifest names it.
pub(super) async fn check_sizes(shared: &Shared, manifest: &Manifest) -> Result<(), Error> {
    let checks: Vec<_> =
        manifest.artifacts().map(|(service, artifact)| check_size(shared, service, artifact).boxed()).collect();
    stream::iter(checks).buffer_unordered(CALLS_AT_ONCE).try_collect().await
}

async fn check_size(shared: &Shared, service: &ServiceRecord, artifact: &ArtifactRecord) -> Result<(), Error> {
    let path = artifact.layout(&shared.folder).path;
    let named = |e: Error| e.with_service(service.id.clone());
    let found = shared.storage.size_bytes("check an artifact", &path).await.map_err(named)?;
    match found == artifact.stored.bytes {
        true => Ok(()),
        false => Err(named(
            Error::integrity("the storage holds another number of bytes than it was given")
                .with_context("object", &path)
                .with_context("expected", artifact.stored.bytes)
                .with_context("found", found),
        )),
    }
}

/// Until when there is something to lock. A storage refuses a time that the dumps have overtaken.
fn lock_end(shared: &Shared, manifest: &Manifest) -> Option<Timestamp> {
    manifest.retain_until.filter(|until| *until > shared.clock.now())
}

/// Locks every artifact against deletion, if the backup is to be locked.
pub(super) async fn lock_artifacts(shared: &Shared, manifest: &Manifest, repository: &Repository) -> Result<(), Error> {
    let Some(until) = lock_end(shared, manifest) else { return Ok(()) };
    let mode = repository.options().object_lock_mode();
    let paths: Vec<_> = manifest.artifacts().map(|(_, artifact)| artifact.layout(&shared.folder).path).collect();
    let locks: Vec<_> =
        paths.iter().map(|path| shared.storage.retain_until("lock an artifact", path, until, mode).boxed()).collect();
    stream::iter(locks).buffer_unordered(CALLS_AT_ONCE).try_collect().await
}

/// Locks the manifest and what stands beside it. The backup exists, whatever comes of this.
pub(super) async fn lock_documents(
    shared: &Shared,
    manifest: &Manifest,
    repository: &Repository,
) -> Result<(), Failure> {
    let Some(until) = lock_end(shared, manifest) else { return Ok(()) };
    let mode = repository.options().object_lock_mode();
    let sealed = repository.options().seals_manifests().then_some(SEALED_MANIFEST);
    let signature = manifest.signature.as_ref().map(|_| SIGNATURE);
    for name in [sealed, signature, Some(MANIFEST)].into_iter().flatten() {
        let path = shared.folder.clone().join(name);
        let locked = shared.storage.retain_until("lock the manifest", &path, until, mode).await;
        locked.map_err(Failure::Unknown)?;
    }
    Ok(())
}

/// Why a backup was not committed.
pub(super) enum Failure {
    /// The manifest does not exist, and never will.
    NotWritten(Error),
    /// It may exist; then the backup is whole, so nothing is removed.
    Unknown(Error),
}

/// Writes the signature, then the manifest, and reads it back: what counts is what the storage holds, not what it
/// answered.
pub(super) async fn write_manifest(
    shared: &Shared,
    manifest: &Manifest,
    repository: &Repository,
) -> Result<(), Failure> {
    let path = shared.folder.clone().join(MANIFEST);
    let text = match repository.options().seals_manifests() {
        true => seal(shared, manifest, repository.recipients()).await.and_then(|public| public.to_json()),
        false => manifest.to_json(),
    };
    let text = Bytes::from(text.map_err(Failure::NotWritten)?);
    if let Some(key) = repository.signing_key() {
        let signature = Bytes::copy_from_slice(&key.sign(&text));
        let path = shared.folder.clone().join(SIGNATURE);
        write_beside(shared, "write the signature", &path, signature).await.map_err(Failure::NotWritten)?;
    }
    let written = shared.storage.create("write the manifest", &path, text.clone()).await;
    let found = shared.storage.read("read the manifest back", &path).await;
    match (written, found) {
        (_, Ok(found)) if found == text => still_there(shared, manifest, repository).await,
        (Ok(()), Ok(_)) => Err(Failure::Unknown(
            Error::integrity("the storage holds another manifest than it was given").with_context("object", &path),
        )),
        (Err(error), Err(absent)) if absent.kind() == ErrorKind::NotFound && shared.storage.errors_are_final() => {
            Err(Failure::NotWritten(error))
        }
        (Err(error), _) | (Ok(()), Err(error)) => Err(Failure::Unknown(error)),
    }
}

/// Makes sure that no collection of garbage took the backup for one that was given up. One that deletes it says so
/// before it looks for the manifest, and takes that back after everything else is gone.
async fn still_there(shared: &Shared, manifest: &Manifest, repository: &Repository) -> Result<(), Failure> {
    let object = |name: &str| shared.folder.clone().join(name);
    let is_there = async |path: &Path| match shared.storage.size_bytes("look for a tombstone", path).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::Unknown(error)),
    };
    let artifact = manifest.artifacts().next().map(|(_, artifact)| artifact.layout(&shared.folder).path);
    let sealed = repository.options().seals_manifests().then(|| object(SEALED_MANIFEST));
    let signature = manifest.signature.as_ref().map(|_| object(SIGNATURE));
    let lost = match artifact.or(sealed).or(signature) {
        _ if is_there(&object(TOMBSTONE)).await? => true,
        Some(path) => !is_there(&path).await?,
        None => false,
    };
    if !lost {
        return Ok(());
    }
    let gone = shared.storage.delete("take a manifest back", &object(MANIFEST)).await;
    gone.map_err(Failure::Unknown)?;
    Err(Failure::NotWritten(Error::new(
        ErrorKind::Cancelled,
        "a collection of garbage took the backup for one that was given up: it took longer than the age that was asked for",
    )))
}

/// Writes the encrypted manifest and gives its public part.
async fn seal(shared: &Shared, manifest: &Manifest, recipients: &[Recipient]) -> Result<Manifest, Error> {
    let path = shared.folder.clone().join(SEALED_MANIFEST);
    let bytes = Bytes::from(age::encrypt(recipients, manifest.to_json()?.as_bytes())?);
    let sealed = Sealed {
        path: SEALED_MANIFEST.to_owned(),
        bytes: bytes.len() as u64,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        extra: Extra::new(),
    };
    write_beside(shared, "write the encrypted manifest", &path, bytes).await?;
    Ok(manifest.public_part(sealed))
}

/// Writes what the manifest refers to. An answer that was lost may hide that it was written already.
async fn write_beside(shared: &Shared, operation: &'static str, path: &Path, content: Bytes) -> Result<(), Error> {
    match shared.storage.create(operation, path, content.clone()).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        written => return written,
    }
    match shared.storage.read(operation, path).await? == content {
        true => Ok(()),
        false => Err(Error::integrity("the storage holds another object than it was given")
            .with_operation(operation)
            .with_context("object", path)),
    }
}
