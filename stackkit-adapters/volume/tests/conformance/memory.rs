//! A backup of one artifact in memory.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactReceipt, ArtifactSink, ArtifactSource, ArtifactSpec,
    ArtifactWriter,
};
use stackkit_core::{Error, Result, async_trait};

/// Called with the number of each write, from 1, before it is taken.
type OnWrite = Box<dyn Fn(usize) -> Result<()> + Send + Sync>;

/// Takes artifacts.
pub(crate) struct Sink {
    on_write: Arc<OnWrite>,
    finished: Arc<Mutex<Option<Backup>>>,
}

impl Sink {
    pub(crate) fn new() -> Self {
        Self::watched(|_| Ok(()))
    }

    pub(crate) fn watched(on_write: impl Fn(usize) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { on_write: Arc::new(Box::new(on_write)), finished: Arc::default() }
    }

    /// The artifact, if it was finished.
    pub(crate) fn backup(&self) -> Option<Backup> {
        self.finished.lock().unwrap().clone()
    }
}

#[async_trait]
impl ArtifactSink for Sink {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        let (on_write, finished) = (Arc::clone(&self.on_write), Arc::clone(&self.finished));
        Ok(Box::new(Writer { spec, data: Vec::new(), writes: 0, on_write, finished }))
    }
}

struct Writer {
    spec: ArtifactSpec,
    data: Vec<u8>,
    writes: usize,
    on_write: Arc<OnWrite>,
    finished: Arc<Mutex<Option<Backup>>>,
}

#[async_trait]
impl ArtifactWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.writes += 1;
        (self.on_write)(self.writes)?;
        self.data.extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        let backup = Backup::new(self.spec, self.data);
        let info = backup.info.clone();
        *self.finished.lock().unwrap() = Some(backup);
        Ok(ArtifactReceipt::new(info.name().clone(), info.plain_bytes, info.plain_blake3))
    }
}

/// One artifact.
#[derive(Debug, Clone)]
pub(crate) struct Backup {
    pub(crate) info: ArtifactInfo,
    pub(crate) data: Bytes,
    /// After so many bytes the reader does this instead of going on.
    pub(crate) fault: Option<(usize, Fault)>,
}

/// What is wrong with a reader.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Fails,
    Stalls,
}

impl Backup {
    pub(crate) fn new(spec: ArtifactSpec, data: Vec<u8>) -> Self {
        let hash = blake3::hash(&data).to_hex().to_string();
        Self { info: ArtifactInfo::new(spec, data.len() as u64, hash), data: data.into(), fault: None }
    }

    /// An archive that did not come from a dump.
    pub(crate) fn foreign(archive: Vec<u8>) -> Self {
        Self::new(ArtifactSpec::new(ArtifactName::new("data.tar").unwrap(), "tar-pax"), archive)
    }

    pub(crate) fn reader(&self) -> ArtifactReader {
        use tokio::io::AsyncReadExt as _;
        match self.fault {
            None => Box::new(std::io::Cursor::new(self.data.clone())),
            Some((at, fault)) => Box::new(std::io::Cursor::new(self.data.slice(..at)).chain(fault)),
        }
    }
}

impl tokio::io::AsyncRead for Fault {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
        _out: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match *self {
            Self::Fails => {
                std::task::Poll::Ready(Err(std::io::Error::other(Error::integrity("the stored bytes are damaged"))))
            }
            Self::Stalls => std::task::Poll::Pending,
        }
    }
}

#[async_trait]
impl ArtifactSource for Backup {
    fn artifacts(&self) -> &[ArtifactInfo] {
        std::slice::from_ref(&self.info)
    }

    async fn open(&self, _name: &ArtifactName) -> Result<ArtifactReader> {
        Ok(self.reader())
    }

    async fn open_range(&self, _name: &ArtifactName, _plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        Err(Error::config("not needed here"))
    }
}
