//! What the suite's restores read: a backup in memory, with a fault at a chosen byte.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use stackkit_core::backup::{ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource};
use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;

/// How many bytes a torn stream gives at a time: a prime, so that it meets no field's size.
const TORN_BYTES: usize = 7;

/// What a source does wrong with the bytes of each artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SourceFault {
    /// Nothing.
    #[default]
    None,
    /// It gives a few bytes at a time.
    Torn,
    /// After so many bytes it fails with `Integrity`, as the engine's reader does at a damaged frame.
    FailAt(usize),
    /// After so many bytes it ends, without an error.
    CutAt(usize),
    /// One bit of this byte is another one.
    FlipAt(usize),
    /// After so many bytes it never gives another one.
    StallAt(usize),
}

/// A backup in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryBackup {
    artifacts: Vec<ArtifactInfo>,
    bytes: Vec<Bytes>,
    fault: SourceFault,
    stalled: Arc<Notify>,
}

impl MemoryBackup {
    /// A backup of these artifacts.
    #[must_use]
    pub fn new(artifacts: Vec<(ArtifactInfo, Bytes)>) -> Self {
        let (artifacts, bytes) = artifacts.into_iter().unzip();
        Self { artifacts, bytes, ..Self::default() }
    }

    /// The same backup, read with a fault.
    #[must_use]
    pub fn with_fault(&self, fault: SourceFault) -> Self {
        Self { fault, stalled: Arc::default(), ..self.clone() }
    }

    /// Waits until a reader stalls.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stalled(&self) {
        self.stalled.notified().await;
    }

    /// The bytes of an artifact.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn bytes(&self, name: &ArtifactName) -> Result<&Bytes> {
        let found = self.artifacts.iter().zip(&self.bytes).find(|(artifact, _)| artifact.name() == name);
        found.map(|(_, bytes)| bytes).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the backup has no such artifact").with_context("artifact", name)
        })
    }

    /// Reads `range` of an artifact; the places of faults are the artifact's.
    fn reader(&self, data: Bytes, range: Range<usize>) -> ArtifactReader {
        let mut data = data;
        if let SourceFault::FlipAt(at) = self.fault
            && at < data.len()
        {
            let mut flipped = data.to_vec();
            flipped.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            data = flipped.into();
        }
        let stalled = Arc::clone(&self.stalled);
        Box::new(FaultyReader { data, position: range.start, end: range.end, fault: self.fault, stalled })
    }
}

#[async_trait]
impl ArtifactSource for MemoryBackup {
    fn artifacts(&self) -> &[ArtifactInfo] {
        &self.artifacts
    }

    async fn open(&self, name: &ArtifactName) -> Result<ArtifactReader> {
        let bytes = self.bytes(name)?.clone();
        let whole = 0..bytes.len();
        Ok(self.reader(bytes, whole))
    }

    async fn open_range(&self, name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        let bytes = self.bytes(name)?;
        let bound = |at: u64| usize::try_from(at).ok().filter(|at| *at <= bytes.len());
        match (bound(plain_bytes.start), bound(plain_bytes.end)) {
            (Some(start), Some(end)) if start <= end => Ok(self.reader(bytes.clone(), start..end)),
            _ => Err(Error::config("the range is beyond the artifact's end").with_context("artifact", name)),
        }
    }
}

struct FaultyReader {
    data: Bytes,
    position: usize,
    end: usize,
    fault: SourceFault,
    stalled: Arc<Notify>,
}

impl AsyncRead for FaultyReader {
    fn poll_read(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        // A range that ends before the place never meets it.
        let is_met = |at: usize| self.position >= at && (at < self.end || self.end == self.data.len());
        let (end, most) = match self.fault {
            SourceFault::FailAt(at) if is_met(at) => {
                let damaged = Error::integrity("the stored bytes are damaged").with_context("offset", at);
                return Poll::Ready(Err(std::io::Error::other(damaged)));
            }
            SourceFault::StallAt(at) if is_met(at) => {
                self.stalled.notify_one();
                return Poll::Pending;
            }
            SourceFault::FailAt(at) | SourceFault::CutAt(at) | SourceFault::StallAt(at) => (at, usize::MAX),
            SourceFault::Torn => (usize::MAX, TORN_BYTES),
            SourceFault::None | SourceFault::FlipAt(_) => (usize::MAX, usize::MAX),
        };
        let end = end.min(self.end);
        let rest = self.data.get(self.position..end).unwrap_or_default();
        let take = rest.len().min(most).min(out.remaining());
        out.put_slice(rest.get(..take).unwrap_or_default());
        self.position += take;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use stackkit_core::backup::ArtifactSpec;
    use tokio::io::AsyncReadExt;

    use super::*;

    const PLAIN: &[u8] = b"0123456789abcdef";

    fn backup(fault: SourceFault) -> (MemoryBackup, ArtifactName) {
        let name = ArtifactName::new("a").unwrap();
        let info = ArtifactInfo::new(ArtifactSpec::new(name.clone(), "text"), 16, "");
        (MemoryBackup::new(vec![(info, Bytes::from_static(PLAIN))]).with_fault(fault), name)
    }

    async fn read(fault: SourceFault) -> (Vec<u8>, Option<ErrorKind>) {
        let (backup, name) = backup(fault);
        let mut read = Vec::new();
        let ended = backup.open(&name).await.unwrap().read_to_end(&mut read).await;
        let error = ended.err().map(|error| error.downcast::<Error>().expect("one of ours").kind());
        (read, error)
    }

    #[tokio::test]
    async fn each_fault_does_what_it_says() {
        assert_eq!(read(SourceFault::None).await, (PLAIN.to_vec(), None));
        assert_eq!(read(SourceFault::Torn).await, (PLAIN.to_vec(), None));
        assert_eq!(read(SourceFault::CutAt(5)).await, (PLAIN[..5].to_vec(), None));
        assert_eq!(read(SourceFault::FailAt(5)).await, (PLAIN[..5].to_vec(), Some(ErrorKind::Integrity)));
        assert_eq!(read(SourceFault::FailAt(16)).await, (PLAIN.to_vec(), Some(ErrorKind::Integrity)));
        assert_eq!(read(SourceFault::FlipAt(1)).await, (b"0023456789abcdef".to_vec(), None));
    }

    #[tokio::test]
    async fn a_stalled_reader_tells() {
        let (backup, name) = backup(SourceFault::StallAt(3));
        let mut reader = backup.open(&name).await.unwrap();
        let mut read = Vec::new();
        tokio::select! {
            _ = reader.read_to_end(&mut read) => panic!("the reader ended"),
            () = backup.stalled() => {}
        }
        assert_eq!(read, &PLAIN[..3]);
    }

    #[tokio::test]
    async fn ranges_beyond_the_end_are_refused() {
        let (backup, name) = backup(SourceFault::None);
        let mut read = String::new();
        backup.open_range(&name, 10..12).await.unwrap().read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "ab");
        assert_eq!(backup.open_range(&name, 10..17).await.err().map(|e| e.kind()), Some(ErrorKind::Config));
    }
}
