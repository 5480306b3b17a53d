//! The sink that a dump writes into.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use stackkit_core::backup::{ArtifactName, ArtifactReceipt, ArtifactSink, ArtifactSpec, ArtifactWriter};
use stackkit_core::{Clock, Error, ErrorKind, Result, ServiceId};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::keys::Recipient;
use crate::manifest::{
    ArtifactRecord, Compression, Encryption, Extra, FramesRecord, PlainRecord, StoredRecord, artifact_path,
};
use crate::pipeline::{Destination, FRAME_BYTES, Parts, StoredArtifact, Writer, ZSTD_LEVEL};
use crate::progress::{ProgressEvent, Reporter, Steps};
use crate::storage::Storage;

/// What all sinks of a backup share.
pub(crate) struct Shared {
    pub(crate) storage: Storage,
    /// Who can read the artifacts; empty: they are not encrypted.
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) folder: Path,
    pub(crate) clock: Clock,
    /// The storing tasks, so that a failed backup can wait until none writes any more.
    pub(crate) tasks: TaskTracker,
    pub(crate) progress: Reporter,
}

impl Shared {
    fn destination(&self) -> Destination<'_> {
        let parts = if self.storage.root().is_some() { Parts::Local } else { Parts::Remote };
        Destination { store: self.storage.store(), parts, recipients: &self.recipients }
    }
}

/// The sink of one service.
pub(crate) struct ServiceSink {
    shared: Arc<Shared>,
    service: ServiceId,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    open: BTreeSet<ArtifactName>,
    done: Vec<ArtifactRecord>,
    /// A write or a finish failed. The dump can't succeed any more, whatever its provider says.
    failed: bool,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServiceSink {
    pub(crate) fn new(shared: Arc<Shared>, service: ServiceId) -> Self {
        Self { shared, service, state: Arc::default() }
    }

    /// The artifacts, by name, after the dump has said that all is well.
    ///
    /// # Errors
    /// `Unexpected` if the provider ignored an error of a writer, left one open, or finished none: a backup without a
    /// byte of a service would only look like one.
    pub(crate) fn into_artifacts(self) -> Result<Vec<ArtifactRecord>> {
        let mut state = locked(&self.state);
        if state.failed {
            return Err(Error::unexpected("the dump ended well although an artifact could not be stored"));
        }
        if let Some(name) = state.open.first() {
            return Err(Error::unexpected("the dump ended with an unfinished artifact").with_context("artifact", name));
        }
        let mut artifacts = std::mem::take(&mut state.done);
        if artifacts.is_empty() {
            return Err(Error::unexpected("the dump ended well without an artifact"));
        }
        artifacts.sort_unstable_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(artifacts)
    }
}

#[async_trait]
impl ArtifactSink for ServiceSink {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        {
            let mut state = locked(&self.state);
            let taken = state.done.iter().any(|artifact| artifact.spec.name == spec.name);
            if taken || !state.open.insert(spec.name.clone()) {
                return Err(Error::new(ErrorKind::AlreadyExists, "the dump has an artifact of that name")
                    .with_context("artifact", &spec.name));
            }
        }
        let entry = Entry { name: spec.name.clone(), state: Arc::clone(&self.state) };
        let path = artifact_path(&self.service, &spec.name, !self.shared.recipients.is_empty());
        let object = path.split('/').fold(self.shared.folder.clone(), |object, part| object.join(part));
        let writer = Writer::open(self.shared.destination(), object, &self.shared.tasks).await;
        let writer = writer.inspect_err(|_| locked(&self.state).failed = true)?;
        let started = self.shared.clock.instant();
        Ok(Box::new(SinkWriter {
            started,
            steps: Steps::new(&self.shared.clock),
            shared: Arc::clone(&self.shared),
            service: self.service.clone(),
            spec,
            path,
            writer,
            entry,
        }))
    }
}

/// An open artifact's place in the sink; free again when the writer is dropped.
struct Entry {
    name: ArtifactName,
    state: Arc<Mutex<State>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        locked(&self.state).open.remove(&self.name);
    }
}

struct SinkWriter {
    shared: Arc<Shared>,
    service: ServiceId,
    spec: ArtifactSpec,
    path: String,
    writer: Writer,
    started: Instant,
    steps: Steps,
    entry: Entry,
}

#[async_trait]
impl ArtifactWriter for SinkWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let written = self.writer.write(chunk).await;
        written.inspect_err(|_| locked(&self.entry.state).failed = true)?;
        self.tell_bytes();
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        let Self { shared, service, spec, path, writer, started, entry, .. } = *self;
        let stored = writer.finish().await;
        let stored = stored.inspect_err(|_| locked(&entry.state).failed = true)?;
        let receipt = ArtifactReceipt::new(spec.name.clone(), stored.plain_bytes, stored.plain_blake3.clone());
        shared.progress.tell(|| ProgressEvent::Stored {
            service,
            artifact: spec.name.clone(),
            plain_bytes: stored.plain_bytes,
            stored_bytes: stored.stored_bytes,
        });
        let elapsed = shared.clock.instant().duration_since(started);
        let mut record = record(spec, path, stored, super::millis(elapsed));
        record.encryption = Encryption::to(&shared.recipients);
        locked(&entry.state).done.push(record);
        Ok(receipt)
    }
}

impl SinkWriter {
    /// Tells how far it is, if that is worth an event.
    fn tell_bytes(&mut self) {
        let plain_bytes = self.writer.plain_bytes();
        if !self.shared.progress.is_heard() || !self.steps.is_due(plain_bytes) {
            return;
        }
        let (service, artifact) = (self.service.clone(), self.spec.name.clone());
        let stored_bytes = self.writer.stored_bytes();
        self.shared.progress.tell(|| ProgressEvent::Written { service, artifact, plain_bytes, stored_bytes });
    }
}

fn record(spec: ArtifactSpec, path: String, stored: StoredArtifact, elapsed_ms: u64) -> ArtifactRecord {
    ArtifactRecord {
        spec,
        path,
        plain: PlainRecord { bytes: stored.plain_bytes, blake3: stored.plain_blake3, extra: Extra::new() },
        stored: StoredRecord {
            bytes: stored.stored_bytes,
            blake3: stored.stored_blake3,
            parts: stored.parts,
            etag: stored.etag,
            extra: Extra::new(),
        },
        frames: FramesRecord {
            bytes: FRAME_BYTES as u64,
            count: stored.frames,
            index_offset: stored.index_offset,
            extra: Extra::new(),
        },
        compression: Compression { scheme: Compression::ZSTD.to_owned(), level: ZSTD_LEVEL, extra: Extra::new() },
        encryption: Encryption::none(),
        elapsed_ms,
        extra: Extra::new(),
    }
}
