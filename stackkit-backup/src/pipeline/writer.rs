//! Writes one artifact: a filling side that the provider drives, and a storing task that keeps the frames in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::buffers::Buffer;
use super::parts::{Parts, Upload};
use super::pool::{OwnPlace, Packed, Plain};
use super::seal::Seal;
use super::{FRAME_BYTES, FrameIndex, Pool, Tree};
use crate::keys::Recipient;

/// Messages to the storing task. The frames themselves are bounded by the pool, so this only has to be enough for
/// the filling side never to wait here while the pool has room.
const STEPS_MAX: usize = 64;

/// What the storing task is told. A channel that closes without [`Step::End`] means that the artifact is aborted.
enum Step {
    Frame(oneshot::Receiver<Result<Packed>>),
    End,
}

/// What the repository knows of an artifact that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredArtifact {
    pub(crate) plain_bytes: u64,
    pub(crate) plain_blake3: String,
    pub(crate) stored_bytes: u64,
    pub(crate) stored_blake3: String,
    pub(crate) parts: u64,
    pub(crate) etag: Option<String>,
    pub(crate) frames: u64,
    pub(crate) index_offset: u64,
}

/// Where artifacts go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) store: &'a Arc<dyn ObjectStore>,
    pub(crate) parts: Parts,
    /// Who can read them; nobody in particular if it is empty: they are not encrypted.
    pub(crate) recipients: &'a [Recipient],
}

/// One artifact in the making. Dropping it aborts the upload.
pub(crate) struct Writer {
    pool: &'static Pool,
    own: OwnPlace,
    filling: Option<Buffer>,
    frames: u64,
    plain_bytes: u64,
    /// How many bytes the storing task has made until now.
    stored_bytes: Arc<AtomicU64>,
    steps: mpsc::Sender<Step>,
    /// `None` once its error was told.
    storing: Option<AbortOnDropHandle<Result<StoredArtifact>>>,
}

impl Writer {
    /// Starts the upload to `path`; its task is counted by `tasks`.
    pub(crate) async fn open(to: Destination<'_>, path: Path, tasks: &TaskTracker) -> Result<Self> {
        let pool = Pool::get()?;
        let mut upload = Upload::open(&**to.store, path, to.parts, pool).await?;
        let seal = Seal::new(to.recipients, &mut upload)?;
        let (steps, received) = mpsc::channel(STEPS_MAX);
        let stored_bytes = Arc::<AtomicU64>::default();
        let storer = Storer {
            upload,
            seal,
            index: FrameIndex::default(),
            compressed_bytes: 0,
            told_bytes: Arc::clone(&stored_bytes),
            plain: Tree::default(),
            plain_bytes: 0,
        };
        let storing = Some(AbortOnDropHandle::new(tasks.spawn(storer.run(received))));
        let own = OwnPlace::new();
        Ok(Self { pool, own, filling: None, frames: 0, plain_bytes: 0, stored_bytes, steps, storing })
    }

    /// Appends plain bytes; waits while the storage is slow. Chunks of a frame or more are not copied.
    pub(crate) async fn write(&mut self, mut chunk: Bytes) -> Result<()> {
        while !chunk.is_empty() {
            if self.filling.is_none() && chunk.len() >= FRAME_BYTES {
                self.send(Plain::Shared(chunk.split_to(FRAME_BYTES))).await?;
                continue;
            }
            let filling = self.filling.get_or_insert_with(|| self.pool.frame());
            let taken = chunk.split_to(chunk.len().min(FRAME_BYTES - filling.len()));
            filling.extend_from_slice(&taken);
            if filling.len() == FRAME_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Stores what is left, closes the artifact and makes it exist.
    pub(crate) async fn finish(mut self) -> Result<StoredArtifact> {
        self.flush().await?;
        if self.steps.send(Step::End).await.is_err() {
            return Err(self.failure().await);
        }
        let stored = self.ended().await?;
        if stored.plain_bytes != self.plain_bytes {
            return Err(Error::unexpected("an artifact was finished after a write had failed"));
        }
        Ok(stored)
    }

    /// How many plain bytes were handed over in whole frames.
    pub(crate) fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// How many bytes of the object were made of them until now, for somebody who watches.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    async fn flush(&mut self) -> Result<()> {
        match self.filling.take() {
            Some(filled) => self.send(Plain::Filled(filled)).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, plain: Plain) -> Result<()> {
        self.plain_bytes += plain.as_ref().len() as u64;
        let packed = self.pool.compress(self.frames, plain, &self.own).await?;
        self.frames += 1;
        match self.steps.send(Step::Frame(packed)).await {
            Ok(()) => Ok(()),
            Err(_closed) => Err(self.failure().await),
        }
    }

    /// Why the storing task ended before it was told to.
    async fn failure(&mut self) -> Error {
        match self.ended().await {
            Err(error) => error,
            Ok(_) => Error::unexpected("an artifact ended before its last byte"),
        }
    }

    async fn ended(&mut self) -> Result<StoredArtifact> {
        let Some(storing) = self.storing.take() else {
            return Err(Error::unexpected("an artifact was written to after it had failed"));
        };
        let cancelled = |e| Error::new(ErrorKind::Cancelled, "storing an artifact was cancelled").with_source(e);
        storing.await.map_err(cancelled)?
    }
}

/// The storing side: everything behind the compression, in order.
struct Storer {
    upload: Upload,
    seal: Seal,
    index: FrameIndex,
    compressed_bytes: u64,
    told_bytes: Arc<AtomicU64>,
    plain: Tree,
    plain_bytes: u64,
}

impl Storer {
    async fn run(mut self, steps: mpsc::Receiver<Step>) -> Result<StoredArtifact> {
        let stored = self.store_all(steps).await;
        if stored.is_err() {
            self.upload.abort().await;
        }
        stored
    }

    async fn store_all(&mut self, mut steps: mpsc::Receiver<Step>) -> Result<StoredArtifact> {
        loop {
            match steps.recv().await {
                Some(Step::Frame(packed)) => {
                    let packed = packed.await;
                    let packed =
                        packed.map_err(|e| Error::unexpected("a compression thread ended").with_source(e))??;
                    self.index.push(packed.bytes.len(), packed.plain_bytes)?;
                    let plain = packed.plain.as_ref();
                    self.plain.push(plain.ok_or_else(|| Error::unexpected("a frame could not be hashed"))?);
                    self.plain_bytes += packed.plain_bytes as u64;
                    self.compressed_bytes += packed.bytes.len() as u64;
                    self.told_bytes.store(self.compressed_bytes, Ordering::Relaxed);
                    self.seal.append(&mut self.upload, &packed.bytes).await?;
                }
                Some(Step::End) => return self.close().await,
                None => return Err(Error::new(ErrorKind::Cancelled, "the artifact was dropped")),
            }
        }
    }

    async fn close(&mut self) -> Result<StoredArtifact> {
        let index = self.index.encode();
        self.seal.append(&mut self.upload, &index).await?;
        self.seal.close(&mut self.upload).await?;
        let uploaded = self.upload.complete().await?;
        Ok(StoredArtifact {
            plain_bytes: self.plain_bytes,
            plain_blake3: std::mem::take(&mut self.plain).hash().to_hex().to_string(),
            stored_bytes: uploaded.bytes,
            stored_blake3: uploaded.blake3,
            parts: uploaded.parts,
            etag: uploaded.put.e_tag,
            frames: self.index.len() as u64,
            index_offset: self.compressed_bytes,
        })
    }
}
