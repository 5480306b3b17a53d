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

/// A copy under way. One that is dropped before its end leaves the connection of no use, and the server undoes it.
pub(crate) struct CopyIn<'a> {
    wire: &'a mut Wire,
}

impl Wire {
    /// Runs statements of which the last is a `COPY … FROM STDIN`.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn copy_in(&mut self, sql: &[u8]) -> Result<CopyIn<'_>> {
        self.send(sql).await?;
        loop {
            match self.message().await? {
                Message::CopyIn => return Ok(CopyIn { wire: self }),
                Message::Error(reply) => return Err(self.failed(reply).await),
                Message::Ready | Message::CopyOut => return Err(odd()),
                _ => {}
            }
        }
    }
}

impl CopyIn<'_> {
    /// Sends all of `source` in large messages.
    ///
    /// # Errors
    /// The source's, when the server was told that the copy failed; the server's own, at once. The copy is over then, and
    /// the connection ready for the next statement.
    pub(crate) async fn send(&mut self, source: &mut (dyn AsyncRead + Send + Unpin)) -> Result<()> {
        let [mut message, mut next] = [(); 2].map(|()| BytesMut::with_capacity(HEADER_BYTES + CHUNK_BYTES));
        let mut read = read_message(source, &mut message).await;
        loop {
            if let Err(error) = read {
                return Err(self.fail(error).await);
            }
            if let Some(reply) = self.refusal()? {
                return Err(self.wire.failed(reply).await);
            }
            if message.len() == HEADER_BYTES {
                return Ok(());
            }
            // The next rows are made ready while the server takes these.
            let (written, then) = tokio::join!(self.wire.write(&message), read_message(source, &mut next));
            written?;
            read = then;
            std::mem::swap(&mut message, &mut next);
        }
    }

    /// Ends the copy. Gives how many rows the server took.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn finish(mut self) -> Result<u64> {
        self.wire.write(b"c\0\0\0\x04").await?;
        self.copied().await
    }

    /// Tells the server that the source failed with `error`, which is given back.
    async fn fail(&mut self, error: Error) -> Error {
        // What the server says to it is what it was told.
        let told = async {
            self.wire.write(COPY_FAIL).await?;
            self.copied().await
        };
        told.await.err();
        error
    }

    /// An error that the server sent already, without waiting for one.
    fn refusal(&mut self) -> Result<Option<Reply>> {
        if let Some(filled) = self.wire.fill().now_or_never() {
            filled?;
        }
        while let Some(message) = super::message::take(&mut self.wire.input)? {
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
            match self.wire.message().await? {
                Message::Complete(tag) => rows = tag.strip_prefix("COPY ").and_then(|n| n.parse().ok()).unwrap_or(rows),
                Message::Ready => return Ok(rows),
                Message::Error(reply) => return Err(self.wire.failed(reply).await),
                Message::Row(_) | Message::CopyIn | Message::CopyOut => {
                    return Err(PostgresError::Answer("the end of a copy").into());
                }
                Message::Other => {}
            }
        }
    }
}

/// Fills `message` with what `source` has next: a header and up to [`CHUNK_BYTES`], or a header alone at the end.
async fn read_message(source: &mut (dyn AsyncRead + Send + Unpin), message: &mut BytesMut) -> Result<()> {
    message.clear();
    message.put_slice(&[b'd', 0, 0, 0, 0]);
    while message.len() < CHUNK_BYTES {
        match source.read_buf(message).await {
            Ok(0) => break,
            Ok(_some) => {}
            Err(error) => {
                return Err(error.downcast::<Error>().unwrap_or_else(|error| Error::io("read a dump", error)));
            }
        }
    }
    let length = i32::try_from(message.len() - 1).map_err(|_too_long| Error::unexpected("a message is too long"))?;
    message[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_the_refusal_is_right() {
        assert_eq!(COPY_FAIL.len() - 1, usize::from(COPY_FAIL[4]));
    }
}
