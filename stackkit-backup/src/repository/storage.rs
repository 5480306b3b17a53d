//! What the engine needs of an object store.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use stackkit_core::{Error, ErrorKind, Result, ServiceId};
use url::Url;

use crate::error::storage;

/// The largest document (a marker, a manifest) that is read into memory; a damaged repository must not fill it.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// What the URL of a directory begins with.
const FILE: &str = "file://";

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

    /// The names of the folders directly below `folder` that can be a stack's or a backup's; none if it does not exist.
    /// Anything else in there is not ours to judge, and must not keep a backup from being found.
    pub(crate) async fn folders(&self, folder: &Path) -> Result<Vec<String>> {
        if let Some(directory) = self.path_of(folder) {
            let names = tokio::task::spawn_blocking(move || directories_in(&directory)).await;
            return names
                .map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))?
                .map_err(|e| Error::io("list", e).with_context("object", folder));
        }
        let listed = match self.store.list_with_delimiter(Some(folder)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            listed => listed.map_err(|e| storage("list", folder, e))?,
        };
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename());
        Ok(names.filter(|name| ServiceId::new(*name).is_ok()).map(str::to_owned).collect())
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

/// The names of the directories in `directory` that obey the rule of names in a repository. The file system is asked
/// itself: a listing of the store fails at the first name that is no object's, or at a link that leads nowhere.
fn directories_in(directory: &std::path::Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().filter(|name| ServiceId::new(name).is_ok());
        names.extend(name.filter(|_| entry.path().is_dir()));
    }
    Ok(names)
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
    // A URL without slashes would be taken for an absolute path, and one with a control character for one without it.
    let slashes = url.get(..FILE.len()).is_some_and(|start| start.eq_ignore_ascii_case(FILE));
    if !slashes || url.contains(char::is_control) || parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(refused());
    }
    parsed.to_file_path().map_err(|()| refused())
}

/// Makes the directory of a repository and those above it, for their owner only, and syncs each new entry.
pub(crate) async fn make_directory(root: PathBuf) -> Result<()> {
    let shown = root.display().to_string();
    let made = tokio::task::spawn_blocking(move || {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let missing = root.ancestors().skip(1).take_while(|above| !above.exists()).count();
        builder.create(&root)?;
        // Each new directory is an entry of the one above it. The last one's is synced in any case: another process may
        // have made it just now.
        root.ancestors().skip(1).take(missing + 1).try_for_each(sync_directory)
    });
    made.await
        .map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))?
        .map_err(|e| Error::io("create the repository", e).with_context("path", shown))
}

fn sync_directory(directory: &std::path::Path) -> io::Result<()> {
    match std::fs::File::open(directory) {
        // Where others may write but not read, nothing can be synced.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        opened => opened?.sync_all(),
    }
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
            ("file:var/backups", ErrorKind::Config),
            ("file:/var/backups", ErrorKind::Config),
            ("file:///var/back\nups", ErrorKind::Config),
            ("", ErrorKind::Config),
        ] {
            let error = directory_of(bad).unwrap_err();
            assert_eq!(error.kind(), kind, "{bad}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
