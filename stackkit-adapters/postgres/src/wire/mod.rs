//! A session of our own for `COPY`: the driver logs in, then its stream is taken over.
//!
//! The driver hands on one message a row, which costs more than the row itself; here rows are gathered as they come, and
//! SQL is bytes, as the text of a database may be no UTF-8.

mod copy_in;
mod copy_out;
mod frames;
mod message;
mod shared;

use bytes::{BufMut, Bytes, BytesMut};
use stackkit_core::{Error, ErrorKind, Phase, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) use copy_in::CopyIn;
pub(crate) use copy_out::CopyOut;
pub(crate) use shared::{Io, Shared};

use crate::client;
use crate::config::PostgresConfig;
use crate::connect::connect;
use crate::error::{PostgresError, Reply};
use message::Message;

/// How much is read from the connection, and handed on, at once: below it, calls cost more than the bytes.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// One row of a query: each value as text, if it is not NULL.
pub(crate) type Row = Vec<Option<Bytes>>;

/// A connection that speaks the simple query protocol. After a future of it was dropped, it may only be dropped.
pub(crate) struct Wire {
    stream: Box<dyn Io>,
    /// What was read and not yet understood.
    input: BytesMut,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    /// Opens a connection for work that takes as long as it takes, but for waiting for locks. The text settings are those
    /// that a dump is read and written with; the encoding is UTF-8.
    pub(crate) async fn open(config: &PostgresConfig, database: &str) -> Result<Self> {
        let stream = connect(config, database, None).await?.into_stream()?;
        let mut wire = Self { stream, input: BytesMut::with_capacity(CHUNK_BYTES) };
        wire.execute(client::prepare_long(config).as_bytes()).await?;
        Ok(wire)
    }

    /// One that is in use elsewhere, or was never opened.
    fn closed() -> Self {
        Self { stream: Box::new(tokio::io::empty()), input: BytesMut::new() }
    }

    /// Runs statements whose rows are of no interest.
    pub(crate) async fn execute(&mut self, sql: &[u8]) -> Result<()> {
        self.send(sql).await?;
        loop {
            match self.message().await? {
                Message::Ready => return Ok(()),
                Message::Error(reply) => return Err(self.failed(reply).await),
                Message::CopyIn | Message::CopyOut => return Err(odd()),
                _ => {}
            }
        }
    }

    /// The rows of all statements in `sql`.
    pub(crate) async fn rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.send(sql.as_bytes()).await?;
        let mut rows = Vec::new();
        loop {
            match self.message().await? {
                Message::Row(row) => rows.push(row),
                Message::Ready => return Ok(rows),
                Message::Error(reply) => return Err(self.failed(reply).await),
                Message::CopyIn | Message::CopyOut => return Err(odd()),
                _ => {}
            }
        }
    }

    async fn send(&mut self, sql: &[u8]) -> Result<()> {
        let length = i32::try_from(sql.len() + 5).map_err(|_too_long| Error::unexpected("a statement is too long"))?;
        let mut message = BytesMut::with_capacity(sql.len() + 6);
        message.put_u8(b'Q');
        message.put_i32(length);
        message.put_slice(sql);
        message.put_u8(0);
        match self.write(&message).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_word().await.unwrap_or(error)),
        }
    }

    /// Why the server ended the connection, if it said so before.
    async fn last_word(&mut self) -> Option<Error> {
        while let Ok(message) = self.message().await {
            if let Message::Error(reply) = message {
                return Some(PostgresError::Server(reply).into());
            }
        }
        None
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.map_err(ended)?;
        self.stream.flush().await.map_err(ended)
    }

    /// Reads more from the server.
    async fn fill(&mut self) -> Result<()> {
        self.input.reserve(CHUNK_BYTES.saturating_sub(self.input.len()).max(1));
        match self.stream.read_buf(&mut self.input).await.map_err(ended)? {
            0 => Err(ended(std::io::ErrorKind::UnexpectedEof.into())),
            _some => Ok(()),
        }
    }

    async fn message(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = message::take(&mut self.input)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// The error of a statement, once the server is ready for the next one; the connection may have ended instead.
    async fn failed(&mut self, reply: Reply) -> Error {
        while let Ok(message) = self.message().await {
            if matches!(message, Message::Ready) {
                break;
            }
        }
        PostgresError::Server(reply).into()
    }
}

/// The text of a value that is not NULL.
pub(crate) fn value(row: &Row, index: usize) -> Result<&str> {
    let bytes = row.get(index).and_then(Option::as_ref).ok_or(PostgresError::Answer("a value that is not null"))?;
    Ok(std::str::from_utf8(bytes).map_err(|_not_utf8| PostgresError::Answer("text in UTF-8"))?)
}

fn ended(source: std::io::Error) -> Error {
    Error::new(ErrorKind::Unreachable, "the connection ended").with_phase(Phase::Query).with_source(source)
}

fn odd() -> Error {
    PostgresError::Answer("another message").into()
}
