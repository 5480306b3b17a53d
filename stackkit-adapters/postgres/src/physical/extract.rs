//! Writes an archive to a directory, checked while it is written.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use stackkit_core::backup::ArtifactReader;
use stackkit_core::{Error, Result};
use tokio::fs::{DirBuilder, File, OpenOptions};
use tokio::io::AsyncWriteExt;

use crate::physical::provider::{READ_BYTES, read};
use crate::physical::tar::{Event, Kind, Member};
use crate::physical::verify::{Verified, Verifier};

/// A server refuses a data directory that others may read; what is in it needs no more.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Extracts a whole archive. Gives what was verified; all of it is on disk then.
pub(crate) async fn extract(mut data: ArtifactReader, mut place: Place) -> Result<Verified> {
    let mut verifier = Verifier::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut input = read(&mut data, &mut buffer).await?;
        if input.is_empty() {
            let verified = verifier.finish()?;
            place.sync().await?;
            return Ok(verified);
        }
        while let Some(event) = verifier.next(&mut input)? {
            match event {
                Event::Member(member) => place.begin(&member).await?,
                Event::Data(data) => place.write(data).await?,
                Event::End => place.end().await?,
            }
        }
    }
}

/// The directory that is filled.
pub(crate) struct Place {
    root: PathBuf,
    made: BTreeSet<PathBuf>,
    open: Option<(File, PathBuf)>,
}

impl Place {
    /// Makes the directory; one that is there already is somebody else's.
    pub(crate) async fn make(root: &Path) -> Result<Self> {
        DirBuilder::new().mode(DIRECTORY_MODE).create(root).await.map_err(|e| failed("make a directory", root, e))?;
        Ok(Self { root: root.to_owned(), made: BTreeSet::from([root.to_owned()]), open: None })
    }

    async fn directory(&mut self, path: PathBuf) -> Result<()> {
        if self.made.contains(&path) {
            return Ok(());
        }
        let made = DirBuilder::new().mode(DIRECTORY_MODE).recursive(true).create(&path).await;
        made.map_err(|e| failed("make a directory", &path, e))?;
        self.made.insert(path);
        Ok(())
    }

    async fn begin(&mut self, member: &Member) -> Result<()> {
        let path = self.root.join(OsStr::from_bytes(&member.path));
        if member.kind != Kind::File {
            return self.directory(path).await;
        }
        if let Some(parent) = path.parent() {
            self.directory(parent.to_owned()).await?;
        }
        let opened = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path).await;
        let file = opened.map_err(|e| failed("make a file", &path, e))?;
        self.open = Some((file, path));
        Ok(())
    }

    async fn write(&mut self, data: &[u8]) -> Result<()> {
        let Some((file, path)) = &mut self.open else { return Ok(()) };
        file.write_all(data).await.map_err(|e| failed("write a file", path, e))
    }

    async fn end(&mut self) -> Result<()> {
        let Some((mut file, path)) = self.open.take() else { return Ok(()) };
        file.flush().await.map_err(|e| failed("write a file", &path, e))?;
        file.sync_all().await.map_err(|e| failed("sync a file", &path, e))
    }

    async fn sync(&self) -> Result<()> {
        for directory in &self.made {
            sync_directory(directory).await?;
        }
        Ok(())
    }
}

/// Makes the names in `path` durable.
pub(crate) async fn sync_directory(path: &Path) -> Result<()> {
    let synced = async { File::open(path).await?.sync_all().await };
    synced.await.map_err(|e| failed("sync a directory", path, e))
}

pub(crate) fn failed(what: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::io(what, source).with_context("path", path.display())
}
