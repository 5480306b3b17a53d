//! `COPY … FROM STDIN`.

use bytes::{BufMut, BytesMut};
use futures_util::FutureExt;
use stackkit_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::message::Message;
use super::{CHUNK_BYTES, Wire, odd};
use crate::error::{PostgresError, Reply};

/// What the server's log says of a copy whose source failed.
const COPY_FAIL: &[u8] = b"f\0\0\0\x23the data to copy can't be read\0";

/// A tag and a length.
const HEADER_BYTES: usize = 5;

impl Wire {
    /// Runs statements of which the last is a `COPY … FROM STDIN`, with all that `source` gives. Gives how many rows the
    /// server took.
    ///
    /// # Errors
    /// The source's, when the server was told that the copy failed; the server's own.
    pub(crate) async fn copy_in(&mut self, sql: &[u8], source: &mut (dyn AsyncRead + Send + Unpin)) -> Result<u64> {
        self.send(sql).await?;
        loop {
            match self.message().await? {
                Message::CopyIn => break,
                Message::Error(reply) => return Err(self.failed(reply).await),
                Message::Ready | Message::CopyOut => return Err(odd()),
                _ => {}
            }
        }
        match self.send_data(source).await? {
            Sent::All => {}
            Sent::Refused(reply) => return Err(self.failed(reply).await),
            Sent::SourceFailed(error) => {
                self.write(COPY_FAIL).await?;
                // What the server says to it is what it was told.
                self.copied().await.err();
                return Err(error);
            }
        }
        self.copied().await
    }

    /// Sends all of `source` in large messages. An error of the server ends it at once.
    async fn send_data(&mut self, source: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Sent> {
        let mut message = BytesMut::with_capacity(HEADER_BYTES + CHUNK_BYTES);
        loop {
            message.clear();
            message.put_slice(&[b'd', 0, 0, 0, 0]);
            while message.len() < CHUNK_BYTES {
                match source.read_buf(&mut message).await {
                    Ok(0) => break,
                    Ok(_some) => {}
                    Err(error) => {
                        let error = error.downcast::<Error>().unwrap_or_else(|e| Error::io("read a dump", e));
                        return Ok(Sent::SourceFailed(error));
                    }
                }
            }
            let is_end = message.len() == HEADER_BYTES;
            if let Some(reply) = self.refusal()? {
                return Ok(Sent::Refused(reply));
            }
            if is_end {
                self.write(b"c\0\0\0\x04").await?;
                return Ok(Sent::All);
            }
            let length =
                i32::try_from(message.len() - 1).map_err(|_too_long| Error::unexpected("a message is too long"))?;
            message[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
            self.write(&message).await?;
        }
    }

    /// An error that the server sent already, without waiting for one.
    fn refusal(&mut self) -> Result<Option<Reply>> {
        if let Some(filled) = self.fill().now_or_never() {
            filled?;
        }
        while let Some(message) = super::message::take(&mut self.input)? {
            if let Message::Error(reply) = message {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// Waits for the end of a copy.
    async fn copied(&mut self) -> Result<u64> {
        let mut rows = 0;
        loop {
            match self.message().await? {
                Message::Complete(tag) => rows = tag.strip_prefix("COPY ").and_then(|n| n.parse().ok()).unwrap_or(rows),
                Message::Ready => return Ok(rows),
                Message::Error(reply) => return Err(self.failed(reply).await),
                Message::Row(_) | Message::CopyIn | Message::CopyOut => {
                    return Err(PostgresError::Answer("the end of a copy").into());
                }
                Message::Other => {}
            }
        }
    }
}

/// How sending came to its end.
enum Sent {
    All,
    Refused(Reply),
    SourceFailed(Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_the_refusal_is_right() {
        assert_eq!(COPY_FAIL.len() - 1, usize::from(COPY_FAIL[4]));
    }
}
