//! An artifact's object: its compressed bytes, decrypted if it is encrypted, from any place in it.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_core::{Error, ErrorKind, Result};

use super::subtrees::Whole;
use super::{FRAME_BYTES_MAX, FrameIndex, Pool};
use crate::age::{self, CHUNK_BYTES, Chunk, HEADER_BYTES_MAX, NONCE_BYTES, Opener, SEALED_CHUNK_BYTES, Unlock};
use crate::error::storage;
use crate::keys::{Identity, Recipient};

/// What a manifest says of an artifact's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) path: Path,
    pub(crate) plain_bytes: u64,
    pub(crate) plain_blake3: String,
    pub(crate) stored_bytes: u64,
    pub(crate) stored_blake3: String,
    /// Plain bytes in each frame but the last.
    pub(crate) frame_bytes: u64,
    pub(crate) frames: u64,
    /// Where the frame index begins, in compressed bytes.
    pub(crate) index_offset: u64,
    /// Who can read it, as the manifest has it; `None`: it is not encrypted.
    pub(crate) encrypted_to: Option<Vec<String>>,
}

impl Layout {
    /// Reads exactly `range` of the object, as it is stored.
    ///
    /// # Errors
    /// `Integrity` if it ends before; the storage's kinds.
    pub(crate) async fn fetch(&self, store: &dyn ObjectStore, range: Range<u64>) -> Result<Bytes> {
        let (start, wanted) = (range.start, range.end - range.start);
        let bytes = store.get_range(&self.path, range).await;
        let bytes = bytes.map_err(|e| storage("read an artifact", &self.path, e))?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        Err(self.damaged("the object ends too early", start + bytes.len() as u64))
    }

    /// Frames and index together.
    fn compressed_bytes(&self) -> u64 {
        self.index_offset.saturating_add(FrameIndex::encoded_bytes(self.frames))
    }

    pub(super) fn damaged(&self, message: &str, offset: u64) -> Error {
        Error::integrity(message).with_context("object", &self.path).with_context("offset", offset)
    }
}

/// An artifact that can be read: its header is opened, if it has one.
pub(crate) struct Stored {
    layout: Layout,
    /// Header and nonce; empty if it is not encrypted.
    head: Bytes,
    opener: Option<Arc<Opener>>,
}

/// Chunks that lie beside each other.
struct Run {
    object: Range<u64>,
    first: u64,
    last: Chunk,
    /// What is wanted of them.
    compressed: Range<u64>,
}

impl Stored {
    /// Opens the artifact's header, if it is encrypted.
    ///
    /// # Errors
    /// `Config` without an identity for an encrypted artifact; `Unauthenticated` if none of its keys can read it;
    /// `Integrity` if the header is damaged; the storage's kinds.
    pub(crate) async fn open(store: &dyn ObjectStore, layout: Layout, identity: Option<&Identity>) -> Result<Self> {
        let Some(recipients) = &layout.encrypted_to else {
            return match layout.compressed_bytes() == layout.stored_bytes {
                true => Ok(Self { layout, head: Bytes::new(), opener: None }),
                false => Err(layout.damaged("the frame index is damaged", layout.index_offset)),
            };
        };
        let identity = identity.ok_or_else(|| {
            Error::config("the artifact is encrypted: an identity of one of its recipients is needed to read it")
                .with_context("object", &layout.path)
                .with_context("recipients", recipients.join(" "))
        })?;
        // The manifest tells how long everything is, so it tells where the header ends.
        let head_bytes = layout.stored_bytes.checked_sub(age::sealed_bytes(layout.compressed_bytes()));
        let head_bytes = head_bytes.filter(|bytes| *bytes <= (HEADER_BYTES_MAX + NONCE_BYTES) as u64);
        let damaged = || layout.damaged("the header of the encryption is damaged", 0);
        let head = layout.fetch(store, 0..head_bytes.ok_or_else(damaged)?).await?;
        let opened = age::open_header(&head, &Unlock::Identity(identity)).map_err(|error| {
            let own = identity.recipients().iter().map(Recipient::to_string).any(|own| recipients.contains(&own));
            match error.kind() {
                // The manifest says that the identity fits: then it is the header that does not.
                ErrorKind::Unauthenticated if own => damaged().with_source(error),
                ErrorKind::Unauthenticated => {
                    error.with_context("object", &layout.path).with_context("recipients", recipients.join(" "))
                }
                _ => damaged().with_source(error),
            }
        })?;
        let nonce = &head[opened.header_bytes..];
        let opener = Opener::new(&opened.file_key, nonce).map_err(|e| damaged().with_source(e))?;
        Ok(Self { head, opener: Some(Arc::new(opener)), layout })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The bytes of the object before the first that [`fetch`](Self::fetch) gives.
    pub(super) fn head(&self) -> &Bytes {
        &self.head
    }

    /// Frames and index together, as long as they are without encryption.
    pub(super) fn compressed_bytes(&self) -> u64 {
        self.layout.compressed_bytes()
    }

    /// Where in the object a compressed byte is: the start of its chunk, if it is encrypted.
    pub(crate) fn offset_of(&self, compressed: u64) -> u64 {
        match self.opener {
            None => compressed,
            Some(_) => self.chunk_offset(compressed / CHUNK_BYTES as u64),
        }
    }

    /// How many compressed bytes an object that was cut to `size_bytes` still holds in whole chunks.
    pub(crate) fn compressed_before(&self, size_bytes: u64) -> u64 {
        match self.opener {
            _ if size_bytes >= self.layout.stored_bytes => self.compressed_bytes(),
            None => size_bytes,
            Some(_) => {
                let chunks = size_bytes.saturating_sub(self.head.len() as u64) / SEALED_CHUNK_BYTES as u64;
                chunks * CHUNK_BYTES as u64
            }
        }
    }

    fn chunk_offset(&self, chunk: u64) -> u64 {
        (self.head.len() as u64).saturating_add(chunk.saturating_mul(SEALED_CHUNK_BYTES as u64))
    }

    /// Reads a range of the compressed bytes.
    ///
    /// # Errors
    /// `Integrity` naming the offset of a chunk that is damaged; the storage's kinds.
    pub(crate) async fn read(&self, store: &dyn ObjectStore, compressed: Range<u64>) -> Result<Bytes> {
        if compressed.is_empty() {
            return Ok(Bytes::new());
        }
        let sealed = self.fetch(store, compressed.clone()).await?;
        self.unseal(sealed, compressed, None).await
    }

    /// Reads a range of the compressed bytes up to the first chunk that is damaged.
    ///
    /// # Errors
    /// The storage's kinds, but never `Integrity`.
    pub(crate) async fn read_whole(&self, store: &dyn ObjectStore, compressed: Range<u64>) -> Result<Bytes> {
        let mut whole = BytesMut::new();
        let mut at = compressed.start;
        while at < compressed.end {
            let next = ((at / CHUNK_BYTES as u64 + 1) * CHUNK_BYTES as u64).min(compressed.end);
            match self.read(store, at..next).await {
                Ok(bytes) => whole.extend_from_slice(&bytes),
                Err(error) if error.kind() == ErrorKind::Integrity => break,
                Err(error) => return Err(error),
            }
            at = next;
        }
        Ok(whole.freeze())
    }

    /// Reads what holds a range of the compressed bytes, which is not empty: as it is stored.
    pub(super) async fn fetch(&self, store: &dyn ObjectStore, compressed: Range<u64>) -> Result<Bytes> {
        let object = match self.opener {
            None => compressed,
            Some(_) => self.run(compressed).object,
        };
        self.layout.fetch(store, object).await
    }

    /// The compressed bytes of what [`fetch`](Self::fetch) gave for the same range; hashed and decrypted on the pool.
    pub(super) async fn unseal(&self, sealed: Bytes, compressed: Range<u64>, whole: Option<Whole>) -> Result<Bytes> {
        let Some(opener) = &self.opener else {
            let Some(whole) = whole else { return Ok(sealed) };
            let hashed = sealed.clone();
            Pool::get()?.run(move || whole.hash(&hashed)).await?;
            return Ok(sealed);
        };
        let run = self.run(compressed);
        let opener = Arc::clone(opener);
        let job = move || {
            if let Some(whole) = whole {
                whole.hash(&sealed);
            }
            // A store that keeps the object in memory gives a view of it, which must not change.
            let mut bytes = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            let opened = opener.open_run(run.first, run.last, &mut bytes);
            opened.map(|plain_bytes| {
                bytes.truncate(plain_bytes);
                (bytes.freeze(), run)
            })
        };
        let (bytes, run) = Pool::get()?.run(job).await?.map_err(|bad| {
            self.layout.damaged("a chunk of the encryption is damaged", self.chunk_offset(bad.chunk)).with_source(bad)
        })?;
        let start = run.first * CHUNK_BYTES as u64;
        let at = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
        let (from, to) = (at(run.compressed.start), at(run.compressed.end));
        match to <= bytes.len() {
            true => Ok(bytes.slice(from..to)),
            false => Err(Error::unexpected("chunks hold less than they should")),
        }
    }

    /// The chunks that hold a range of the compressed bytes, which is not empty.
    fn run(&self, compressed: Range<u64>) -> Run {
        let first = compressed.start / CHUNK_BYTES as u64;
        let end = compressed.end.div_ceil(CHUNK_BYTES as u64);
        let chunks = self.compressed_bytes().div_ceil(CHUNK_BYTES as u64);
        let object = self.chunk_offset(first)..self.chunk_offset(end).min(self.layout.stored_bytes);
        let last = if end >= chunks { Chunk::Last } else { Chunk::Inner };
        Run { object, first, last, compressed }
    }

    /// Reads the frame index and checks it against the manifest.
    ///
    /// # Errors
    /// `Integrity` naming the offset of the index; the storage's kinds.
    pub(crate) async fn index(&self, store: &dyn ObjectStore) -> Result<FrameIndex> {
        let layout = &self.layout;
        let damaged = || layout.damaged("the frame index is damaged", self.offset_of(layout.index_offset));
        let bytes = self.read(store, layout.index_offset..self.compressed_bytes()).await?;
        let index = FrameIndex::decode(&bytes).map_err(|e| damaged().with_source(e))?;
        let (stored_max, plain_max) = index.largest();
        let sane = index.totals() == (layout.index_offset, layout.plain_bytes)
            && u64::from(plain_max) <= FRAME_BYTES_MAX
            && u64::from(stored_max) <= 2 * FRAME_BYTES_MAX;
        if sane { Ok(index) } else { Err(damaged()) }
    }
}
