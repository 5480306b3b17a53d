//! Whether the next backup has a place to go: a write that leaves nothing, and the space of a directory.

use std::path::Path as FilePath;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use stackkit_core::{Error, Result};

use crate::error::storage;
use crate::repository::Repository;
use crate::storage::{PROBES, Storage};

/// What the requests are called in errors.
const OPERATION: &str = "try to write to the repository";

/// The object that a check writes and removes: the same one each time, so that what can't be removed does not pile up. `gc`
/// knows its folder.
#[derive(Debug, Clone)]
pub(super) struct Probe(Path);

impl Probe {
    pub(super) fn new() -> Self {
        Self(Path::from(PROBES).join(format!("{:016x}", fastrand::u64(..))))
    }
}

/// What became of the write.
#[derive(Debug)]
pub(super) enum Written {
    /// It was written and removed, in so many milliseconds.
    Within(f64),
    /// It was not tried, and why.
    Not(&'static str),
    /// The storage refused it.
    Refused,
}

/// What an inventory sees of the place.
#[derive(Debug)]
pub(super) struct PlaceSeen {
    pub(super) written: Written,
    /// What an ordinary user can still write, or why that is not known.
    pub(super) available_bytes: std::result::Result<u64, &'static str>,
}

impl PlaceSeen {
    pub(super) async fn look(repository: &Repository, probe: Option<&Probe>) -> Self {
        let written = match probe {
            None => Written::Not("the write probe is turned off"),
            Some(probe) => write(repository, probe).await,
        };
        let available_bytes = match repository.storage().root() {
            Some(root) => available(root).await.map_err(|_error| "the file system does not tell"),
            None if repository.storage().is_bucket() => Err("a bucket has no limit that can be read"),
            None => Err("only a directory tells its space"),
        };
        Self { written, available_bytes }
    }
}

/// Writes and removes the object, unless something of it would stay.
async fn write(repository: &Repository, probe: &Probe) -> Written {
    let place = repository.storage();
    match place.versions_and_locks().await {
        Ok((false, false)) => {}
        Ok(_) => {
            return Written::Not("the bucket keeps versions or locks objects: a probe would leave something behind");
        }
        Err(_error) => return Written::Not("whether the bucket keeps versions can't be read"),
    }
    let start = repository.clock().instant();
    match write_and_remove(place, probe).await {
        Ok(()) => {
            let took = repository.clock().instant().saturating_duration_since(start);
            Written::Within(took.as_secs_f64() * 1000.0)
        }
        Err(error) => {
            tracing::warn!(error = %error.chain(), "the repository can't be written to");
            Written::Refused
        }
    }
}

async fn write_and_remove(place: &Storage, Probe(path): &Probe) -> Result<()> {
    let content = PutPayload::from(Bytes::from_static(b"1"));
    let written = place.store().put(path, content).await.map_err(|e| storage(OPERATION, path, e));
    // Also after an error: a request whose answer was lost may have had its effect.
    let removed = place.delete(OPERATION, path).await;
    written.and(removed).map(drop)
}

/// `f_bavail` of the file system that holds the directory, in bytes.
async fn available(root: &FilePath) -> Result<u64> {
    let root = root.to_owned();
    let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&root));
    let stat =
        asked.await.map_err(|e| Error::unexpected("the thread that asks for the space failed").with_source(e))?;
    let stat = stat.map_err(|errno| Error::io("ask for the space", errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
