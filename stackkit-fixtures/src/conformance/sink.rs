//! Where the suite's dumps go: memory, with a fault at a chosen call.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use stackkit_core::backup::{ArtifactInfo, ArtifactName, ArtifactReceipt, ArtifactSink, ArtifactSpec, ArtifactWriter};
use stackkit_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;

use crate::conformance::source::MemoryBackup;

/// The most that a sink takes: the suite's seeds are far smaller, and a runaway dump must not fill the machine.
pub const SINK_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a sink does wrong. Its calls (`create`, `write`, `finish`) are counted from 1, over all artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SinkFault {
    /// Nothing.
    #[default]
    None,
    /// The n-th call fails with `Io`.
    FailAt(u32),
    /// The n-th call never returns.
    StallAt(u32),
    /// Every call lets all other tasks run first.
    Slow,
}

/// Takes artifacts into memory, at most [`SINK_BYTES_MAX`].
#[derive(Debug, Clone, Default)]
pub struct MemorySink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    fault: SinkFault,
    calls: AtomicU32,
    stalled: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    names: Vec<ArtifactName>,
    finished: BTreeMap<ArtifactName, (ArtifactInfo, Bytes)>,
}

impl MemorySink {
    /// A sink with that fault.
    #[must_use]
    pub fn new(fault: SinkFault) -> Self {
        Self(Arc::new(Shared { fault, ..Shared::default() }))
    }

    /// How many calls it has got.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// Waits until a call stalls.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stalled(&self) {
        self.0.stalled.notified().await;
    }

    /// The artifacts that were finished, as a backup to restore from.
    #[must_use]
    pub fn backup(&self) -> MemoryBackup {
        MemoryBackup::new(self.state(|state| state.finished.values().cloned().collect()))
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn call(&self) -> Result<()> {
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        match self.0.fault {
            SinkFault::FailAt(at) if call == at => {
                Err(Error::new(ErrorKind::Io, "the sink fails as it was told to").with_context("call", call))
            }
            SinkFault::StallAt(at) if call == at => {
                self.0.stalled.notify_one();
                pending().await
            }
            SinkFault::Slow => {
                tokio::task::yield_now().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl ArtifactSink for MemorySink {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        self.call().await?;
        let name = spec.name.clone();
        let known = self.state(|state| {
            let known = state.names.contains(&name);
            state.names.push(name.clone());
            known
        });
        match known {
            true => Err(Error::new(ErrorKind::AlreadyExists, "the dump has it already").with_context("artifact", name)),
            false => Ok(Box::new(MemoryWriter { sink: self.clone(), spec, bytes: Vec::new(), broken: false })),
        }
    }
}

struct MemoryWriter {
    sink: MemorySink,
    spec: ArtifactSpec,
    bytes: Vec<u8>,
    /// A write failed or was dropped, so the artifact must not be finished any more.
    broken: bool,
}

#[async_trait]
impl ArtifactWriter for MemoryWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let intact = !std::mem::replace(&mut self.broken, true);
        self.sink.call().await?;
        let total = self.sink.state(|state| {
            state.bytes += chunk.len();
            state.bytes
        });
        if total > SINK_BYTES_MAX {
            return Err(Error::new(ErrorKind::Io, "the sink is full"));
        }
        self.bytes.extend_from_slice(&chunk);
        self.broken = !intact;
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        if self.broken {
            return Err(Error::unexpected("an artifact was finished after a write had failed"));
        }
        self.sink.call().await?;
        let hash = blake3::hash(&self.bytes).to_hex().to_string();
        let bytes = Bytes::from(self.bytes);
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let name = self.spec.name.clone();
        let info = ArtifactInfo::new(self.spec, size, &hash);
        self.sink.state(|state| state.finished.insert(name.clone(), (info, bytes)));
        Ok(ArtifactReceipt::new(name, size, hash))
    }
}

#[cfg(test)]
mod tests {
    use stackkit_core::backup::ArtifactSource;

    use super::*;

    fn spec() -> ArtifactSpec {
        ArtifactSpec::new(ArtifactName::new("a").unwrap(), "text")
    }

    #[tokio::test]
    async fn an_artifact_exists_when_it_is_finished() {
        let sink = MemorySink::default();
        let mut writer = sink.create(spec()).await.unwrap();
        writer.write(Bytes::from_static(b"plain")).await.unwrap();
        assert!(sink.backup().artifacts().is_empty());
        assert_eq!(writer.finish().await.unwrap().plain_bytes, 5);
        assert_eq!(sink.backup().artifacts().len(), 1);
        assert_eq!(sink.create(spec()).await.err().map(|error| error.kind()), Some(ErrorKind::AlreadyExists));
    }

    #[tokio::test]
    async fn what_failed_can_not_be_finished() {
        let sink = MemorySink::new(SinkFault::FailAt(2));
        let mut writer = sink.create(spec()).await.unwrap();
        assert!(writer.write(Bytes::from_static(b"lost")).await.is_err());
        assert!(writer.write(Bytes::from_static(b"more")).await.is_ok());
        assert!(writer.finish().await.is_err());
        assert!(sink.backup().artifacts().is_empty());
    }
}
