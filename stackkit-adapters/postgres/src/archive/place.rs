//! Where a foreign archive lies: a file, a folder, an artifact.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use stackkit_core::backup::{ArtifactName, ArtifactReader, ArtifactSource};
use stackkit_core::{Error, ErrorKind, Result};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, BufReader};

use super::Compression;
use super::data::Data;
use super::input::Input;
use super::tar;

/// One file that is read from any place.
#[derive(Clone)]
pub(super) enum Origin<'a> {
    Path(PathBuf),
    Artifact { source: &'a dyn ArtifactSource, name: ArtifactName, bytes: u64 },
}

impl Origin<'_> {
    /// Reads from `at` on.
    pub(super) async fn open(&self, at: u64) -> Result<Input> {
        let reader: ArtifactReader = match self {
            Self::Path(path) => Box::new(open_at(path, at).await?),
            Self::Artifact { source, name, .. } if at == 0 => source.open(name).await?,
            Self::Artifact { bytes, .. } if at > *bytes => return Err(super::input::cut()),
            Self::Artifact { source, name, bytes } => source.open_range(name, at..*bytes).await?,
        };
        Ok(Input::new(reader, at))
    }
}

async fn open_at(path: &Path, at: u64) -> Result<BufReader<File>> {
    let failed = |e| Error::io("open the archive", e);
    let mut file = File::open(path).await.map_err(failed)?;
    if at > 0 {
        file.seek(std::io::SeekFrom::Start(at)).await.map_err(failed)?;
    }
    Ok(BufReader::new(file))
}

/// Many files under names: a folder or a tar file.
pub(super) enum Folder {
    Path(PathBuf),
    Tar { path: PathBuf, members: HashMap<String, (u64, u64)> },
}

/// The ends of names of compressed files, in the order in which the vendor looks for them.
const ENDINGS: [(&str, Compression); 4] =
    [("", Compression::None), (".gz", Compression::Gzip), (".lz4", Compression::Lz4), (".zst", Compression::Zstd)];

impl Folder {
    /// The data of the file `name`, or of the compressed one that stands for it.
    ///
    /// # Errors
    /// `Integrity` if there is none, or its name is none of a file.
    pub(super) async fn open(&self, name: &str) -> Result<Data> {
        let (input, bytes, compression) = self.find(name).await?;
        Data::of_file(input, bytes, compression)
    }

    /// How many bytes it holds, if that can be told without decompressing it.
    pub(super) async fn plain_bytes(&self, name: &str) -> Result<Option<u64>> {
        let (_, bytes, compression) = self.find(name).await?;
        Ok((compression == Compression::None).then_some(bytes))
    }

    async fn find(&self, name: &str) -> Result<(Input, u64, Compression)> {
        // A name that leads out of the folder is no name.
        ArtifactName::new(name).map_err(|e| missing(name).with_source(e))?;
        match self {
            Self::Tar { path, members } => {
                let (at, bytes) = members.get(name).copied().ok_or_else(|| missing(name))?;
                Ok((Input::new(Box::new(open_at(path, at).await?), 0), bytes, Compression::None))
            }
            Self::Path(folder) => {
                for (ending, compression) in ENDINGS {
                    let path = folder.join(format!("{name}{ending}"));
                    match tokio::fs::metadata(&path).await {
                        Ok(metadata) => {
                            let reader = Box::new(open_at(&path, 0).await?);
                            return Ok((Input::new(reader, 0), metadata.len(), compression));
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(Error::io("open the archive", error)),
                    }
                }
                Err(missing(name))
            }
        }
    }
}

fn missing(name: &str) -> Error {
    Error::integrity("the archive lacks a file that it names").with_context("file", name)
}

/// What a path holds.
pub(super) enum Found {
    Custom(PathBuf),
    Folder(Folder),
}

/// Looks what kind of archive is at `path`.
///
/// # Errors
/// `NotFound` and the system's; `Unsupported` for what is no archive of `pg_dump`.
pub(super) async fn look(path: &Path) -> Result<Found> {
    let metadata = tokio::fs::metadata(path).await.map_err(|e| Error::io("open the archive", e))?;
    if metadata.is_dir() {
        return Ok(Found::Folder(Folder::Path(path.to_owned())));
    }
    let mut input = Input::new(Box::new(open_at(path, 0).await?), 0);
    while input.buffered().len() < tar::BLOCK_BYTES && input.more().await? {}
    let head = input.buffered();
    if head.starts_with(super::read::MAGIC) {
        return match head.get(10) {
            Some(3) => Err(no_archive("this is the table of contents of a folder: give the folder")),
            _ => Ok(Found::Custom(path.to_owned())),
        };
    }
    if tar::is_tar(head) {
        let members = tar::index(input).await?;
        return Ok(Found::Folder(Folder::Tar { path: path.to_owned(), members }));
    }
    Err(no_archive("the file is no archive of pg_dump; SQL text must be imported as such"))
}

fn no_archive(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}
