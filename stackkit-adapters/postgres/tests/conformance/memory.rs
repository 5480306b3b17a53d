//! A sink and a source in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactReceipt, ArtifactSink, ArtifactSource, ArtifactSpec,
    ArtifactWriter, DumpContext, DumpReport, RestoreContext, RestoreOptions, RestoreReport,
};
use stackkit_core::{BackupProvider, Result, async_trait};
use stackkit_postgres::Postgres;

type Artifacts = BTreeMap<ArtifactName, (ArtifactSpec, Vec<u8>)>;

/// Finished artifacts by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    finished: Arc<Mutex<Artifacts>>,
    infos: Vec<ArtifactInfo>,
}

impl Memory {
    pub(crate) fn count(&self) -> usize {
        self.finished.lock().expect("no panic").len()
    }

    /// The bytes of the only artifact.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let finished = self.finished.lock().expect("no panic");
        assert_eq!(finished.len(), 1, "one artifact");
        finished.values().next().expect("one artifact").1.clone()
    }

    /// The bytes of one artifact.
    pub(crate) fn bytes_of(&self, name: &str) -> Vec<u8> {
        self.finished.lock().expect("no panic")[&ArtifactName::new(name).expect("a name")].1.clone()
    }

    /// The names of all artifacts.
    pub(crate) fn names(&self) -> Vec<String> {
        self.finished.lock().expect("no panic").keys().map(ToString::to_string).collect()
    }

    /// Puts an artifact in, or in another's place; [`sealed`](Self::sealed) makes it part of the source.
    pub(crate) fn put(&self, name: &str, format: &str, bytes: Vec<u8>) {
        let name = ArtifactName::new(name).expect("a name");
        let spec = ArtifactSpec::new(name.clone(), format);
        self.finished.lock().expect("no panic").insert(name, (spec, bytes));
    }

    /// A source of what was finished.
    pub(crate) fn sealed(mut self) -> Self {
        let finished = self.finished.lock().expect("no panic");
        let info = |(spec, bytes): &(ArtifactSpec, Vec<u8>)| ArtifactInfo::new(spec.clone(), bytes.len() as u64, "");
        self.infos = finished.values().map(info).collect();
        drop(finished);
        self
    }

    /// The source with other bytes in its only artifact.
    pub(crate) fn with_bytes(self, bytes: &[u8]) -> Self {
        for artifact in self.finished.lock().expect("no panic").values_mut() {
            artifact.1 = bytes.to_vec();
        }
        self.sealed()
    }
}

struct Writer {
    spec: ArtifactSpec,
    bytes: Vec<u8>,
    sink: Memory,
}

#[async_trait]
impl ArtifactSink for Memory {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        Ok(Box::new(Writer { spec, bytes: Vec::new(), sink: self.clone() }))
    }
}

#[async_trait]
impl ArtifactWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        let receipt = ArtifactReceipt::new(self.spec.name.clone(), self.bytes.len() as u64, "");
        let mut finished = self.sink.finished.lock().expect("no panic");
        finished.insert(self.spec.name.clone(), (self.spec, self.bytes));
        Ok(receipt)
    }
}

#[async_trait]
impl ArtifactSource for Memory {
    fn artifacts(&self) -> &[ArtifactInfo] {
        &self.infos
    }

    async fn open(&self, name: &ArtifactName) -> Result<ArtifactReader> {
        let bytes = self.finished.lock().expect("no panic")[name].1.clone();
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }

    async fn open_range(&self, name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        let range =
            usize::try_from(plain_bytes.start).expect("small")..usize::try_from(plain_bytes.end).expect("small");
        let bytes = self.finished.lock().expect("no panic")[name].1[range].to_vec();
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }
}

/// Dumps into memory.
pub(crate) async fn dump(service: &Postgres) -> Result<(Memory, DumpReport)> {
    let sink = Memory::default();
    let report = service.begin(&DumpContext::new()).await?.run(&sink).await?;
    Ok((sink.sealed(), report))
}

/// Plans and restores, comparing the census of the dump.
pub(crate) async fn restore(service: &Postgres, source: &Memory, report: &DumpReport) -> Result<RestoreReport> {
    let plan = service.plan_restore(source, &RestoreOptions::new()).await?;
    assert_eq!(plan.missing, Vec::<String>::new());
    service.restore(plan, source, &RestoreContext::new().with_expected(report.census.clone())).await
}
