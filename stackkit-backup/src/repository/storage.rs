//! What the engine needs of an object store.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use stackkit_core::{Error, ErrorKind, Result};
use url::Url;

use crate::error::storage;

/// The largest document (a marker, a manifest) that is read into memory; a damaged repository must not fill it.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// How often a directory is removed that a storing task still renames a file in. It can do that once: then the file
/// that it renames is gone.
const REMOVE_ATTEMPTS: usize = 3;

/// An object store, and the directory behind it if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    pub(crate) store: Arc<dyn ObjectStore>,
    root: Option<PathBuf>,
}

impl Storage {
    /// Any store.
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, root: None }
    }

    /// A directory. Files and directories are synced before a write counts as done.
    pub(crate) fn directory(root: PathBuf) -> Result<Self> {
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|e| storage("open the repository", &Path::default(), e).with_context("path", root.display()))?;
        Ok(Self { store: Arc::new(store.with_fsync(true)), root: Some(root) })
    }

    /// Whether an operation that returned an error is over. A request over a network may still have its effect later.
    pub(crate) fn errors_are_final(&self) -> bool {
        self.root.is_some()
    }

    /// Reads a small object.
    pub(crate) async fn read(&self, operation: &'static str, path: &Path) -> Result<Bytes> {
        let found = self.store.get(path).await.map_err(|e| storage(operation, path, e))?;
        if found.meta.size > DOCUMENT_BYTES_MAX {
            return Err(
                Error::integrity("the document is larger than any document can be").with_context("object", path)
            );
        }
        found.bytes().await.map_err(|e| storage(operation, path, e))
    }

    /// Writes a small object that must not exist.
    pub(crate) async fn create(&self, operation: &'static str, path: &Path, content: Bytes) -> Result<()> {
        let options = PutOptions::from(PutMode::Create);
        self.store.put_opts(path, content.into(), options).await.map_err(|e| storage(operation, path, e))?;
        Ok(())
    }

    /// The size of an object in bytes.
    pub(crate) async fn size_bytes(&self, operation: &'static str, path: &Path) -> Result<u64> {
        Ok(self.store.head(path).await.map_err(|e| storage(operation, path, e))?.size)
    }

    /// The names of the folders directly below `folder`; none if it does not exist.
    pub(crate) async fn folders(&self, folder: &Path) -> Result<Vec<String>> {
        let listed = match self.store.list_with_delimiter(Some(folder)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            listed => listed.map_err(|e| storage("list", folder, e))?,
        };
        Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    /// Removes a backup's folder: the manifest first, so that what is listed stays whole; then everything else.
    pub(crate) async fn remove_folder(&self, folder: &Path) -> Result<()> {
        let manifest = folder.clone().join(super::MANIFEST);
        match self.store.delete(&manifest).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(storage("remove a manifest", &manifest, error)),
        }
        self.remove_all(folder).await
    }

    /// Removes every object below `folder`.
    pub(crate) async fn remove_all(&self, folder: &Path) -> Result<()> {
        if let Some(directory) = self.path_of(folder) {
            let removed = tokio::task::spawn_blocking(move || remove_directory(&directory)).await;
            return removed
                .map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))?
                .map_err(|e| Error::io("remove what a failed backup left", e).with_context("object", folder));
        }
        let failed = |e| storage("remove what a failed backup left", folder, e);
        let objects: Vec<Path> =
            self.store.list(Some(folder)).map_ok(|object| object.location).try_collect().await.map_err(failed)?;
        for object in objects {
            match self.store.delete(&object).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Removes a folder of a local repository at once, for a caller that can't wait; elsewhere it does nothing.
    pub(crate) fn remove_folder_now(&self, folder: &Path) {
        if let Some(directory) = self.path_of(folder) {
            // Nobody is there to tell. A folder without a manifest is no backup.
            let _ = remove_directory(&directory);
        }
    }

    fn path_of(&self, folder: &Path) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        Some(folder.parts().fold(root.clone(), |path, part| path.join(part.as_ref())))
    }
}

/// Removes a directory and all in it, if it is there.
fn remove_directory(directory: &std::path::Path) -> io::Result<()> {
    let mut attempts = 1..REMOVE_ATTEMPTS;
    loop {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && attempts.next().is_some() => {}
            removed => return removed,
        }
    }
}

/// The directory that a repository's URL names.
///
/// # Errors
/// `Unsupported` for a scheme of another storage, `Config` for what is no URL and no absolute path.
pub(crate) fn directory_of(url: &str) -> Result<PathBuf> {
    if url.starts_with('/') {
        return Ok(PathBuf::from(url));
    }
    // The text is not repeated in errors: it may hold a password.
    let parsed = Url::parse(url).map_err(|e| {
        Error::config("a repository is named by a URL such as file:///var/backups, or by an absolute path")
            .with_source(e)
    })?;
    if parsed.scheme() != "file" {
        return Err(Error::new(ErrorKind::Unsupported, "this version of stackkit has repositories on file:// only")
            .with_context("scheme", parsed.scheme()));
    }
    let refused = || Error::config("a file URL has three slashes and an absolute path: file:///var/backups");
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(refused());
    }
    parsed.to_file_path().map_err(|()| refused())
}

/// Makes the directory of a repository, for its owner only, and syncs the entry.
pub(crate) async fn make_directory(root: PathBuf) -> Result<()> {
    let shown = root.display().to_string();
    let made = tokio::task::spawn_blocking(move || {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&root)?;
        match root.parent() {
            Some(parent) => std::fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    });
    made.await
        .map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))?
        .map_err(|e| Error::io("create the repository", e).with_context("path", shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths_name_directories() {
        assert_eq!(directory_of("/var/backups").unwrap(), PathBuf::from("/var/backups"));
        assert_eq!(directory_of("file:///var/my%20backups").unwrap(), PathBuf::from("/var/my backups"));
        for (bad, kind) in [
            ("s3://key:hunter2@bucket/x", ErrorKind::Unsupported),
            ("memory:", ErrorKind::Unsupported),
            ("var/backups", ErrorKind::Config),
            ("file://host/var", ErrorKind::Config),
            ("file:///var?x=1", ErrorKind::Config),
            ("", ErrorKind::Config),
        ] {
            let error = directory_of(bad).unwrap_err();
            assert_eq!(error.kind(), kind, "{bad}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
