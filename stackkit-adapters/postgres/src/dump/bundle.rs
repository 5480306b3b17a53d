//! Many small files in one artifact: a POSIX tar.

use bytes::{BufMut, BytesMut};
use stackkit_core::backup::{ArtifactSink, ArtifactWriter};
use stackkit_core::{Error, Result};

use super::by_hand;
use crate::layout::formats;
use crate::wire::CHUNK_BYTES;

/// How large an archive grows before another one is begun: one table in it is read without most of the others.
const BUNDLE_BYTES_MAX: u64 = 32 << 20;

/// The unit of a tar.
const BLOCK_BYTES: usize = 512;

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
        self.buffer.put_slice(&header(file, bytes)?);
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
        let over = self.position() % BLOCK_BYTES as u64;
        if over > 0 {
            let missing = usize::try_from(BLOCK_BYTES as u64 - over).unwrap_or(0);
            self.buffer.put_bytes(0, missing);
        }
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

/// The header of a regular file, as POSIX.1-1988 has it; sizes from 8 GiB on as GNU and BSD write them.
fn header(file: &str, bytes: u64) -> Result<[u8; BLOCK_BYTES]> {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| match block.get_mut(at..at + text.len()) {
        Some(place) => place.copy_from_slice(text),
        None => debug_assert!(false, "a field is outside of the block"),
    };
    if file.len() > 100 {
        return Err(Error::unexpected("the name of a file in an archive is too long").with_context("file", file));
    }
    put(0, file.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    match bytes {
        ..0o100_000_000_000 => put(124, format!("{bytes:011o}\0").as_bytes()),
        _ => {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &bytes.to_be_bytes());
        }
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    block[148..156].copy_from_slice(sum.as_bytes());
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_tar_writes() {
        let block = header("7.dat", 1234).expect("a header");
        assert_eq!(&block[..6], b"7.dat\0");
        assert_eq!(&block[124..136], b"00000002322\0");
        assert_eq!(&block[257..265], b"ustar\x0000");
        let mut blank = block;
        blank[148..156].fill(b' ');
        let sum: u32 = blank.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(&block[148..156], format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(header("1.dat", 1 << 40).expect("a header")[124], 0x80);
        assert!(header(&"x".repeat(101), 0).is_err());
    }
}
