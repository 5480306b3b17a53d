//! A sink that throws away: what a dump costs without what becomes of it.

use async_trait::async_trait;
use bytes::Bytes;
use stackkit::backup::{ArtifactReceipt, ArtifactSink, ArtifactSpec, ArtifactWriter};

/// Takes every artifact, keeps none.
#[derive(Debug)]
pub(crate) struct NullSink;

#[async_trait]
impl ArtifactSink for NullSink {
    async fn create(&self, spec: ArtifactSpec) -> stackkit::Result<Box<dyn ArtifactWriter>> {
        Ok(Box::new(NullWriter { spec, plain_bytes: 0 }))
    }
}

struct NullWriter {
    spec: ArtifactSpec,
    plain_bytes: u64,
}

#[async_trait]
impl ArtifactWriter for NullWriter {
    async fn write(&mut self, chunk: Bytes) -> stackkit::Result<()> {
        self.plain_bytes += u64::try_from(chunk.len()).unwrap_or_default();
        Ok(())
    }

    async fn finish(self: Box<Self>) -> stackkit::Result<ArtifactReceipt> {
        Ok(ArtifactReceipt::new(self.spec.name, self.plain_bytes, ""))
    }
}
