//! Verify: whether a backup is still what it was.

mod locate;
mod report;

use std::io;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use stackkit_core::backup::{ArtifactReader, BackupProvider, Inspection};
use stackkit_core::{Error, ErrorKind, Result, Stack};
use tokio::io::AsyncReadExt;

pub use report::{ArtifactVerdict, Finding, RepositoryFinding, VerifyLevel, VerifyReport};

use crate::id::BackupId;
use crate::manifest::{ArtifactRecord, ServiceRecord};
use crate::pipeline::{Layout, read_all};
use crate::repository::{Marker, Repository};

/// Artifacts that are checked at once: one is read while another is decompressed.
const ARTIFACTS_AT_ONCE: usize = 2;

/// The buffer that plain bytes are drained into.
const DRAIN_BYTES: usize = 64 << 10;

impl Repository {
    /// Checks a backup, and the repository's own two objects.
    ///
    /// What is damaged is in the report; an error means that the check could not be made.
    ///
    /// # Errors
    /// `NotFound` if there is no such backup; `Integrity` if its manifest is damaged, naming it; the storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn verify(&self, id: &BackupId, level: VerifyLevel) -> Result<VerifyReport> {
        self.verify_inner(id, level, None).await
    }

    /// As [`verify`](Self::verify); at the level `Content` each provider of the stack parses its artifacts too, as
    /// the vendor would.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn verify_with(&self, id: &BackupId, level: VerifyLevel, stack: &Stack) -> Result<VerifyReport> {
        self.verify_inner(id, level, Some(stack)).await
    }

    async fn verify_inner(&self, id: &BackupId, level: VerifyLevel, stack: Option<&Stack>) -> Result<VerifyReport> {
        let found = self.find(id).await?;
        let check = Check { store: &self.storage.store, folder: &found.folder, level };
        let checks = stream::iter(found.manifest.artifacts()).map(|(service, artifact)| {
            let provider = stack.and_then(|stack| stack.service(service.id.as_str()));
            // A service of another kind does not know the artifact's format.
            let provider = provider.filter(|provider| provider.kind() == service.kind);
            let provider = provider.and_then(|provider| provider.backup_provider());
            check.artifact(service, artifact, provider)
        });
        let artifacts = checks.buffered(ARTIFACTS_AT_ONCE).try_collect().await?;
        let repository = Marker::check(&self.storage).await;
        let repository = repository.into_iter().map(|(object, error)| RepositoryFinding::new(object, &error));
        Ok(VerifyReport { backup: *id, level, artifacts, repository: repository.collect() })
    }
}

/// Whether an error is a property of the backup, and not of the way to it. `ToolFailed`: a vendor's tool that a provider
/// asked refuses the bytes.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Integrity | ErrorKind::Io | ErrorKind::ToolFailed)
}

/// How the artifacts of one backup are checked.
#[derive(Clone, Copy)]
pub(crate) struct Check<'a> {
    pub(crate) store: &'a Arc<dyn ObjectStore>,
    pub(crate) folder: &'a Path,
    pub(crate) level: VerifyLevel,
}

impl Check<'_> {
    /// Checks one artifact, by its provider too if one is given.
    ///
    /// # Errors
    /// Only if the check could not be made; damage is in the verdict.
    pub(crate) async fn artifact(
        self,
        service: &ServiceRecord,
        artifact: &ArtifactRecord,
        provider: Option<&dyn BackupProvider>,
    ) -> Result<ArtifactVerdict> {
        let layout = artifact.layout(self.folder);
        let mut verdict = ArtifactVerdict::new(service, artifact);
        let checked = match self.level {
            VerifyLevel::Stored => locate::check_stored(&**self.store, &layout).await.map(|()| None),
            VerifyLevel::Content => check_content(self.store, artifact, layout.clone(), provider).await,
        };
        match checked {
            Ok(inspection) => verdict.inspection = inspection,
            Err(error) if is_damage(&error) => {
                verdict.findings = locate::locate(&**self.store, &layout).await?;
                if verdict.findings.is_empty() {
                    // The bytes are those of the manifest: what is wrong was wrong when they were stored.
                    verdict.findings.push(Finding::new(None, None, error.to_string()));
                }
            }
            Err(error) => return Err(error.with_service(service.id.clone())),
        }
        Ok(verdict)
    }
}

/// Reads an artifact to its end: stored hash, frames, plain hash and, with a provider, the vendor's format.
async fn check_content(
    store: &Arc<dyn ObjectStore>,
    artifact: &ArtifactRecord,
    layout: Layout,
    provider: Option<&dyn BackupProvider>,
) -> Result<Option<Inspection>> {
    locate::check_size(&**store, &layout).await?;
    let (reader, ended) = read_all(Arc::clone(store), layout.clone()).await?;
    let Some(provider) = provider else {
        drain(reader).await?;
        return Ok(None);
    };
    let inspection = provider.inspect(&artifact.info(), reader).await?;
    // A parser may stop before the last byte, and the hashes are compared only after it.
    if !ended.is_true() {
        drain(read_all(Arc::clone(store), layout).await?.0).await?;
    }
    Ok(Some(inspection))
}

/// Reads to the end and drops what it reads.
async fn drain(mut reader: ArtifactReader) -> Result<()> {
    let mut buffer = vec![0; DRAIN_BYTES];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(unwrapped(error)),
        }
    }
}

/// The error of stackkit that a reader's error carries.
fn unwrapped(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("read an artifact", error),
    }
}
