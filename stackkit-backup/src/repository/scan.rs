//! Which folders look like backups: one listing of the storage, without reading any of them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind, Result, ServiceId};

use super::cache::Raw;
use super::{BACKUPS, MANIFEST, SIGNATURE, Storage, TOMBSTONE};
use crate::error::storage as storage_error;
use crate::id::BackupId;

/// The largest file that is read ahead; a manifest of thousands of artifacts is smaller.
const READ_AHEAD_BYTES_MAX: u64 = 1 << 20;

/// A folder that has the name of a backup.
#[derive(Debug)]
pub(crate) struct Spot {
    pub(crate) stack: String,
    pub(crate) id: BackupId,
    /// What the listing tells of its manifest; `None`: it has none.
    pub(crate) manifest: Option<Stamp>,
    /// Whether its deletion is announced.
    pub(crate) announced: bool,
}

/// What tells one content of an object from another, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size_bytes: u64,
    /// `None`: the storage tells none.
    pub(crate) etag: Option<String>,
    /// Whether it can be read: in a directory there may be anything.
    pub(crate) is_file: bool,
}

/// All of them, or those of one stack, by stack and id.
///
/// # Errors
/// The storage's kinds.
pub(crate) async fn spots(storage: &Storage, stack: Option<&str>) -> Result<Vec<Spot>> {
    // Another name can't be a folder's, and must not be a path.
    if stack.is_some_and(|stack| ServiceId::new(stack).is_err()) {
        return Ok(Vec::new());
    }
    if let Some(root) = storage.root() {
        let (backups, stack) = (root.join(BACKUPS), stack.map(str::to_owned));
        let found = tokio::task::spawn_blocking(move || local(&backups, stack)).await;
        return found
            .map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))?
            .map_err(|e| Error::io("list", e).with_context("object", BACKUPS));
    }
    let backups = stack.into_iter().fold(Path::from(BACKUPS), |backups, stack| backups.join(stack));
    let failed = |e| storage_error("list", &backups, e);
    let mut objects = storage.store().list(Some(&backups));
    let mut spots = BTreeMap::new();
    while let Some(object) = objects.try_next().await.map_err(failed)? {
        let parts: Vec<_> = object.location.parts().collect();
        let [_, stack, id, rest @ ..] = parts.as_slice() else { continue };
        let (Ok(_), Ok(id)) = (ServiceId::new(stack.as_ref()), id.as_ref().parse::<BackupId>()) else { continue };
        let stack = stack.as_ref().to_owned();
        let empty = Spot { stack: stack.clone(), id, manifest: None, announced: false };
        let spot = spots.entry((stack, id)).or_insert(empty);
        match rest {
            [name] if name.as_ref() == MANIFEST => {
                spot.manifest = Some(Stamp { size_bytes: object.size, etag: object.e_tag, is_file: true });
            }
            [name] if name.as_ref() == TOMBSTONE => spot.announced = true,
            _ => {}
        }
    }
    Ok(spots.into_values().collect())
}

/// The same of a directory. The file system is asked itself: a listing of the store fails at the first name that is no
/// object's, and looks at every artifact.
fn local(backups: &std::path::Path, stack: Option<String>) -> io::Result<Vec<Spot>> {
    let mut spots = Vec::new();
    let stacks = match stack {
        Some(stack) => vec![(stack.clone(), backups.join(stack))],
        None => directories(backups)?,
    };
    for (stack, folder) in stacks {
        if ServiceId::new(&stack).is_err() {
            continue;
        }
        for (name, folder) in directories(&folder)? {
            let Ok(id) = name.parse() else { continue };
            let manifest = match folder.join(MANIFEST).symlink_metadata() {
                Ok(metadata) => Some(stamp(&metadata)),
                Err(_) => None,
            };
            let announced = folder.join(TOMBSTONE).symlink_metadata().is_ok();
            spots.push(Spot { stack: stack.clone(), id, manifest, announced });
        }
    }
    Ok(spots)
}

/// Reads the manifests of a directory's backups, and the files that are their signatures, in one go: asked for one by
/// one, most of the time would go to waking threads. What can't be read so, or is no directory's, is left to be read alone, for its
/// error.
///
/// # Errors
/// `Cancelled` if the runtime ends.
pub(crate) async fn read_ahead(storage: &Storage, batch: Vec<Spot>) -> Result<Vec<(Spot, Option<Raw>)>> {
    let Some(root) = storage.root() else {
        return Ok(batch.into_iter().map(|spot| (spot, None)).collect());
    };
    let backups = root.join(BACKUPS);
    let read = move |spot: Spot| {
        let raw = spot.manifest.as_ref().filter(|stamp| stamp.is_file && stamp.size_bytes <= READ_AHEAD_BYTES_MAX);
        let folder = backups.join(&spot.stack).join(spot.id.to_string());
        let raw = raw.and_then(|_| read_raw(&folder).ok());
        (spot, raw)
    };
    tokio::task::spawn_blocking(move || batch.into_iter().map(read).collect())
        .await
        .map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))
}

fn read_raw(folder: &std::path::Path) -> io::Result<Raw> {
    let manifest = Bytes::from(std::fs::read(folder.join(MANIFEST))?);
    let signature = folder.join(SIGNATURE);
    let signature = match signature.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Bytes::new(),
        Ok(metadata) if metadata.is_file() && metadata.len() <= READ_AHEAD_BYTES_MAX => {
            std::fs::read(signature)?.into()
        }
        Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
        Err(error) => return Err(error),
    };
    Ok(Raw { manifest, signature })
}

#[cfg(unix)]
fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let etag = format!("{:x}-{:x}-{:x}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
    Stamp { size_bytes: metadata.len(), etag: Some(etag), is_file: metadata.is_file() }
}

#[cfg(not(unix))]
fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    Stamp { size_bytes: metadata.len(), etag: None, is_file: metadata.is_file() }
}

/// The directories in `directory` with their names; none if it does not exist.
fn directories(directory: &std::path::Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // The entry's own type spares a call for each; links are followed.
        let is_directory = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
            Ok(kind) => kind.is_dir(),
            Err(_) => false,
        };
        if is_directory && let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}
