//! A file as a datastore: what is measured is the engine, so its dump is the file's bytes.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use stackkit::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSink, ArtifactSource, ArtifactSpec, BackupProvider, Census,
    Consistency, Dump, DumpContext, DumpReport, Inspection, PointInTime, RestoreContext, RestoreOptions, RestorePlan,
    RestoreReport, VendorInfo,
};
use stackkit::{Endpoint, Error, ErrorKind, Service, ServiceId, Stack};

use crate::Result;

/// How much the provider hands over at a time: what a pipe of a vendor's tool gives is smaller, a file could give more.
const CHUNK_BYTES: u64 = 1 << 20;

/// A part of a file, as a datastore.
#[derive(Debug)]
struct CopyFile {
    id: ServiceId,
    path: PathBuf,
    range: Range<u64>,
}

impl CopyFile {
    /// The file at `path`, cut into `parts` datastores of about the same size.
    ///
    /// # Errors
    /// If there is no such file.
    fn parts(path: &str, parts: u64) -> Result<Vec<Self>> {
        let bytes = std::fs::metadata(path)?.len();
        let each = bytes.div_ceil(parts.max(1));
        let part = |number: u64| {
            let range = (number * each).min(bytes)..((number + 1) * each).min(bytes);
            Ok(Self { id: ServiceId::new(format!("copy-{number}"))?, path: path.into(), range })
        };
        (0..parts).map(part).collect()
    }
}

/// A stack of the parts of one file.
///
/// # Errors
/// If there is no such file.
pub(crate) fn stack(path: &str, parts: u64) -> Result<Stack> {
    let services = CopyFile::parts(path, parts)?;
    Ok(services.into_iter().fold(Stack::builder("bench"), |stack, part| stack.service(part)).build()?)
}

impl Service for CopyFile {
    fn id(&self) -> &ServiceId {
        &self.id
    }

    fn kind(&self) -> &'static str {
        "file"
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::local("file", self.path.display().to_string())
    }

    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[async_trait]
impl BackupProvider for CopyFile {
    async fn begin(&self, cx: &DumpContext) -> stackkit::Result<Box<dyn Dump>> {
        let file = File::open(&self.path).map_err(|error| Error::io("open", error))?;
        let point = PointInTime::new(cx.clock.now(), Consistency::Snapshot);
        Ok(Box::new(CopyDump { file: Arc::new(file), range: self.range.clone(), point }))
    }

    async fn inspect(&self, _: &ArtifactInfo, _: ArtifactReader) -> stackkit::Result<Inspection> {
        Err(one_way())
    }

    async fn plan_restore(&self, _: &dyn ArtifactSource, _: &RestoreOptions) -> stackkit::Result<RestorePlan> {
        Err(one_way())
    }

    async fn restore(
        &self,
        _: RestorePlan,
        _: &dyn ArtifactSource,
        _: &RestoreContext,
    ) -> stackkit::Result<RestoreReport> {
        Err(one_way())
    }

    async fn census(&self) -> stackkit::Result<Census> {
        Err(one_way())
    }
}

fn one_way() -> Error {
    Error::new(ErrorKind::Unsupported, "the file of the bench is only dumped")
}

/// Buffers that are used again and again: what is measured is the engine's memory, not the allocator's.
#[derive(Debug, Clone, Default)]
struct Chunks(Arc<Mutex<Vec<Vec<u8>>>>);

impl Chunks {
    /// The bytes of `file` from `at`.
    fn read(&self, file: &File, at: u64, bytes: u64) -> std::io::Result<Bytes> {
        let mut chunk = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        chunk.resize(usize::try_from(bytes).unwrap_or(usize::MAX), 0);
        file.read_exact_at(&mut chunk, at)?;
        Ok(Bytes::from_owner(Chunk { bytes: chunk, home: self.clone() }))
    }
}

/// A buffer that goes back when nobody has a view of it any more.
struct Chunk {
    bytes: Vec<u8>,
    home: Chunks,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

struct CopyDump {
    file: Arc<File>,
    range: Range<u64>,
    point: PointInTime,
}

#[async_trait]
impl Dump for CopyDump {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> stackkit::Result<DumpReport> {
        let mut writer = sink.create(ArtifactSpec::new(ArtifactName::new("copy.sql")?, "text")).await?;
        let chunks = Chunks::default();
        let mut at = self.range.start;
        while at < self.range.end {
            let (file, chunks) = (Arc::clone(&self.file), chunks.clone());
            let bytes = (self.range.end - at).min(CHUNK_BYTES);
            let read = tokio::task::spawn_blocking(move || chunks.read(&file, at, bytes));
            let read = read.await.map_err(|error| Error::unexpected("the reader ended early").with_source(error))?;
            let chunk = read.map_err(|error| Error::io("read", error))?;
            at += bytes;
            writer.write(chunk).await?;
        }
        writer.finish().await?;
        Ok(DumpReport::new(Census::new(), VendorInfo::new("file")))
    }
}
