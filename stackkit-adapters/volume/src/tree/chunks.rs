//! The outgoing byte stream: buffers of one size, filled in place, reused when the receiver has dropped them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{Result, VolumeError};

/// The size of one buffer. Large enough to make the hand-over between threads cheap, small enough to stay in the
/// cache of a core until the receiver takes it.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// The most buffers that are kept for reuse: those in the channel, the one being filled, and some that the receiver
/// still holds.
const FREE_MAX: usize = 12;

/// Fills buffers and sends them.
#[derive(Debug)]
pub(crate) struct Chunks {
    sender: mpsc::Sender<Bytes>,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    buffer: Vec<u8>,
    filled: usize,
}

/// A sent buffer, which returns to its pool when it is dropped.
struct Sent {
    buffer: Vec<u8>,
    filled: usize,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < FREE_MAX {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl Chunks {
    pub(crate) fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, free: Arc::default(), buffer: vec![0; CHUNK_BYTES], filled: 0 }
    }

    /// Appends a copy of `bytes`.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let length = space.len().min(bytes.len());
            space[..length].copy_from_slice(&bytes[..length]);
            self.advance(length);
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// Appends `length` zeros.
    pub(crate) fn put_zeros(&mut self, mut length: u64) -> Result<()> {
        while length > 0 {
            let space = self.space()?;
            let step = usize::try_from(length).unwrap_or(CHUNK_BYTES).min(space.len());
            space[..step].fill(0);
            self.advance(step);
            length -= step as u64;
        }
        Ok(())
    }

    /// The free rest of the buffer, to be filled in place; never empty.
    pub(crate) fn space(&mut self) -> Result<&mut [u8]> {
        if self.filled == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    /// As [`space`](Self::space), with room for `length` bytes at least, which must be at most [`CHUNK_BYTES`].
    pub(crate) fn room(&mut self, length: usize) -> Result<&mut [u8]> {
        if CHUNK_BYTES - self.filled < length {
            self.flush()?;
        }
        self.space()
    }

    /// Takes `length` bytes of the space as written.
    pub(crate) fn advance(&mut self, length: usize) {
        self.filled += length;
    }

    /// Sends what is there. Waits while the channel is full; `Cancelled` if nobody receives any more.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        let next = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let next = next.unwrap_or_else(|| vec![0; CHUNK_BYTES]);
        let buffer = std::mem::replace(&mut self.buffer, next);
        let sent = Sent { buffer, filled: self.filled, free: Arc::clone(&self.free) };
        self.filled = 0;
        self.sender.blocking_send(Bytes::from_owner(sent)).map_err(|_unsent| VolumeError::Cancelled)
    }
}
