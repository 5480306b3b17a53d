//! Archives of the vendor as sources of a restore.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use stackkit_core::Result;
use stackkit_core::backup::{ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource};

use super::foreign::Foreign;
use super::place::{Found, Origin, look};
use crate::dump::ARTIFACT;
use crate::layout;

/// An archive that `pg_dump` wrote, of any maker: a custom file (`-Fc`), a folder (`-Fd`) or a tar file (`-Ft`).
///
/// Its artifacts are those of a dump by [`Engine::Parallel`](crate::Engine::Parallel), so that every restore reads
/// them. Nothing is unpacked to a disk. Archives with gzip, lz4 or zstd inside need the feature `codecs`. An artifact's
/// `plain_bytes` is 0 where only decompressing tells it, and in a custom archive; no artifact has a hash.
///
/// ```no_run
/// # async fn example() -> stackkit_core::Result<()> {
/// use stackkit_core::backup::ArtifactSource;
/// let archive = stackkit_postgres::Archive::open("/var/backups/shop.dump").await?;
/// println!("{} artifacts", archive.artifacts().len());
/// # Ok(())
/// # }
/// ```
pub struct Archive(Foreign<'static>);

impl Archive {
    /// Opens the file or folder at `path` and reads its table of contents. Where a custom archive does not say where its
    /// data is (one that was written to a pipe), the whole file is read once. So are large objects, to know their sizes.
    ///
    /// # Errors
    /// `NotFound` and the system's; `Unsupported` for what is no archive of `pg_dump`, is one of another version than 1.12
    /// to 1.16, holds `INSERT` statements, or is compressed inside and the feature `codecs` is off; `Integrity` for
    /// one that is damaged or cut.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        match look(path.as_ref()).await? {
            Found::Custom(path) => Foreign::custom(Origin::Path(path)).await.map(Self),
            Found::Folder(folder) => Foreign::folder(folder).await.map(Self),
        }
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("artifacts", &self.0.artifacts().len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl ArtifactSource for Archive {
    fn artifacts(&self) -> &[ArtifactInfo] {
        self.0.artifacts()
    }

    async fn open(&self, name: &ArtifactName) -> Result<ArtifactReader> {
        self.0.open(name).await
    }

    async fn open_range(&self, name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        self.0.open_range(name, plain_bytes).await
    }
}

/// A source in our layout, whatever the dump was.
pub(crate) enum AsLayout<'a> {
    Own(&'a dyn ArtifactSource),
    Foreign(Box<Foreign<'a>>),
}

impl AsLayout<'_> {
    /// The source.
    pub(crate) fn source(&self) -> &dyn ArtifactSource {
        match self {
            Self::Own(source) => *source,
            Self::Foreign(foreign) => foreign.as_ref(),
        }
    }
}

/// `source` in our layout: as it is, or the one custom archive of [`Engine::PgDump`](crate::Engine::PgDump) taken apart.
/// That was written to a pipe, so it is read once to find what is where.
///
/// # Errors
/// `NotFound` if it is neither; else as [`Archive::open`].
pub(crate) async fn as_layout(source: &dyn ArtifactSource) -> Result<AsLayout<'_>> {
    if layout::is_layout(source) {
        return Ok(AsLayout::Own(source));
    }
    let name = ArtifactName::new(ARTIFACT)?;
    let info = source.info(&name)?;
    crate::inspect::check_format(info)?;
    let bytes = info.plain_bytes;
    let foreign = Foreign::custom(Origin::Artifact { source, name, bytes }).await?;
    Ok(AsLayout::Foreign(Box::new(foreign)))
}
