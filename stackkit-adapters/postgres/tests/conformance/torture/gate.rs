//! Sinks that stop in the middle of a dump, or fail there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use stackkit_core::backup::{ArtifactReceipt, ArtifactSink, ArtifactSpec, ArtifactWriter, DumpReport};
use stackkit_core::{Dump, Error, Result, async_trait};
use tokio::sync::Semaphore;

use crate::memory::Memory;
use crate::torture::TOOL_LIMIT;

/// What is told before the rows.
const BEFORE_ROWS: [&str; 3] = ["postgresql-toc", "postgresql-sql", "postgresql-blobs-toc"];

/// A sink that lets nobody go on with rows until it is opened.
#[derive(Debug)]
struct Gate {
    memory: Memory,
    reached: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

struct GatedWriter {
    inner: Box<dyn ArtifactWriter>,
    reached: Arc<Semaphore>,
    open: Option<Arc<Semaphore>>,
}

#[async_trait]
impl ArtifactSink for Gate {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        let is_before = BEFORE_ROWS.contains(&spec.format.as_str());
        let open = (!is_before).then(|| Arc::clone(&self.open));
        Ok(Box::new(GatedWriter { inner: self.memory.create(spec).await?, reached: Arc::clone(&self.reached), open }))
    }
}

#[async_trait]
impl ArtifactWriter for GatedWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if let Some(open) = self.open.take() {
            self.reached.add_permits(1);
            // Closed when it is opened, so that nobody waits any more.
            let _ = open.acquire().await;
        }
        self.inner.write(chunk).await
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        self.inner.finish().await
    }
}

/// Runs `dump`; when its first rows are about to be stored, it is held up for as long as `during` takes.
pub(crate) async fn held_up(dump: Box<dyn Dump>, during: impl AsyncFnOnce()) -> (Result<DumpReport>, Memory) {
    let gate =
        Gate { memory: Memory::default(), reached: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) };
    let middle = async {
        let reached = tokio::time::timeout(TOOL_LIMIT, gate.reached.acquire()).await.expect("the dump comes to rows");
        drop(reached.expect("never closed"));
        during().await;
        gate.open.close();
    };
    let (report, ()) = tokio::join!(dump.run(&gate), middle);
    (report, gate.memory.sealed())
}

/// A sink that is full after so many writes.
#[derive(Debug)]
pub(crate) struct Full {
    memory: Memory,
    writes_left: Arc<AtomicUsize>,
}

impl Full {
    pub(crate) fn after(writes: usize) -> Self {
        Self { memory: Memory::default(), writes_left: Arc::new(AtomicUsize::new(writes)) }
    }

    /// Whether it became full.
    pub(crate) fn is_full(&self) -> bool {
        self.writes_left.load(Ordering::SeqCst) == 0
    }
}

struct FullWriter {
    inner: Box<dyn ArtifactWriter>,
    writes_left: Arc<AtomicUsize>,
}

#[async_trait]
impl ArtifactSink for Full {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        Ok(Box::new(FullWriter { inner: self.memory.create(spec).await?, writes_left: Arc::clone(&self.writes_left) }))
    }
}

#[async_trait]
impl ArtifactWriter for FullWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let took = self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if took.is_err() {
            return Err(Error::io("write an artifact", std::io::ErrorKind::StorageFull.into()));
        }
        self.inner.write(chunk).await
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        self.inner.finish().await
    }
}
