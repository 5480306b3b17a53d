//! Deletions, locks against them, and what unfinished uploads left.

use jiff::Timestamp;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind, Result};

use super::{ObjectLockMode, Place, Storage, local};
use crate::error::storage;
use crate::repository::MANIFEST;

/// What became of an object that was to be deleted.
#[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "only buckets have locks and versions"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// It is not there any more. A storage that does not tell whether it was there says this too.
    Gone,
    /// It was not there.
    Absent,
    /// It is protected from deletion, and still there.
    Locked {
        /// When the protection ends; `None` if it has no end that is known, as with a legal hold.
        until: Option<Timestamp>,
    },
}

/// What becomes of the bytes of deleted objects.
#[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "only buckets have locks and versions"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeletedBytes {
    /// They are freed.
    Freed,
    /// The bucket keeps them as old versions, until a rule of the bucket or its owner removes them.
    KeptAsVersions,
}

impl Storage {
    /// Deletes one object; in a directory, the directory is synced.
    ///
    /// # Errors
    /// The storage's kinds. That the object is not there, or locked, is no error.
    pub(crate) async fn delete(&self, operation: &'static str, path: &Path) -> Result<Deleted> {
        #[cfg(feature = "s3")]
        if let Place::Bucket(bucket) = &self.place
            && bucket.nature().await?.object_lock
        {
            return bucket.delete_versions(operation, path).await;
        }
        match self.store.delete(path).await {
            Ok(()) => Ok(Deleted::Gone),
            Err(object_store::Error::NotFound { .. }) => Ok(Deleted::Absent),
            Err(error) => Err(storage(operation, path, error)),
        }
    }

    /// What becomes of the bytes of objects that [`delete`](Self::delete) deletes.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn deleted_bytes(&self) -> Result<DeletedBytes> {
        match &self.place {
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.deleted_bytes().await,
            _ => Ok(DeletedBytes::Freed),
        }
    }

    /// Removes a backup's folder: the manifest first, so that what is listed stays whole; then everything else.
    ///
    /// # Errors
    /// `Busy` if an object is locked; the storage's kinds.
    pub(crate) async fn remove_folder(&self, folder: &Path) -> Result<()> {
        self.remove("remove a manifest", &folder.clone().join(MANIFEST)).await?;
        self.remove_all(folder).await
    }

    /// Removes every object below `folder`, and the directory.
    ///
    /// # Errors
    /// As [`remove_folder`](Self::remove_folder).
    pub(crate) async fn remove_all(&self, folder: &Path) -> Result<()> {
        let operation = "remove what a failed backup left";
        if let Some(directory) = self.path_of(folder) {
            return local::blocking(operation, folder, move || local::remove_directory(&directory)).await;
        }
        for (object, _) in self.objects(operation, folder).await? {
            self.remove(operation, &object).await?;
        }
        Ok(())
    }

    async fn remove(&self, operation: &'static str, path: &Path) -> Result<()> {
        let Deleted::Locked { until } = self.delete(operation, path).await? else {
            return Ok(());
        };
        let error = Error::new(ErrorKind::Busy, "the object is locked against deletion").with_operation(operation);
        let error = error.with_context("object", path);
        Err(match until {
            Some(until) => error.with_context("until", until),
            None => error,
        })
    }

    /// Removes a folder of a local repository at once, for a caller that can't wait; elsewhere it does nothing.
    pub(crate) fn remove_folder_now(&self, folder: &Path) {
        if let Some(directory) = self.path_of(folder) {
            // Nobody is there to tell. A folder without a manifest is no backup.
            let _ = local::remove_directory(&directory);
        }
    }

    /// Locks an object against deletion until a time.
    ///
    /// # Errors
    /// `Unsupported` unless the place is a bucket with object lock; the storage's kinds.
    pub(crate) async fn retain_until(
        &self,
        operation: &'static str,
        path: &Path,
        until: Timestamp,
        mode: ObjectLockMode,
    ) -> Result<()> {
        #[cfg(feature = "s3")]
        if let Place::Bucket(bucket) = &self.place {
            return bucket.retain_until(operation, path, until, mode).await;
        }
        let _ = (until, mode);
        Err(unlockable(operation, path))
    }

    /// Until when an object is locked against deletion; `None` if it is not, or the place has no locks.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn locked_until(&self, operation: &'static str, path: &Path) -> Result<Option<Timestamp>> {
        match &self.place {
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.locked_until(operation, path).await,
            // What has no locks need not be asked.
            _ => {
                let _ = (operation, path);
                Ok(None)
            }
        }
    }

    /// Removes what uploads left that began before `older_than` and never ended: files under a temporary name in a
    /// directory, multipart uploads of a bucket. Returns how many.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn abort_uploads(&self, older_than: Timestamp) -> Result<u64> {
        match &self.place {
            Place::Directory(root) => {
                let root = root.clone();
                let remove = move || local::remove_staged(&root, older_than);
                local::blocking("remove unfinished uploads", &Path::default(), remove).await
            }
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.abort_uploads(&Path::default(), older_than).await,
            Place::Store => Ok(0),
        }
    }

    /// Ends every multipart upload below a folder, whose writers are all gone. What a directory keeps of one is a file,
    /// which goes with the folder.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn abort_uploads_below(&self, folder: &Path) -> Result<()> {
        match &self.place {
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.abort_uploads(folder, Timestamp::MAX).await.map(drop),
            _ => {
                let _ = folder;
                Ok(())
            }
        }
    }
}

/// That an object can't be locked where it is.
pub(super) fn unlockable(operation: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::Unsupported, "only a bucket that was made with object lock can lock objects")
        .with_operation(operation)
        .with_context("object", path)
}
