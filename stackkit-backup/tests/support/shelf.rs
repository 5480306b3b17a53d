//! A datastore in memory: named byte strings on a shelf. It can be told to misbehave.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSink, ArtifactSource, ArtifactSpec, Consistency, Dump,
    DumpContext, DumpReport, Inspection, PlannedAction, PointInTime, RestoreAction, RestoreContext, RestoreOptions,
    RestorePlan, RestoreReport, TargetState, VendorInfo,
};
use stackkit_core::{BackupProvider, Census, Endpoint, Error, ErrorKind, Result, Service, ServiceId};
use tokio::io::AsyncReadExt;

/// How a shelf misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    BeginFails,
    BeginHangs,
    RunFailsAtTheEnd,
    RunHangsHalfway,
    IgnoresWriteErrors,
    DropsTheFirstWriter,
    LosesAnItem,
    WritesNothing,
    BeginPanics,
    RunPanics,
    FinishesTwoOfTheSameName,
    RestoreFails,
    RestorePanics,
    RestoreHangs,
    ServerIsDown,
}

#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) items: Mutex<BTreeMap<String, Bytes>>,
    pub(crate) restores: AtomicUsize,
    pub(crate) chunks_written: AtomicUsize,
    /// Runs when a restore begins.
    on_restore: Mutex<Option<Hook>>,
}

/// What a test wants to do at some moment.
struct Hook(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

/// The datastore; clones share the content.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    id: ServiceId,
    pub(crate) content: Arc<Content>,
    fault: Option<Fault>,
    chunk_bytes: usize,
    interleaved: bool,
}

impl Shelf {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: ServiceId::new(id).unwrap(),
            content: Arc::default(),
            fault: None,
            chunk_bytes: 64 << 10,
            interleaved: false,
        }
    }

    pub(crate) fn with(self, name: &str, bytes: impl Into<Bytes>) -> Self {
        self.content.items.lock().unwrap().insert(name.to_owned(), bytes.into());
        self
    }

    pub(crate) fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    pub(crate) fn with_chunk_bytes(mut self, chunk_bytes: usize) -> Self {
        self.chunk_bytes = chunk_bytes;
        self
    }

    /// Opens all artifacts, then writes a chunk of each in turn.
    pub(crate) fn with_interleaving(mut self) -> Self {
        self.interleaved = true;
        self
    }

    pub(crate) fn items(&self) -> BTreeMap<String, Bytes> {
        self.content.items.lock().unwrap().clone()
    }

    pub(crate) fn wipe(&self) {
        self.content.items.lock().unwrap().clear();
    }

    /// Does something when the next restore begins.
    pub(crate) fn on_restore(&self, hook: impl FnOnce() + Send + 'static) {
        *self.content.on_restore.lock().unwrap() = Some(Hook(Box::new(hook)));
    }

    fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for (name, bytes) in self.items() {
            hash.update(name.as_bytes()).update(&[0]).update(&bytes);
        }
        hash.finalize().to_hex().to_string()
    }
}

fn census_of(items: &BTreeMap<String, Bytes>) -> Census {
    let bytes = items.values().map(|bytes| bytes.len() as u64).sum();
    Census::new().with_count("items", items.len() as u64).with_count("bytes", bytes)
}

impl Service for Shelf {
    fn id(&self) -> &ServiceId {
        &self.id
    }
    fn kind(&self) -> &'static str {
        "shelf"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::local("memory", "/shelf")
    }
    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[async_trait]
impl BackupProvider for Shelf {
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        match self.fault {
            Some(Fault::BeginFails) => Err(Error::new(ErrorKind::Unreachable, "nothing listens")),
            Some(Fault::BeginHangs) => std::future::pending().await,
            Some(Fault::BeginPanics) => panic!("the shelf falls over"),
            _ => Ok(Box::new(ShelfDump {
                shelf: self.clone(),
                items: self.items(),
                point: PointInTime::new(cx.clock.now(), Consistency::Snapshot),
            })),
        }
    }

    async fn inspect(&self, artifact: &ArtifactInfo, mut data: ArtifactReader) -> Result<Inspection> {
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes).await.map_err(|e| Error::io("read", e).with_kind(ErrorKind::Integrity))?;
        assert_eq!(bytes.len() as u64, artifact.plain_bytes);
        Ok(Inspection::new(1))
    }

    async fn plan_restore(&self, source: &dyn ArtifactSource, _options: &RestoreOptions) -> Result<RestorePlan> {
        let mut plan = RestorePlan::new(self.id.clone(), "shelf", self.fingerprint());
        plan.artifacts = source.artifacts().iter().map(|artifact| artifact.name().clone()).collect();
        let there = |name: &ArtifactName| self.items().contains_key(name.as_str());
        let action = |name: &ArtifactName| if there(name) { RestoreAction::Overwrite } else { RestoreAction::Create };
        plan.actions =
            plan.artifacts.iter().map(|name| PlannedAction::new(action(name), format!("item {name}"))).collect();
        Ok(plan)
    }

    async fn restore(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        self.content.restores.fetch_add(1, Ordering::SeqCst);
        if let Some(Hook(hook)) = self.content.on_restore.lock().unwrap().take() {
            hook();
        }
        let old = |e: Error| e.with_target(TargetState::Old);
        match self.fault {
            Some(Fault::RestoreFails) => return Err(old(Error::new(ErrorKind::ToolFailed, "the tool refuses it"))),
            Some(Fault::RestorePanics) => panic!("the shelf falls over"),
            Some(Fault::RestoreHangs) => std::future::pending().await,
            Some(Fault::ServerIsDown) => return Err(old(Error::new(ErrorKind::Unreachable, "nothing listens"))),
            _ => {}
        }
        if plan.fingerprint != self.fingerprint() {
            return Err(old(Error::new(ErrorKind::Incompatible, "the shelf changed since the plan was made")));
        }
        let mut items = BTreeMap::new();
        for name in &plan.artifacts {
            let mut bytes = Vec::new();
            let mut reader = source.open(name).await.map_err(old)?;
            let read = reader.read_to_end(&mut bytes).await;
            read.map_err(|e| old(e.downcast().unwrap_or_else(|e| Error::io("read", e))))?;
            items.insert(name.as_str().to_owned(), Bytes::from(bytes));
        }
        let census = census_of(&items);
        assert_eq!(cx.expected.as_ref(), Some(&census));
        if self.fault == Some(Fault::LosesAnItem) {
            items.pop_first();
        }
        let census = census_of(&items);
        *self.content.items.lock().unwrap() = items;
        Ok(RestoreReport::new(self.id.clone(), census))
    }

    async fn census(&self) -> Result<Census> {
        Ok(census_of(&self.items()))
    }
}

struct ShelfDump {
    shelf: Shelf,
    items: BTreeMap<String, Bytes>,
    point: PointInTime,
}

impl ShelfDump {
    async fn write_one(&self, sink: &dyn ArtifactSink, name: &str, bytes: &Bytes) -> Result<()> {
        let spec = ArtifactSpec::new(ArtifactName::new(name)?, "bytes").with_restore_command("cat > item");
        let mut writer = sink.create(spec).await?;
        for (place, range) in chunks(bytes.len(), self.shelf.chunk_bytes).enumerate() {
            if place == 1 && self.shelf.fault == Some(Fault::RunHangsHalfway) {
                std::future::pending::<()>().await;
            }
            match writer.write(bytes.slice(range)).await {
                Err(_) if self.shelf.fault == Some(Fault::IgnoresWriteErrors) => {}
                written => written?,
            }
            self.shelf.content.chunks_written.fetch_add(1, Ordering::SeqCst);
        }
        if self.shelf.fault == Some(Fault::DropsTheFirstWriter)
            && Some(name) == self.items.keys().next().map(String::as_str)
        {
            return Ok(());
        }
        let receipt = writer.finish().await?;
        assert_eq!(receipt.plain_bytes, bytes.len() as u64);
        assert_eq!(receipt.plain_blake3, blake3::hash(bytes).to_hex().to_string());
        Ok(())
    }
}

impl ShelfDump {
    async fn write_interleaved(&self, sink: &dyn ArtifactSink) -> Result<()> {
        let mut writers = Vec::new();
        for (name, bytes) in &self.items {
            let spec = ArtifactSpec::new(ArtifactName::new(name)?, "bytes");
            writers.push((sink.create(spec).await?, bytes.clone()));
        }
        while writers.iter().any(|(_, bytes)| !bytes.is_empty()) {
            for (writer, bytes) in &mut writers {
                let chunk = bytes.split_to(bytes.len().min(self.shelf.chunk_bytes));
                writer.write(chunk).await?;
            }
        }
        for (writer, _) in writers {
            writer.finish().await?;
        }
        Ok(())
    }
}

fn chunks(bytes: usize, chunk_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..bytes).step_by(chunk_bytes).map(move |start| start..(start + chunk_bytes).min(bytes))
}

#[async_trait]
impl Dump for ShelfDump {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        if self.shelf.interleaved {
            self.write_interleaved(sink).await?;
            return Ok(DumpReport::new(census_of(&self.items), VendorInfo::new("Shelf")));
        }
        if self.shelf.fault == Some(Fault::WritesNothing) {
            return Ok(DumpReport::new(census_of(&self.items), VendorInfo::new("Shelf")));
        }
        for (name, bytes) in &self.items {
            match self.write_one(sink, name, bytes).await {
                Err(_) if self.shelf.fault == Some(Fault::IgnoresWriteErrors) => {}
                written => written?,
            }
            if self.shelf.fault == Some(Fault::FinishesTwoOfTheSameName) {
                self.write_one(sink, name, bytes).await?;
            }
        }
        if self.shelf.fault == Some(Fault::RunPanics) {
            panic!("the shelf falls over");
        }
        if self.shelf.fault == Some(Fault::RunFailsAtTheEnd) {
            return Err(Error::new(ErrorKind::ToolFailed, "the tool failed after its last byte"));
        }
        Ok(DumpReport::new(census_of(&self.items), VendorInfo::new("Shelf").with_server_version("1")))
    }
}

/// How long [`Fault::BeginHangs`] is waited for.
pub(crate) const SHORT_DEADLINE: Duration = Duration::from_millis(50);
