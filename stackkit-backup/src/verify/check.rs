//! Checks one artifact.

use std::io;
use std::ops::Range;

use object_store::path::Path;
use stackkit_core::backup::{ArtifactReader, BackupProvider, Inspection};
use stackkit_core::{Error, Result};
use tokio::io::AsyncReadExt;

use super::report::{ArtifactVerdict, Finding};
use super::{Share, VerifyLevel, is_damage, locate};
use crate::manifest::{ArtifactRecord, ServiceRecord};
use crate::pipeline::{Layout, read_all, read_range};
use crate::progress::{Counted, ProgressEvent, Reporter};
use crate::repository::Repository;

/// The buffer that plain bytes are drained into.
const DRAIN_BYTES: usize = 64 << 10;

/// How the artifacts of one backup are checked.
#[derive(Clone, Copy)]
pub(crate) struct Check<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) folder: &'a Path,
    pub(crate) level: VerifyLevel,
    /// Who is told of the bytes that [`ArtifactVerdict::checked_bytes`] counts, while they are read.
    pub(crate) progress: &'a Reporter,
}

impl Check<'_> {
    /// Checks one artifact, by its provider too if one is given and all of it is read.
    ///
    /// # Errors
    /// Only if the check could not be made; damage is in the verdict.
    pub(crate) async fn artifact(
        self,
        service: &ServiceRecord,
        artifact: &ArtifactRecord,
        share: &Share,
        provider: Option<&dyn BackupProvider>,
    ) -> Result<ArtifactVerdict> {
        let layout = artifact.layout(self.folder);
        let store = &**self.repository.storage().store();
        let mut verdict = ArtifactVerdict::new(service, artifact);
        let checked = match (self.level, share) {
            (_, Share::Nothing) => locate::check_size(store, &layout).await.map(|()| (0, None)),
            (VerifyLevel::Stored, _) => {
                let told = locate::check_stored(store, &layout, &|bytes| self.tell(service, artifact, bytes)).await;
                told.map(|()| (layout.stored_bytes, None))
            }
            (_, Share::Whole) => {
                let counted = |reader| self.counted(service, artifact, reader);
                let inspected = self.content(artifact, &layout, provider, &counted).await;
                inspected.map(|inspection| (layout.plain_bytes, inspection))
            }
            (_, Share::Frames(frames)) => {
                let plain = share_of_plain(&layout, frames);
                let counted = |reader| self.counted(service, artifact, reader);
                self.part(&layout, plain.clone(), &counted).await.map(|()| (plain.end - plain.start, None))
            }
        };
        match checked {
            Ok((checked_bytes, inspection)) => {
                verdict.checked_bytes = checked_bytes;
                verdict.left_out = matches!(share, Share::Nothing);
                self.tell(service, artifact, checked_bytes);
                verdict.inspection = inspection;
            }
            Err(error) if is_damage(&error) => {
                verdict.findings = locate::locate(store, &layout, self.repository.identity()).await?;
                if verdict.findings.is_empty() {
                    // The bytes are those of the manifest: what is wrong was wrong when they were stored.
                    verdict.findings.push(Finding::new(None, None, error.to_string()));
                }
            }
            Err(error) => return Err(error.with_service(service.id.clone())),
        }
        Ok(verdict)
    }

    /// How many bytes [`artifact`](Self::artifact) reads of an artifact that is whole.
    pub(super) fn expected_bytes(self, artifact: &ArtifactRecord, share: &Share) -> u64 {
        match (self.level, share) {
            (_, Share::Nothing) => 0,
            (VerifyLevel::Stored, _) => artifact.stored.bytes,
            (_, Share::Whole) => artifact.plain.bytes,
            (_, Share::Frames(frames)) => {
                let plain = share_of_plain(&artifact.layout(self.folder), frames);
                plain.end - plain.start
            }
        }
    }

    fn tell(self, service: &ServiceRecord, artifact: &ArtifactRecord, bytes: u64) {
        self.progress.tell(|| ProgressEvent::Read {
            service: service.id.clone(),
            artifact: artifact.spec.name.clone(),
            bytes,
        });
    }

    fn counted(self, service: &ServiceRecord, artifact: &ArtifactRecord, reader: ArtifactReader) -> ArtifactReader {
        Counted::wrap(reader, self.progress, self.repository.clock(), &service.id, &artifact.spec.name)
    }

    /// Reads an artifact to its end: stored hash, frames, plain hash and, with a provider, the vendor's format.
    async fn content(
        self,
        artifact: &ArtifactRecord,
        layout: &Layout,
        provider: Option<&dyn BackupProvider>,
        counted: &(dyn Fn(ArtifactReader) -> ArtifactReader + Sync),
    ) -> Result<Option<Inspection>> {
        let store = self.repository.storage().store();
        locate::check_size(&**store, layout).await?;
        let (reader, ended) = read_all(store.clone(), layout.clone(), self.repository.identity()).await?;
        let reader = counted(reader);
        let Some(provider) = provider else {
            drain(reader).await?;
            return Ok(None);
        };
        let inspection = provider.inspect(&artifact.info(), reader).await?;
        // A parser may stop before the last byte, and the hashes are compared only after it.
        if !ended.is_true() {
            drain(read_all(store.clone(), layout.clone(), self.repository.identity()).await?.0).await?;
        }
        Ok(Some(inspection))
    }

    /// Reads some frames: each has its own checksum, and its own authentication if it is encrypted.
    async fn part(
        self,
        layout: &Layout,
        plain: Range<u64>,
        counted: &(dyn Fn(ArtifactReader) -> ArtifactReader + Sync),
    ) -> Result<()> {
        let store = self.repository.storage().store();
        locate::check_size(&**store, layout).await?;
        drain(counted(read_range(store.clone(), layout.clone(), self.repository.identity(), plain).await?)).await
    }
}

/// The plain bytes of some frames.
fn share_of_plain(layout: &Layout, frames: &Range<u64>) -> Range<u64> {
    let plain = |frame: u64| frame.saturating_mul(layout.frame_bytes).min(layout.plain_bytes);
    plain(frames.start)..plain(frames.end)
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
