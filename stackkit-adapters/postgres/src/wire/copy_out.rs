//! `COPY … TO STDOUT`.

use bytes::{Buf, Bytes, BytesMut};
use stackkit_core::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::frames::{Frames, Next};
use super::message::Message;
use super::{CHUNK_BYTES, Wire, odd};
use crate::error::PostgresError;

/// How many bytes of rows are handed on at once: what a repository takes without a copy, which is a frame of its own.
const ROWS_BYTES: usize = 1 << 20;

/// Chunks that wait for the storage: one, while another is being filled, so that the server never waits for a wake-up.
const CHUNKS_WAITING: usize = 1;

/// A copy under way, read by a task of its own: the thread that hears of the server's bytes reads them too, whatever else
/// the caller's task does. One that is dropped before its end leaves the connection of no use.
pub(crate) struct CopyOut<'a> {
    wire: &'a mut Wire,
    chunks: mpsc::Receiver<Bytes>,
    /// `None` once the server said its last word on it.
    reading: Option<AbortOnDropHandle<Read>>,
    counted: (u64, Option<u64>),
}

/// What the task gives back.
struct Read {
    wire: Wire,
    counted: (u64, Option<u64>),
    ended: Result<()>,
}

impl Wire {
    /// Runs statements of which one is a `COPY … TO STDOUT`; those behind it have no rows. With `hash` each row is hashed.
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
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        let reader = Reader {
            wire: std::mem::replace(self, Wire::closed()),
            frames: Frames::new(hash),
            rows: BytesMut::new(),
            done: false,
        };
        let reading = Some(AbortOnDropHandle::new(tokio::spawn(reader.run(sender))));
        Ok(CopyOut { wire: self, chunks, reading, counted: (0, None) })
    }
}

impl CopyOut<'_> {
    /// The next rows, [`ROWS_BYTES`] at a time; nothing at the end, when the server is ready for the next query.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        let Some(reading) = self.reading.take() else { return Ok(None) };
        let cancelled = |e| Error::new(ErrorKind::Cancelled, "reading a table was cancelled").with_source(e);
        let Read { wire, counted, ended } = reading.await.map_err(cancelled)?;
        (*self.wire, self.counted) = (wire, counted);
        ended.map(|()| None)
    }

    /// How many rows came, and the sum of their hashes; known at the end.
    pub(crate) fn counted(&self) -> (u64, Option<u64>) {
        self.counted
    }
}

/// The reading side.
struct Reader {
    wire: Wire,
    frames: Frames,
    rows: BytesMut,
    done: bool,
}

impl Reader {
    /// Reads to the end, or until nobody wants more.
    async fn run(mut self, chunks: mpsc::Sender<Bytes>) -> Read {
        let ended = loop {
            let chunk = match self.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if chunks.send(chunk).await.is_err() {
                break Ok(());
            }
        };
        Read { wire: self.wire, counted: (self.frames.rows(), self.frames.hash()), ended }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while !self.done && self.rows.len() < ROWS_BYTES {
            let (used, next) = self.frames.feed(&self.wire.input, &mut self.rows)?;
            self.wire.input.advance(used);
            match next {
                Next::Message => self.end().await?,
                Next::Bytes if self.rows.len() < ROWS_BYTES => self.wire.fill().await?,
                Next::Bytes => {}
            }
        }
        if self.rows.len() <= ROWS_BYTES {
            let rows = std::mem::take(&mut self.rows);
            return Ok((!rows.is_empty()).then(|| rows.freeze()));
        }
        let behind = self.rows.split_off(ROWS_BYTES);
        // What is read last may be as much as is read at once. A small table never comes here.
        let mut next = BytesMut::with_capacity(ROWS_BYTES + CHUNK_BYTES.max(behind.len()));
        next.extend_from_slice(&behind);
        Ok(Some(std::mem::replace(&mut self.rows, next).freeze()))
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
