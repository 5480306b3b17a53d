use crc_fast::{CrcAlgorithm::Crc64Redis, Digest};

use super::Fault;
use super::reader::EOF;

/// Magic and version: 9 bytes.
const HEADER_BYTES: usize = 9;
/// The CRC-64 at the end.
const TRAILER_BYTES: usize = 8;

/// The first nine bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Format version, the number of `RDB_VERSION` in the server that wrote the file.
    pub version: u16,
    /// Magic `VALKEY` instead of `REDIS`.
    pub valkey: bool,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let (digits, valkey) = match (bytes.strip_prefix(b"REDIS"), bytes.strip_prefix(b"VALKEY")) {
            (Some(digits), _) => (digits, false),
            (_, Some(digits)) => (digits, true),
            _ => return Err(Fault::Magic),
        };
        let number = digits.iter().try_fold(0_u16, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0')).ok_or(Fault::Magic)
        })?;
        Ok(Self { version: number, valkey })
    }
}

/// A file that was read to its end and found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seal {
    /// Magic and version.
    pub header: Header,
    /// Length of the file in bytes.
    pub size_bytes: u64,
    /// CRC-64 of all bytes but the last eight.
    pub crc64: u64,
    /// `false` when the server wrote no checksum (`rdbchecksum no`), so that only magic and end opcode were checked.
    pub checked: bool,
}

/// Verifies a file of any version without parsing it: magic, end opcode, CRC-64.
#[derive(Debug)]
pub struct Checksum {
    digest: Digest,
    head: Vec<u8>,
    /// The last bytes seen, which are the trailer if no more come.
    tail: Vec<u8>,
    /// The byte before `tail`.
    last: u8,
    size_bytes: u64,
}

impl Checksum {
    /// An empty file so far.
    #[must_use]
    pub fn new() -> Self {
        Self {
            digest: Digest::new(Crc64Redis),
            head: Vec::with_capacity(HEADER_BYTES),
            tail: Vec::with_capacity(2 * TRAILER_BYTES),
            last: 0,
            size_bytes: 0,
        }
    }

    /// Takes the next bytes of the file.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.head.extend(chunk.iter().take(HEADER_BYTES - self.head.len()));
        self.size_bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let keep = chunk.len().saturating_sub(TRAILER_BYTES);
        let (body, rest) = chunk.split_at(keep);
        // What is held back can only leave it when at least as many bytes follow.
        let excess = (self.tail.len() + rest.len()).saturating_sub(TRAILER_BYTES);
        let held: Vec<u8> = self.tail.drain(..excess).collect();
        self.absorb(&held);
        self.absorb(body);
        self.tail.extend_from_slice(rest);
    }

    fn absorb(&mut self, bytes: &[u8]) {
        if let Some(&last) = bytes.last() {
            self.digest.update(bytes);
            self.last = last;
        }
    }

    /// The header, once nine bytes are there.
    ///
    /// # Errors
    /// [`Fault::Magic`].
    pub fn header(&self) -> Result<Option<Header>, Fault> {
        if self.head.len() < HEADER_BYTES { Ok(None) } else { Header::parse(&self.head).map(Some) }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Fault::Magic`], [`Fault::Truncated`] without an end opcode, [`Fault::Checksum`].
    pub fn finish(self) -> Result<Seal, Fault> {
        let truncated = Fault::Truncated { offset: self.size_bytes };
        let header = self.header()?.ok_or_else(|| truncated.clone())?;
        let trailer: [u8; TRAILER_BYTES] = self.tail.as_slice().try_into().map_err(|_short| truncated.clone())?;
        if self.last != EOF {
            return Err(truncated);
        }
        let (found, computed) = (u64::from_le_bytes(trailer), self.digest.finalize());
        if found != 0 && found != computed {
            return Err(Fault::Checksum { found, computed });
        }
        Ok(Seal { header, size_bytes: self.size_bytes, crc64: computed, checked: found != 0 })
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}
