//! Directories of this machine.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use stackkit_core::{Error, ErrorKind, Result, ServiceId};

/// How often a directory is removed that a storing task still renames a file in. It can do that once: then the file
/// that it renames is gone.
const REMOVE_ATTEMPTS: usize = 3;

/// Directories below each other that are looked into. A repository has six; more is no repository's.
const DEPTH_MAX: usize = 32;

/// Does blocking work on the file system beside the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))?
        .map_err(|e| Error::io(operation, e).with_context("object", path))
}

/// The names of the directories in `directory` that obey the rule of names in a repository. The file system is asked
/// itself: a listing of the store fails at the first name that is no object's, or at a link that leads nowhere.
pub(super) fn directories_in(directory: &FilePath) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
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

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The objects below `directory`, which is the folder `above`, and their sizes.
pub(super) fn objects_in(directory: &FilePath, above: &Path) -> io::Result<Vec<(Path, u64)>> {
    let mut objects = Vec::new();
    walk(directory, &mut |file, below, metadata| {
        // A name that no object can have is somebody else's file.
        let object = below.to_str().and_then(|below| Path::parse(format!("{above}/{below}")).ok());
        objects.extend(object.filter(|_| !is_staged(file)).map(|object| (object, metadata.len())));
        Ok(())
    })?;
    Ok(objects)
}

/// Removes the files of unfinished uploads that were last written before `older_than`; returns how many.
pub(super) fn remove_staged(directory: &FilePath, older_than: Timestamp) -> io::Result<u64> {
    let older_than = SystemTime::from(older_than);
    let mut removed = 0;
    walk(directory, &mut |file, _, metadata| {
        if !is_staged(file) || metadata.modified()? >= older_than {
            return Ok(());
        }
        match std::fs::remove_file(file) {
            // Its upload ended meanwhile.
            Err(error) if is_absent(&error) => Ok(()),
            other => other.map(|()| removed += 1),
        }
    })?;
    Ok(removed)
}

/// Whether a file is an upload that is not finished: the store calls it as its object, with `#` and digits behind.
fn is_staged(file: &FilePath) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    let suffix = name.and_then(|name| name.split_once('#')).map(|(_, suffix)| suffix);
    suffix.is_some_and(|suffix| !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Calls `visit` with every regular file below `directory`: its path, its path below the directory, and its metadata.
/// Links are followed, except to a directory above. What vanishes meanwhile is left out.
fn walk(
    directory: &FilePath,
    visit: &mut dyn FnMut(&FilePath, &FilePath, &std::fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let mut pending = vec![(directory.to_owned(), 0)];
    while let Some((folder, depth)) = pending.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if is_absent(&error) => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let metadata = match std::fs::metadata(&path) {
                Err(error) if is_absent(&error) => continue,
                metadata => metadata?,
            };
            if metadata.is_file() {
                visit(&path, path.strip_prefix(directory).unwrap_or(&path), &metadata)?;
            } else if metadata.is_dir() && depth < DEPTH_MAX && !(entry.file_type()?.is_symlink() && leads_up(&path)) {
                pending.push((path, depth + 1));
            }
        }
    }
    Ok(())
}

/// Whether a link leads to a directory that it lies in.
fn leads_up(link: &FilePath) -> bool {
    let canonical = |path: Option<&FilePath>| path.and_then(|path| path.canonicalize().ok());
    match (canonical(link.parent()), canonical(Some(link))) {
        (Some(folder), Some(target)) => folder.starts_with(target),
        _ => true,
    }
}

/// Removes a directory and all in it, if it is there, and syncs the one above it.
pub(super) fn remove_directory(directory: &FilePath) -> io::Result<()> {
    let mut attempts = 1..REMOVE_ATTEMPTS;
    loop {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && attempts.next().is_some() => {}
            removed => {
                removed?;
                return directory.parent().map_or(Ok(()), sync_directory);
            }
        }
    }
}

/// Makes the directory of a repository and those above it, for their owner only, and syncs each new entry.
pub(super) async fn make_directory(root: PathBuf) -> Result<()> {
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

fn sync_directory(directory: &FilePath) -> io::Result<()> {
    match std::fs::File::open(directory) {
        // Where others may write but not read, nothing can be synced.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        opened => opened?.sync_all(),
    }
}

/// Something in the place of an object is no regular file.
#[derive(Debug)]
pub(crate) struct NotAFile;

impl fmt::Display for NotAFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a regular file")
    }
}

impl std::error::Error for NotAFile {}

/// A directory as an object store that opens regular files only: to open a named pipe is to wait for its writer.
#[derive(Debug)]
pub(super) struct RegularFiles(LocalFileSystem);

impl RegularFiles {
    /// The directory `root`, which must exist. Files and directories are synced before a write counts as done.
    pub(super) fn new(root: &FilePath) -> object_store::Result<Self> {
        Ok(Self(LocalFileSystem::new_with_prefix(root)?.with_fsync(true)))
    }

    async fn check(&self, location: &Path) -> object_store::Result<()> {
        let path = self.0.path_to_filesystem(location)?;
        match tokio::fs::metadata(path).await {
            // A directory is none of the store's objects, and it says so itself.
            Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
                Err(object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(NotAFile) })
            }
            // An error is told by the store, which meets it too.
            _ => Ok(()),
        }
    }
}

impl fmt::Display for RegularFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for RegularFiles {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.check(location).await?;
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.check(location).await?;
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.check(from).await?;
        self.0.copy_opts(from, to, options).await
    }
}
