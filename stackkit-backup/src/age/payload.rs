//! The payload: chunks of 64 KiB, each sealed with a nonce of its own that counts, the last one with a flag.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, Tag};
use stackkit_core::{Error, Result};

use super::{FileKey, cut, damaged, stanza};

/// Plain bytes in a chunk; only the last one is shorter.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// Bytes of the tag behind each chunk.
pub(crate) const TAG_BYTES: usize = 16;

/// Bytes of a full chunk with its tag.
pub(crate) const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

/// Bytes between header and chunks, which make the payload's key.
pub(crate) const NONCE_BYTES: usize = 16;

const PAYLOAD_INFO: &[u8] = b"payload";

/// Where a chunk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Another follows: it is full.
    Inner,
    /// None follows. It is empty only if the payload is.
    Last,
}

impl Chunk {
    /// The length of the only chunk that holds nothing.
    pub(crate) const EMPTY: usize = 0;
}

/// The bytes of all chunks that hold `plain_bytes`, tags included.
pub(crate) fn sealed_bytes(plain_bytes: u64) -> u64 {
    let chunks = plain_bytes.div_ceil(CHUNK_BYTES as u64).max(1);
    plain_bytes.saturating_add(chunks.saturating_mul(TAG_BYTES as u64))
}

/// Seals the chunks of one payload in their order. No nonce comes twice: the counter is its own, and a file key is
/// used for one payload.
pub(crate) struct Sealer {
    key: LessSafeKey,
    next: u64,
}

impl Sealer {
    pub(super) fn new(file_key: &FileKey, nonce: &[u8]) -> Result<Self> {
        Ok(Self { key: key(file_key, nonce)?, next: 0 })
    }

    /// Seals the last `chunk_bytes` bytes of `buffer` in place, as the next chunk, and puts the tag behind them.
    ///
    /// # Errors
    /// `Unexpected` if the chunk has not the size of one, or follows the last one.
    pub(crate) fn seal(&mut self, buffer: &mut Vec<u8>, chunk_bytes: usize, chunk: Chunk) -> Result<()> {
        let fits = match chunk {
            Chunk::Inner => chunk_bytes == CHUNK_BYTES,
            Chunk::Last => chunk_bytes <= CHUNK_BYTES && (chunk_bytes > 0 || self.next == 0),
        };
        let start = buffer.len().checked_sub(chunk_bytes).filter(|_| fits);
        let wrong = || Error::unexpected("a chunk can't be encrypted");
        let (start, number) = (start.ok_or_else(wrong)?, self.next);
        // The last chunk leaves no number for another one.
        let following = if chunk == Chunk::Last { u64::MAX } else { number + 1 };
        self.next = if number == u64::MAX { return Err(wrong()) } else { following };
        let sealed = self.key.seal_in_place_separate_tag(nonce(number, chunk), Aad::empty(), &mut buffer[start..]);
        buffer.extend_from_slice(sealed.map_err(|ring::error::Unspecified| wrong())?.as_ref());
        Ok(())
    }
}

/// A chunk that is not the one that should be at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk {
    /// Its number, counted from 0.
    pub(crate) chunk: u64,
}

impl fmt::Display for BadChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} is not the one that was written", self.chunk)
    }
}

impl std::error::Error for BadChunk {}

/// Opens any chunk of one payload.
pub(crate) struct Opener {
    key: LessSafeKey,
}

impl Opener {
    /// What opens the payload with this nonce.
    ///
    /// # Errors
    /// `Integrity` if the nonce is not as long as one.
    pub(crate) fn new(file_key: &FileKey, nonce: &[u8]) -> Result<Self> {
        if nonce.len() != NONCE_BYTES {
            return Err(cut());
        }
        Ok(Self { key: key(file_key, nonce)? })
    }

    /// Opens chunks that lie beside each other, the first of them `number`, and closes the gaps between them. The last
    /// of them is `last`. Gives how many plain bytes stand at the start of `sealed`.
    ///
    /// # Errors
    /// Naming the first one that is not the chunk that it should be.
    pub(crate) fn open_run(
        &self,
        mut number: u64,
        last: Chunk,
        sealed: &mut [u8],
    ) -> std::result::Result<usize, BadChunk> {
        let (mut from, mut to) = (0, 0);
        loop {
            let end = sealed.len().min(from + SEALED_CHUNK_BYTES);
            let chunk = if end == sealed.len() { last } else { Chunk::Inner };
            to += self.open(number, chunk, &mut sealed[to..end], from - to).ok_or(BadChunk { chunk: number })?;
            if end == sealed.len() {
                return Ok(to);
            }
            (from, number) = (end, number + 1);
        }
    }

    /// Opens chunk `number`, which stands in `bytes` behind a gap: the plain bytes are moved to the start. Gives how
    /// many there are; `None` if it is not that chunk.
    fn open(&self, number: u64, chunk: Chunk, bytes: &mut [u8], gap: usize) -> Option<usize> {
        let plain_bytes = bytes.len().checked_sub(gap + TAG_BYTES)?;
        let fits = match chunk {
            Chunk::Inner => plain_bytes == CHUNK_BYTES,
            Chunk::Last => plain_bytes <= CHUNK_BYTES && (plain_bytes > 0 || number == 0),
        };
        if !fits {
            return None;
        }
        let (sealed, tag) = bytes.split_at_mut(gap + plain_bytes);
        let tag = Tag::try_from(&*tag).ok()?;
        let plain = self.key.open_in_place_separate_tag(nonce(number, chunk), Aad::empty(), tag, sealed, gap..);
        plain.ok().map(|plain| plain.len())
    }

    /// Opens a whole payload, without its nonce. Gives how many plain bytes stand at the start of `sealed`.
    ///
    /// # Errors
    /// `Integrity` if it is damaged or cut.
    pub(super) fn open_all(&self, sealed: &mut [u8]) -> Result<usize> {
        self.open_run(0, Chunk::Last, sealed)
            .map_err(|bad| damaged("a chunk is not the one that was written").with_source(bad))
    }
}

fn key(file_key: &FileKey, nonce: &[u8]) -> Result<LessSafeKey> {
    Ok(LessSafeKey::new(stanza::derive(nonce, &file_key[..], PAYLOAD_INFO, &CHACHA20_POLY1305)?))
}

/// Eleven bytes of a counter, most significant first, and one that says whether it is the last.
fn nonce(number: u64, chunk: Chunk) -> Nonce {
    const COUNTER: usize = NONCE_LEN - 1 - size_of::<u64>();
    let mut bytes = [0; NONCE_LEN];
    bytes[COUNTER..NONCE_LEN - 1].copy_from_slice(&number.to_be_bytes());
    bytes[NONCE_LEN - 1] = u8::from(chunk == Chunk::Last);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Sealer, Opener) {
        let key = zeroize::Zeroizing::new([3; super::super::FILE_KEY_BYTES]);
        (Sealer::new(&key, &[5; NONCE_BYTES]).unwrap(), Opener::new(&key, &[5; NONCE_BYTES]).unwrap())
    }

    #[test]
    fn sizes_are_those_of_the_format() {
        let full = CHUNK_BYTES as u64;
        let sizes = [(0, 16), (1, 17), (full, full + 16), (full + 1, full + 33), (2 * full, 2 * full + 32)];
        for (plain, sealed) in sizes {
            assert_eq!(sealed_bytes(plain), sealed);
        }
        assert_eq!(sealed_bytes(u64::MAX), u64::MAX);
    }

    #[test]
    fn chunks_have_the_size_of_one_and_nothing_follows_the_last() {
        let (mut sealer, _) = pair();
        assert!(sealer.seal(&mut vec![0; 9], 9, Chunk::Inner).is_err());
        assert!(sealer.seal(&mut vec![0; 9], 10, Chunk::Last).is_err());
        assert!(sealer.seal(&mut vec![0; CHUNK_BYTES + 1], CHUNK_BYTES + 1, Chunk::Last).is_err());
        sealer.seal(&mut vec![0; CHUNK_BYTES], CHUNK_BYTES, Chunk::Inner).unwrap();
        assert!(sealer.seal(&mut Vec::new(), 0, Chunk::Last).is_err());
        sealer.seal(&mut vec![0; CHUNK_BYTES], CHUNK_BYTES, Chunk::Last).unwrap();
        assert!(sealer.seal(&mut vec![0; 1], 1, Chunk::Last).is_err());
    }

    #[test]
    fn each_chunk_opens_only_at_its_place() {
        let (mut sealer, opener) = pair();
        let mut file = Vec::new();
        for fill in 0..3 {
            file.resize(file.len() + CHUNK_BYTES, fill);
            sealer.seal(&mut file, CHUNK_BYTES, if fill == 2 { Chunk::Last } else { Chunk::Inner }).unwrap();
        }
        let open = |at: usize, number: u64, chunk: Chunk| {
            let mut bytes = file[at * SEALED_CHUNK_BYTES..(at + 1) * SEALED_CHUNK_BYTES].to_vec();
            opener.open_run(number, chunk, &mut bytes)
        };
        assert_eq!(open(1, 1, Chunk::Inner), Ok(CHUNK_BYTES));
        assert_eq!(open(2, 2, Chunk::Last), Ok(CHUNK_BYTES));
        assert_eq!(open(1, 0, Chunk::Inner), Err(BadChunk { chunk: 0 }));
        assert_eq!(open(1, 1, Chunk::Last), Err(BadChunk { chunk: 1 }));
        assert_eq!(open(2, 2, Chunk::Inner), Err(BadChunk { chunk: 2 }));
        let mut run = file[SEALED_CHUNK_BYTES..].to_vec();
        assert_eq!(opener.open_run(1, Chunk::Last, &mut run).unwrap(), 2 * CHUNK_BYTES);
        assert!(run[..CHUNK_BYTES].iter().all(|byte| *byte == 1));
        assert!(run[CHUNK_BYTES..2 * CHUNK_BYTES].iter().all(|byte| *byte == 2));
    }
}
