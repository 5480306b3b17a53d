//! A stream of bytes that is read in pieces of known length, and streams made of pieces.

use std::future::Future;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use stackkit_core::backup::ArtifactReader;
use stackkit_core::{Error, Result};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

/// How much is read at once, and the longest piece that is given on: with the buffer behind it all that one stream of an
/// archive keeps in memory.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// A buffered reader that knows where it is.
pub(crate) struct Input {
    reader: ArtifactReader,
    buffer: BytesMut,
    /// Where the buffer begins in the archive.
    position: u64,
}

impl Input {
    /// Reads `reader`, which stands at `position` of the archive.
    pub(crate) fn new(reader: ArtifactReader, position: u64) -> Self {
        Self { reader, buffer: BytesMut::new(), position }
    }

    /// Where the next byte is in the archive.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// What is in memory.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads on; `false` at the end.
    pub(crate) async fn more(&mut self) -> Result<bool> {
        self.buffer.reserve(PIECE_BYTES);
        Ok(self.reader.read_buf(&mut self.buffer).await.map_err(of_io)? > 0)
    }

    /// Leaves `count` bytes of the buffer behind.
    pub(crate) fn consume(&mut self, count: usize) {
        let count = count.min(self.buffer.len());
        self.buffer.advance(count);
        self.position += count as u64;
    }

    /// The next bytes, at least one and at most `limit`; nothing at the end.
    pub(crate) async fn piece(&mut self, limit: u64) -> Result<Option<Bytes>> {
        if self.buffer.is_empty() && !self.more().await? {
            return Ok(None);
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let count = self.buffer.len().min(limit).min(PIECE_BYTES);
        self.position += count as u64;
        Ok(Some(self.buffer.split_to(count).freeze()))
    }

    /// Exactly `count` bytes, which must be few.
    pub(crate) async fn exact(&mut self, count: usize) -> Result<Bytes> {
        while self.buffer.len() < count {
            if !self.more().await? {
                return Err(cut());
            }
        }
        self.position += count as u64;
        Ok(self.buffer.split_to(count).freeze())
    }

    /// The next byte; nothing at the end.
    pub(crate) async fn byte(&mut self) -> Result<Option<u8>> {
        Ok(self.piece(1).await?.and_then(|piece| piece.first().copied()))
    }

    /// A sign byte and a little-endian magnitude of `int_bytes`, which must be none below zero.
    pub(crate) async fn int(&mut self, int_bytes: usize) -> Result<u32> {
        let bytes = self.exact(1 + int_bytes).await?;
        let is_negative = bytes.first() != Some(&0);
        let magnitude = bytes.iter().skip(1).rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        // A number of a large object takes all 32 bits, and has no sign where the vendor prints it.
        match (is_negative, u32::try_from(magnitude)) {
            (false, Ok(value)) => Ok(value),
            (true, Ok(value)) => Ok(value.wrapping_neg()),
            _ => Err(Error::integrity("the archive holds an impossible number")),
        }
    }
}

/// The archive ends where more must follow.
pub(super) fn cut() -> Error {
    Error::integrity("the archive ends too early")
}

/// The storage's own error travels inside that of the reader.
pub(crate) fn of_io(error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| Error::io("read the archive", error))
}

/// Something that gives bytes piece by piece.
pub(super) trait Pieces: Send + 'static {
    /// The next piece, never empty; nothing at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;
}

/// A reader of `pieces`.
pub(super) fn reader<P: Pieces>(pieces: P) -> ArtifactReader {
    let stream = stream::try_unfold(pieces, |mut pieces| async move {
        let piece = pieces.next().await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(piece.map(|piece| (piece, pieces)))
    });
    Box::new(StreamReader::new(Box::pin(stream)))
}
