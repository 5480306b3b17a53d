//! What the engine needs of a place that keeps objects: a directory, memory, or a bucket.

mod bandwidth;
mod deleted;
mod local;
mod lock;
mod memory;
mod probe;
#[cfg(feature = "s3")]
mod s3;
mod url;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use stackkit_core::{Error, ErrorKind, Result, ServiceId};

#[cfg(feature = "s3")]
use deleted::unlockable;
pub(crate) use deleted::{Deleted, DeletedBytes};
pub(crate) use local::NotAFile;
pub use lock::ObjectLockMode;
pub use probe::Capabilities;
pub(crate) use probe::PROBES;

use self::url::Location;
use crate::error::storage;

/// The largest document (a marker, a manifest) that is read into memory; a damaged repository must not fill it.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// A place that keeps objects; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    pub(crate) store: Arc<dyn ObjectStore>,
    place: Place,
}

/// What is known of a place beyond its being an object store.
#[derive(Debug, Clone)]
enum Place {
    /// Nothing.
    Store,
    /// It is a directory of this machine.
    Directory(PathBuf),
    /// It is a bucket.
    #[cfg(feature = "s3")]
    Bucket(Arc<s3::Bucket>),
}

impl Storage {
    /// Any store.
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, place: Place::Store }
    }

    /// The place that `url` names, which is made if it is a directory that does not exist.
    ///
    /// # Errors
    /// `Config` for what names no place; `Unsupported` for a scheme that this build does not know; the file system's
    /// kinds.
    pub(crate) async fn open_or_create(url: &str) -> Result<Self> {
        let location = Location::parse(url)?;
        if let Location::Directory(root) = &location {
            local::make_directory(root.clone()).await?;
        }
        Self::at(location).await
    }

    /// The place that `url` names.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create); `NotFound` for a directory that does not exist.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let location = Location::parse(url)?;
        if let Location::Directory(root) = &location
            && !tokio::fs::try_exists(root).await.map_err(|e| Error::io("open the repository", e))?
        {
            return Err(Error::new(ErrorKind::NotFound, "there is no repository")
                .with_operation("open the repository")
                .with_context("path", root.display()));
        }
        Self::at(location).await
    }

    async fn at(location: Location) -> Result<Self> {
        match location {
            Location::Directory(root) => Self::directory(root),
            Location::Memory(name) => Ok(Self::new(memory::store(&name))),
            #[cfg(feature = "s3")]
            Location::Bucket(location) => {
                let (store, bucket) = s3::open(*location).await?;
                Ok(Self { store, place: Place::Bucket(Arc::new(bucket)) })
            }
        }
    }

    /// A directory. Files and directories are synced before a write counts as done.
    pub(crate) fn directory(root: PathBuf) -> Result<Self> {
        let store = local::RegularFiles::new(&root)
            .map_err(|e| storage("open the repository", &Path::default(), e).with_context("path", root.display()))?;
        Ok(Self { store: Arc::new(store), place: Place::Directory(root) })
    }

    /// The same place, which moves at most this many bytes a second: all that is read and written through this value and
    /// its clones together.
    #[must_use]
    pub(crate) fn with_bandwidth_limit(self, bytes_per_second: NonZeroU64) -> Self {
        Self { store: Arc::new(bandwidth::Paced::new(self.store, bytes_per_second)), place: self.place }
    }

    /// The store itself, for artifacts.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The directory, if the place is one of this machine.
    pub(crate) fn root(&self) -> Option<&std::path::Path> {
        match &self.place {
            Place::Directory(root) => Some(root),
            _ => None,
        }
    }

    /// Whether the place is a bucket.
    pub(crate) fn is_bucket(&self) -> bool {
        #[cfg(feature = "s3")]
        return matches!(self.place, Place::Bucket(_));
        #[cfg(not(feature = "s3"))]
        false
    }

    /// Whether an operation that returned an error is over. A request over a network may still have its effect later.
    pub(crate) fn errors_are_final(&self) -> bool {
        self.root().is_some()
    }

    /// What this place can do, found by trying it with an object that is removed again.
    ///
    /// # Errors
    /// The storage's kinds, if even a plain write or read fails.
    pub(crate) async fn probe(&self) -> Result<Capabilities> {
        probe::probe(self).await
    }

    /// Whether old versions are kept, and whether objects can be locked.
    pub(crate) async fn versions_and_locks(&self) -> Result<(bool, bool)> {
        match &self.place {
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.nature().await.map(|nature| (nature.versioning, nature.object_lock)),
            _ => Ok((false, false)),
        }
    }

    /// Reads a small object.
    ///
    /// # Errors
    /// `NotFound`; `Integrity` if it is larger than any document, or no file; the storage's kinds.
    pub(crate) async fn read(&self, operation: &'static str, path: &Path) -> Result<Bytes> {
        let found = self.get(operation, path).await?;
        found.bytes().await.map_err(|e| storage(operation, path, e))
    }

    /// Reads a small object, and what [`update`](Self::update) wants to know of it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) async fn read_versioned(&self, operation: &'static str, path: &Path) -> Result<(Bytes, UpdateVersion)> {
        let found = self.get(operation, path).await?;
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let bytes = found.bytes().await.map_err(|e| storage(operation, path, e))?;
        Ok((bytes, version))
    }

    async fn get(&self, operation: &'static str, path: &Path) -> Result<GetResult> {
        let found = self.store.get(path).await.map_err(|e| storage(operation, path, e))?;
        match found.meta.size > DOCUMENT_BYTES_MAX {
            false => Ok(found),
            true => {
                Err(Error::integrity("the document is larger than any document can be").with_context("object", path))
            }
        }
    }

    /// Writes a small object that must not exist.
    ///
    /// # Errors
    /// `AlreadyExists`, also if an answer was lost and the object is this call's own; the storage's kinds.
    pub(crate) async fn create(&self, operation: &'static str, path: &Path, content: Bytes) -> Result<()> {
        let options = PutOptions::from(PutMode::Create);
        self.store.put_opts(path, content.into(), options).await.map_err(|e| storage(operation, path, e))?;
        Ok(())
    }

    /// Replaces a small object, if it is still the one that `version` was read with. A bucket tells versions by the hash
    /// of their content: no two contents of an object may ever be equal.
    ///
    /// # Errors
    /// `Busy` if it is another one by now, or gone; `Unsupported` in a directory; the storage's kinds.
    pub(crate) async fn update(
        &self,
        operation: &'static str,
        path: &Path,
        content: Bytes,
        version: UpdateVersion,
    ) -> Result<UpdateVersion> {
        let options = PutOptions::from(PutMode::Update(version));
        match self.store.put_opts(path, content.into(), options).await {
            Ok(put) => Ok(put.into()),
            Err(source @ object_store::Error::NotFound { .. }) => {
                Err(storage(operation, path, source).with_kind(ErrorKind::Busy))
            }
            Err(source) => Err(storage(operation, path, source)),
        }
    }

    /// The size of an object in bytes.
    ///
    /// # Errors
    /// `NotFound`; the storage's kinds.
    pub(crate) async fn size_bytes(&self, operation: &'static str, path: &Path) -> Result<u64> {
        Ok(self.store.head(path).await.map_err(|e| storage(operation, path, e))?.size)
    }

    /// The names of the folders directly below `folder` that can be a stack's or a backup's; none if it does not exist.
    /// Anything else in there is not ours to judge, and must not keep a backup from being found.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn folders(&self, folder: &Path) -> Result<Vec<String>> {
        if let Some(directory) = self.path_of(folder) {
            return local::blocking("list", folder, move || local::directories_in(&directory)).await;
        }
        let listed = match self.store.list_with_delimiter(Some(folder)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            listed => listed.map_err(|e| storage("list", folder, e))?,
        };
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename());
        Ok(names.filter(|name| ServiceId::new(*name).is_ok()).map(str::to_owned).collect())
    }

    /// All objects below `folder` and their sizes in bytes, in no order; none if it does not exist. What can't be an
    /// object (a pipe, a link that leads nowhere, an upload that is not finished) is left out.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn objects(&self, operation: &'static str, folder: &Path) -> Result<Vec<(Path, u64)>> {
        if let Some(directory) = self.path_of(folder) {
            let above = folder.clone();
            return local::blocking(operation, folder, move || local::objects_in(&directory, &above)).await;
        }
        let objects = self.store.list(Some(folder)).map_ok(|object| (object.location, object.size));
        match objects.try_collect().await {
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            listed => listed.map_err(|e| storage(operation, folder, e)),
        }
    }

    fn path_of(&self, folder: &Path) -> Option<PathBuf> {
        Some(folder.parts().fold(self.root()?.to_owned(), |path, part| path.join(part.as_ref())))
    }
}

#[cfg(test)]
mod tests;
