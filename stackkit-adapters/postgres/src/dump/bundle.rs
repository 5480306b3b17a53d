//! Many small files in one artifact: a POSIX tar.

use bytes::{BufMut, BytesMut};
use stackkit_core::Result;
use stackkit_core::backup::{ArtifactSink, ArtifactWriter};

use super::by_hand;
use crate::archive::tar::{self, BLOCK_BYTES};
use crate::layout::formats;
use crate::wire::CHUNK_BYTES;

/// How large an archive grows before another one is begun: one table in it is read without most of the others.
const BUNDLE_BYTES_MAX: u64 = 32 << 20;

/// A tar under way.
pub(super) struct Bundle {
    writer: Box<dyn ArtifactWriter>,
    name: String,
    /// What was gathered and not yet handed on.
    buffer: BytesMut,
    /// Where the buffer begins.
    written: u64,
}

impl Bundle {
    /// Begins the artifact `file` of the database whose artifacts begin with `prefix`.
    pub(super) async fn create(sink: &dyn ArtifactSink, prefix: &str, file: &str) -> Result<Self> {
        let spec = by_hand::spec(prefix, file, formats::FILES)?;
        let name = spec.name.to_string();
        let writer = sink.create(spec).await?;
        Ok(Self { writer, name, buffer: BytesMut::with_capacity(2 * CHUNK_BYTES), written: 0 })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Begins a file of `bytes` bytes. Gives where its content begins.
    pub(super) fn begin(&mut self, file: &str, bytes: u64) -> Result<u64> {
        self.buffer.put_slice(&tar::header(file, bytes)?);
        Ok(self.position())
    }

    /// Appends content of the file that was begun.
    pub(super) async fn append(&mut self, content: &[u8]) -> Result<()> {
        self.buffer.put_slice(content);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Ends the file that was begun.
    pub(super) fn end(&mut self) {
        // Every file begins at a block, so the archive is as far from the next one as the file is.
        self.buffer.put_bytes(0, tar::padding(self.position()));
    }

    /// Whether it is large enough.
    pub(super) fn is_full(&self) -> bool {
        self.position() >= BUNDLE_BYTES_MAX
    }

    /// Ends the archive, which then exists.
    pub(super) async fn finish(mut self) -> Result<()> {
        self.buffer.put_bytes(0, 2 * BLOCK_BYTES);
        self.flush().await?;
        self.writer.finish().await.map(drop)
    }

    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    async fn flush(&mut self) -> Result<()> {
        self.written += self.buffer.len() as u64;
        self.writer.write(self.buffer.split().freeze()).await?;
        self.buffer.reserve(2 * CHUNK_BYTES);
        Ok(())
    }
}
