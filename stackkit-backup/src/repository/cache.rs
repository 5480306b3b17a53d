//! A local copy of manifests, so that a listing of a storage in a network reads only what is new.
//!
//! The cache saves reads and nothing else: what it gives is checked as what the storage gives, and a verify or a restore
//! never asks it. An entry is found by the object's size and tag in the listing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;

use super::scan::{Spot, Stamp};

/// Bytes of the hash at the start of an entry.
const HASH_BYTES: usize = 32;

/// Bytes of the length of the signature, behind the hash.
const LENGTH_BYTES: usize = 1;

/// The manifests of one repository.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
}

/// A manifest and its signature, as the storage holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) manifest: Bytes,
    /// Empty: it is not signed.
    pub(crate) signature: Bytes,
}

impl Cache {
    /// The cache of the repository `id` below `folder`.
    pub(crate) fn new(folder: &std::path::Path, id: &str) -> Self {
        Self { folder: folder.join(id) }
    }

    /// The name of an entry: another content of the object has another one. `None`: the storage gives no tag.
    fn name(spot: &Spot, stamp: &Stamp) -> Option<String> {
        let etag = stamp.etag.as_ref()?;
        let key = format!("{}\n{}\n{etag}", spot.stack, stamp.size_bytes);
        Some(format!("{}-{}", spot.id, &blake3::hash(key.as_bytes()).to_hex()[..16]))
    }

    /// The entry, if it is there and whole.
    pub(crate) fn get(&self, spot: &Spot, stamp: &Stamp) -> Option<Raw> {
        let bytes = Bytes::from(std::fs::read(self.folder.join(Self::name(spot, stamp)?)).ok()?);
        let hash = bytes.get(..HASH_BYTES)?;
        (blake3::hash(&bytes[HASH_BYTES..]).as_bytes() == hash).then_some(())?;
        let length = usize::from(*bytes.get(HASH_BYTES)?);
        let start = HASH_BYTES + LENGTH_BYTES;
        (bytes.len() >= start + length)
            .then(|| Raw { signature: bytes.slice(start..start + length), manifest: bytes.slice(start + length..) })
    }

    /// Keeps an entry. A cache that can't be written is none: nothing depends on it.
    pub(crate) fn put(&self, spot: &Spot, stamp: &Stamp, raw: &Raw) {
        let (Some(name), Ok(length)) = (Self::name(spot, stamp), u8::try_from(raw.signature.len())) else { return };
        let body = [&[length][..], &raw.signature, &raw.manifest].concat();
        let entry = [blake3::hash(&body).as_bytes(), &body[..]].concat();
        // Another process may write the same entry: each writes its own file first.
        let staged = self.folder.join(format!("{name}.{:016x}", fastrand::u64(..)));
        let written = self.make().and_then(|()| std::fs::write(&staged, entry));
        if let Err(error) = written.and_then(|()| std::fs::rename(&staged, self.folder.join(name))) {
            // The staged file may not even exist.
            let _ = std::fs::remove_file(&staged);
            tracing::debug!(%error, "the manifest cache can't be written");
        }
    }

    fn make(&self) -> std::io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.folder)
    }

    /// Drops what a complete listing does not have.
    pub(crate) fn retain(&self, spots: &[Spot]) {
        let names = spots.iter().filter_map(|spot| Self::name(spot, spot.manifest.as_ref()?));
        let names: BTreeSet<String> = names.collect();
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let kept = entry.file_name().to_str().is_none_or(|name| names.contains(name));
            if !kept {
                // What stays is found by no name that is asked for.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
