//! Which folders look like backups: one listing of the storage, without reading any of them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use futures_util::TryStreamExt;
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind, Result, ServiceId};

use super::{BACKUPS, MANIFEST, Storage, TOMBSTONE};
use crate::error::storage as storage_error;
use crate::id::BackupId;

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
}

/// All of them, by stack and id.
///
/// # Errors
/// The storage's kinds.
pub(crate) async fn spots(storage: &Storage) -> Result<Vec<Spot>> {
    if let Some(root) = storage.root() {
        let backups = root.join(BACKUPS);
        let found = tokio::task::spawn_blocking(move || local(&backups)).await;
        return found
            .map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))?
            .map_err(|e| Error::io("list", e).with_context("object", BACKUPS));
    }
    let backups = Path::from(BACKUPS);
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
                spot.manifest = Some(Stamp { size_bytes: object.size, etag: object.e_tag });
            }
            [name] if name.as_ref() == TOMBSTONE => spot.announced = true,
            _ => {}
        }
    }
    Ok(spots.into_values().collect())
}

/// The same of a directory. The file system is asked itself: a listing of the store fails at the first name that is no
/// object's, and looks at every artifact.
fn local(backups: &std::path::Path) -> io::Result<Vec<Spot>> {
    let mut spots = Vec::new();
    for (stack, folder) in directories(backups)? {
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

#[cfg(unix)]
fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let etag = format!("{:x}-{:x}-{:x}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
    Stamp { size_bytes: metadata.len(), etag: Some(etag) }
}

#[cfg(not(unix))]
fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    Stamp { size_bytes: metadata.len(), etag: None }
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
