//! What a storage can do, found by trying.

use bytes::Bytes;
use object_store::path::Path;
use stackkit_core::{ErrorKind, Result};

use super::Storage;

/// The folder of the objects that a probe writes and removes.
pub(crate) const PROBES: &str = "probe";

/// What a storage can do, found by trying.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// A write can be refused because the object exists. Without it nothing keeps a backup from being overwritten.
    pub put_if_absent: bool,
    /// A write can be refused because the object was changed. Leases need it, except in a directory of this machine.
    pub compare_and_swap: bool,
    /// Old versions of objects are kept, so a deletion frees no space by itself.
    pub versioning: bool,
    /// Objects can be locked against deletion.
    pub object_lock: bool,
}

/// Tries what `storage` can do on an object that is removed again.
pub(super) async fn probe(storage: &Storage) -> Result<Capabilities> {
    let path = Path::from(PROBES).join(format!("{:016x}", fastrand::u64(..)));
    let mut tried = try_writes(storage, &path).await;
    // What can't be removed is an object of a few bytes that nothing reads.
    let removed = storage.delete("remove a probe", &path).await;
    if let Err(error) = removed {
        tracing::warn!(error = %error.chain(), "a probe of the repository's storage is left");
    }
    if let Ok(capabilities) = &mut tried {
        (capabilities.versioning, capabilities.object_lock) = storage.versions_and_locks().await?;
    }
    tried
}

async fn try_writes(storage: &Storage, path: &Path) -> Result<Capabilities> {
    let operation = "probe the repository's storage";
    let content = |text: &'static str| Bytes::from_static(text.as_bytes());
    let mut capabilities = Capabilities::default();
    match storage.create(operation, path, content("1")).await {
        // A storage without conditional writes may say so instead of overwriting.
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(capabilities),
        created => created?,
    }
    match storage.create(operation, path, content("2")).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => capabilities.put_if_absent = true,
        other => other?,
    }
    let (_, version) = storage.read_versioned(operation, path).await?;
    match storage.update(operation, path, content("3"), version.clone()).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(capabilities),
        updated => updated?,
    };
    match storage.update(operation, path, content("4"), version).await {
        Err(error) if error.kind() == ErrorKind::Busy => capabilities.compare_and_swap = true,
        other => drop(other?),
    }
    Ok(capabilities)
}
