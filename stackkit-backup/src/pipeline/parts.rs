//! The parts that an object is uploaded in: how large they are, and how many are on their way at once.

use std::collections::VecDeque;

use blake3::Hasher;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, PutResult};
use stackkit_core::{Error, ErrorKind, Result};
use tokio_util::task::AbortOnDropHandle;

use super::Pool;
use super::buffers::Buffer;
use crate::age::SEALED_CHUNK_BYTES;
use crate::error::storage;

/// Stored bytes in a part on a local disk, where a part is a few system calls: small, so that many open artifacts take
/// little memory.
pub(super) const PART_BYTES_LOCAL: usize = 512 << 10;

/// Stored bytes in the first parts elsewhere: the least that S3 accepts for any part but the last.
pub(super) const PART_BYTES_LEAST: usize = 5 << 20;

/// The largest part: an artifact that grows to it takes twice as much memory.
const PART_BYTES_MOST: usize = 160 << 20;

/// The parts after which they get twice as large.
const PARTS_PER_STEP: u64 = 1000;

/// The most parts that S3 takes for one object.
const PARTS_MAX: u64 = 10_000;

/// Parts of one artifact on their way at once: enough to hide a request's latency.
const IN_FLIGHT_REMOTE: usize = 3;

/// Bytes of all parts on their way in this process, beyond one of each artifact, which always may be.
pub(super) const IN_FLIGHT_EXTRA_BYTES: usize = 40 << 20;

/// The unit in which those are counted.
pub(super) const IN_FLIGHT_UNIT_BYTES: usize = 64 << 10;

/// Bytes of one system call on a local disk. Larger writes make the page cache look for larger contiguous memory, which
/// costs more than the calls that they save.
const WRITE_BYTES: usize = 128 << 10;

/// How an object is cut into parts. The parts of one size are exactly of that size, and only the last is shorter: some
/// stores demand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// For a directory of this machine.
    Local,
    /// For a store behind a network, with the limits of S3: 5 MiB, twice as much after each 1,000 parts up to
    /// 160 MiB, 10,000 parts; together 932 GiB.
    Remote,
}

impl Parts {
    /// The size of part `number`, counted from 0; `None` if there can't be so many.
    fn size(self, number: u64) -> Option<usize> {
        match self {
            Self::Local => Some(PART_BYTES_LOCAL),
            Self::Remote if number >= PARTS_MAX => None,
            Self::Remote => {
                let doubled = u32::try_from(number / PARTS_PER_STEP).unwrap_or(u32::MAX);
                let factor = 2_usize.checked_pow(doubled).unwrap_or(usize::MAX);
                Some(PART_BYTES_LEAST.saturating_mul(factor).min(PART_BYTES_MOST))
            }
        }
    }

    fn in_flight(self) -> usize {
        match self {
            Self::Local => 1,
            Self::Remote => IN_FLIGHT_REMOTE,
        }
    }
}

/// An object that is being uploaded. Dropping it ends the parts that are on their way.
pub(crate) struct Upload {
    path: Path,
    upload: Box<dyn MultipartUpload>,
    parts: Parts,
    pool: &'static Pool,
    /// The next part; `None` until its first byte, so that an open artifact that waits takes no memory.
    filling: Option<Buffer>,
    in_flight: VecDeque<AbortOnDropHandle<object_store::Result<()>>>,
    hash: Hasher,
    sent_bytes: u64,
    sent: u64,
}

/// An object that was uploaded.
pub(crate) struct Uploaded {
    pub(super) put: PutResult,
    pub(super) bytes: u64,
    pub(crate) blake3: String,
    pub(super) parts: u64,
}

impl Upload {
    pub(crate) async fn open(store: &dyn ObjectStore, path: Path, parts: Parts, pool: &'static Pool) -> Result<Self> {
        let upload = store.put_multipart(&path).await.map_err(|e| storage("create an artifact", &path, e))?;
        Ok(Self {
            path,
            upload,
            parts,
            pool,
            filling: None,
            in_flight: VecDeque::new(),
            hash: Hasher::new(),
            sent_bytes: 0,
            sent: 0,
        })
    }

    /// Appends bytes that are as they are to be stored.
    ///
    /// # Errors
    /// As [`part`](Self::part); the storage's kinds.
    pub(crate) async fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(SEALED_CHUNK_BYTES));
            self.part()?.extend_from_slice(taken);
            self.ship_full().await?;
            bytes = rest;
        }
        Ok(())
    }

    /// The part that fills, to append to. It may get longer than a part by a sealed chunk.
    ///
    /// # Errors
    /// `Unsupported` if the object has all the parts that it can have.
    pub(super) fn part(&mut self) -> Result<&mut Vec<u8>> {
        let size = self.part_bytes()?;
        Ok(self.filling.get_or_insert_with(|| self.pool.part(size + SEALED_CHUNK_BYTES)))
    }

    fn part_bytes(&self) -> Result<usize> {
        self.parts.size(self.sent).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the artifact is too large for the storage: split it into several")
                .with_context("object", &self.path)
                .with_context("parts_max", PARTS_MAX)
                .with_context("stored_bytes", self.sent_bytes)
        })
    }

    /// Sends the part if it is full. All of its bytes are final.
    pub(super) async fn ship_full(&mut self) -> Result<()> {
        let size = self.part_bytes()?;
        let Some(full) = self.filling.take_if(|part| part.len() >= size) else {
            return Ok(());
        };
        if full.len() == size {
            return self.ship(full).await;
        }
        // The parts of a store can't be of any size, and a chunk is sealed where it lies.
        let mut part = full;
        let rest = part.split_off(size);
        self.ship(part).await?;
        self.part()?.extend_from_slice(&rest);
        Ok(())
    }

    async fn ship(&mut self, part: Buffer) -> Result<()> {
        let permit = self.room(part.len()).await?;
        self.hash.update(&part);
        self.sent_bytes += part.len() as u64;
        self.sent += 1;
        let part = Bytes::from_owner(part);
        let pieces = (0..part.len()).step_by(WRITE_BYTES).map(|at| part.slice(at..part.len().min(at + WRITE_BYTES)));
        let upload = self.upload.put_part(pieces.collect::<PutPayload>());
        drop(part);
        let sent = async move {
            let sent = upload.await;
            drop(permit);
            sent
        };
        self.in_flight.push_back(AbortOnDropHandle::new(tokio::spawn(sent)));
        Ok(())
    }

    /// Waits until another part may be on its way: the only one of this artifact, or one of the extra ones of this
    /// process.
    async fn room(&mut self, bytes: usize) -> Result<Option<tokio::sync::OwnedSemaphorePermit>> {
        while self.in_flight.len() >= self.parts.in_flight() {
            self.landed().await?;
        }
        while !self.in_flight.is_empty() {
            if let Some(permit) = self.pool.extra_in_flight(bytes) {
                return Ok(Some(permit));
            }
            self.landed().await?;
        }
        Ok(None)
    }

    /// Waits for the oldest part on its way.
    async fn landed(&mut self) -> Result<()> {
        let Some(part) = self.in_flight.pop_front() else {
            return Ok(());
        };
        let part = part.await.unwrap_or_else(|e| Err(e.into()));
        part.map_err(|e| storage("write an artifact", &self.path, e))
    }

    /// Sends what is left, and makes the object exist.
    pub(crate) async fn complete(&mut self) -> Result<Uploaded> {
        if let Some(part) = self.filling.take().filter(|part| !part.is_empty()) {
            self.ship(part).await?;
        }
        while !self.in_flight.is_empty() {
            self.landed().await?;
        }
        let put = self.upload.complete().await.map_err(|e| storage("finish an artifact", &self.path, e))?;
        let blake3 = self.hash.finalize().to_hex().to_string();
        Ok(Uploaded { put, bytes: self.sent_bytes, blake3, parts: self.sent })
    }

    pub(crate) async fn abort(&mut self) {
        self.in_flight.clear();
        // The first error is the one to tell; what an abort can't remove has no manifest and is never listed.
        let _ = self.upload.abort().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_within_the_limits_of_s3() {
        let sizes: Vec<_> = (0..).map_while(|number| Parts::Remote.size(number)).collect();
        assert_eq!(sizes.len() as u64, PARTS_MAX);
        assert!(sizes.is_sorted() && sizes[0] >= 5 << 20 && sizes[9999] <= 5 << 30);
        let total: usize = sizes.iter().sum();
        assert_eq!(total >> 30, 932, "the documentation says so");
        assert!(total < 5 << 40);
    }
}
