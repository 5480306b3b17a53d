//! `COPY … TO STDOUT`.

use bytes::{Buf, Bytes, BytesMut};
use stackkit_core::Result;

use super::frames::{Frames, Next};
use super::message::Message;
use super::{CHUNK_BYTES, Wire, odd};
use crate::error::PostgresError;

/// A copy under way. One that is dropped before its end leaves the connection of no use.
pub(crate) struct CopyOut<'a> {
    wire: &'a mut Wire,
    frames: Frames,
    rows: BytesMut,
    /// Whether the server said its last word on it.
    done: bool,
}

impl Wire {
    /// Runs statements of which the last is a `COPY … TO STDOUT`. With `hash` each row is hashed.
    ///
    /// # Errors
    /// The server's; the connection is ready for the next query then, unless it ended.
    pub(crate) async fn copy_out(&mut self, sql: &[u8], hash: bool) -> Result<CopyOut<'_>> {
        self.send(sql).await?;
        loop {
            match self.message().await? {
                Message::CopyOut => break,
                Message::Error(reply) => return Err(self.failed(reply).await),
                Message::Ready | Message::CopyIn => return Err(odd()),
                _ => {}
            }
        }
        Ok(CopyOut { wire: self, frames: Frames::new(hash), rows: BytesMut::new(), done: false })
    }
}

impl CopyOut<'_> {
    /// The next rows, about [`CHUNK_BYTES`] at a time; nothing at the end, when the server is ready for the next query.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while !self.done && self.rows.len() < CHUNK_BYTES {
            if self.rows.capacity() == 0 {
                // What is read last may double it.
                self.rows.reserve(2 * CHUNK_BYTES);
            }
            let (used, next) = self.frames.feed(&self.wire.input, &mut self.rows)?;
            self.wire.input.advance(used);
            match next {
                Next::Message => self.end().await?,
                Next::Bytes if self.rows.len() < CHUNK_BYTES => self.wire.fill().await?,
                Next::Bytes => {}
            }
        }
        Ok((!self.rows.is_empty()).then(|| self.rows.split().freeze()))
    }

    /// How many rows came, and the sum of their hashes.
    pub(crate) fn counted(&self) -> (u64, Option<u64>) {
        (self.frames.rows(), self.frames.hash())
    }

    /// Reads a message between rows. It is the end of the copy as a rule, but may be a notice.
    async fn end(&mut self) -> Result<()> {
        match self.wire.message().await? {
            Message::Ready => self.done = true,
            Message::Error(reply) => {
                self.done = true;
                return Err(self.wire.failed(reply).await);
            }
            Message::Row(_) | Message::CopyIn | Message::CopyOut => return Err(PostgresError::Answer("rows").into()),
            Message::Complete(_) | Message::Other => {}
        }
        Ok(())
    }
}
