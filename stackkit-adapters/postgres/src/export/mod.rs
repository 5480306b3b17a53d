//! Writes archives of the vendor's formats from a dump: nobody is locked in.

mod choose;
mod custom;
mod directory;
mod groups;
mod pack;
mod parts;
mod plain;
mod version;

use std::io;
use std::path::{Path, PathBuf};

use stackkit_core::backup::ArtifactSource;
use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::archive::{self, Header};
use crate::layout::{DatabaseLayout, Layout};

/// What an export is for: the format that the vendor's tools read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportFormat {
    /// A folder with one file for each table, which `pg_restore -j` reads in parallel.
    Directory,
    /// One file that `pg_restore` reads.
    Custom,
    /// SQL text that `psql` runs, in a database that is there. It is not packed.
    Plain,
}

/// How data is packed inside of an exported archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ExportCompression {
    /// Not at all: every reader reads it.
    #[default]
    None,
    /// By gzip: every reader reads it. Needs the feature `codecs`.
    Gzip,
    /// By zstd: `pg_restore` from 16 on reads it, where it is built with zstd. Needs the feature `codecs`.
    Zstd,
}

/// What is exported, and for whom.
///
/// ```
/// use stackkit_postgres::{ExportFormat, ExportOptions};
/// let options = ExportOptions::new(ExportFormat::Custom).for_major(15).only_tables(["public.orders"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportOptions {
    format: ExportFormat,
    major: Option<u32>,
    database: Option<String>,
    tables: Vec<String>,
    compression: ExportCompression,
}

impl ExportOptions {
    /// The whole of the only database of a dump, not packed, in the version of the archive format that the dump's table of
    /// contents has: that of the `pg_dump` that wrote it.
    #[must_use]
    pub fn new(format: ExportFormat) -> Self {
        Self { format, major: None, database: None, tables: Vec::new(), compression: ExportCompression::default() }
    }

    /// Writes the version of the archive format that `pg_restore` of this major version reads. What that can't say is an
    /// error of the export.
    #[must_use]
    pub fn for_major(mut self, major: u32) -> Self {
        self.major = Some(major);
        self
    }

    /// Sets which database of a dump of several is exported.
    #[must_use]
    pub fn with_database(mut self, name: impl Into<String>) -> Self {
        self.database = Some(name.into());
        self
    }

    /// Exports only these tables, `schema.table` by exact name, with their rows, indexes, constraints and what else stands
    /// on them alone. A table without a schema is one of `public`. Types and functions that they use are not exported,
    /// nor are foreign keys to other tables.
    #[must_use]
    pub fn only_tables<I: IntoIterator<Item = T>, T: Into<String>>(mut self, names: I) -> Self {
        self.tables.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets how data is packed inside of the archive; not at all unless set.
    #[must_use]
    pub fn with_compression(mut self, compression: ExportCompression) -> Self {
        self.compression = compression;
        self
    }
}

/// Where an export goes.
#[non_exhaustive]
pub enum ExportTo<'a> {
    /// A file, or the folder of [`ExportFormat::Directory`], which must not exist. It is written beside and renamed.
    Path(PathBuf),
    /// A stream, such as standard output; not for [`ExportFormat::Directory`].
    Stream(&'a mut (dyn AsyncWrite + Send + Unpin)),
}

impl std::fmt::Debug for ExportTo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ExportReport {
    /// The database.
    pub database: String,
    /// Entries of its table of contents that were written.
    pub entries: u64,
    /// Tables whose rows were written.
    pub tables: u64,
    /// Large objects that were written.
    pub large_objects: u64,
    /// What was left out, and why.
    pub warnings: Vec<String>,
}

/// Writes the dump in `source` as an archive of the vendor's: of a backup by any engine, or an
/// [`Archive`](crate::Archive).
///
/// ```no_run
/// # async fn example(source: &dyn stackkit_core::backup::ArtifactSource) -> stackkit_core::Result<()> {
/// use stackkit_postgres::{ExportFormat, ExportOptions, ExportTo, export};
/// let options = ExportOptions::new(ExportFormat::Directory).for_major(15);
/// export(source, &options, ExportTo::Path("shop.dir".into())).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `AlreadyExists` for a path that is there; `Unsupported` for what the format or its version can't hold, or a packing
/// without the feature `codecs`; `NotFound` for a database or table that the dump does not hold; `Config` for a folder
/// to a stream, or a dump of several databases when none is named; `Integrity` and `Io` of the dump and the disk.
///
/// # Cancel safety
/// Dropping the future leaves no file under the path's own name; what was begun beside it is removed as far as can be.
pub async fn export(source: &dyn ArtifactSource, options: &ExportOptions, to: ExportTo<'_>) -> Result<ExportReport> {
    let layout_of = archive::as_layout(source).await?;
    let source = layout_of.source();
    let layout = Layout::read(source).await?;
    let database = database(&layout, options)?;
    let job = Job::new(source, database, options).await?;
    match (options.format, to) {
        (ExportFormat::Directory, ExportTo::Path(path)) => directory::write(&job, &path).await,
        (ExportFormat::Directory, ExportTo::Stream(_)) => {
            Err(Error::config("a folder can't be written to a stream; choose another format, or give a path"))
        }
        (ExportFormat::Plain, ExportTo::Stream(out)) => {
            let report = plain::write(&job, out).await?;
            out.flush().await.map_err(failed)?;
            Ok(report)
        }
        (ExportFormat::Custom, ExportTo::Stream(out)) => {
            let (report, _places) = custom::write(&job, out).await?;
            out.flush().await.map_err(failed)?;
            Ok(report)
        }
        (format, ExportTo::Path(path)) => file(&job, format, &path).await,
    }
}

/// One export under way.
pub(super) struct Job<'a> {
    source: &'a dyn ArtifactSource,
    database: &'a DatabaseLayout,
    /// The header as it is written, but for the format.
    header: Header,
    chosen: choose::Chosen,
}

impl<'a> Job<'a> {
    async fn new(
        source: &'a dyn ArtifactSource,
        database: &'a DatabaseLayout,
        options: &ExportOptions,
    ) -> Result<Self> {
        let toc = parts::toc(source, database).await?;
        let header = version::header(toc.header(), options)?;
        pack::check(options, &header)?;
        let chosen = choose::choose(toc, &header, options).await?;
        Ok(Self { source, database, header, chosen })
    }

    /// The entries that are written, in their order.
    async fn entries(&self) -> Result<choose::Entries<'_>> {
        let toc = parts::toc(self.source, self.database).await?;
        Ok(choose::Entries::new(toc, &self.header, &self.chosen))
    }

    fn report(&self) -> ExportReport {
        ExportReport {
            database: self.database.name.clone(),
            entries: self.chosen.count,
            tables: 0,
            large_objects: 0,
            warnings: self.chosen.warnings.clone(),
        }
    }
}

/// The database that is meant.
fn database<'a>(layout: &'a Layout, options: &ExportOptions) -> Result<&'a DatabaseLayout> {
    match (&options.database, layout.databases.as_slice()) {
        (Some(name), _) => layout.database(name),
        (None, [only]) => Ok(only),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|database| database.name.as_str()).collect();
            let error = Error::config("the dump holds several databases; name one");
            Err(error.with_context("databases", names.join(", ")))
        }
    }
}

/// Writes one file beside `path` and renames it.
async fn file(job: &Job<'_>, format: ExportFormat, path: &Path) -> Result<ExportReport> {
    absent(path).await?;
    let partial = tempfile_beside(path, false)?;
    let file = tokio::fs::File::create_new(&partial.path).await.map_err(failed)?;
    let mut out = tokio::io::BufWriter::with_capacity(pack::BLOCK_BYTES, file);
    let report = match format {
        ExportFormat::Plain => plain::write(job, &mut out).await?,
        _ => {
            let (report, places) = custom::write(job, &mut out).await?;
            custom::write_places(job, &mut out, &places).await?;
            report
        }
    };
    out.flush().await.map_err(failed)?;
    out.into_inner().sync_all().await.map_err(failed)?;
    absent(path).await?;
    tokio::fs::rename(&partial.path, path).await.map_err(failed)?;
    Ok(report)
}

/// Refuses a path that is there.
async fn absent(path: &Path) -> Result<()> {
    match tokio::fs::symlink_metadata(path).await {
        Ok(_) => Err(Error::new(ErrorKind::AlreadyExists, "the path of the export is there already")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| Error::io("write the export", error))
}

/// What is begun beside the export, gone with this value unless it was renamed.
pub(super) struct Partial {
    path: PathBuf,
    is_folder: bool,
}

/// A name beside `path` that nobody else uses.
fn tempfile_beside(path: &Path, is_folder: bool) -> Result<Partial> {
    let name = path.file_name().ok_or_else(|| Error::config("the path of the export names no file"))?;
    let stamp = stackkit_core::Clock::system().now().as_nanosecond();
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(format!(".{stamp:x}.partial"));
    Ok(Partial { path: path.with_file_name(partial), is_folder })
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It may have been renamed, or never made; what stays is hidden, and named after the export.
        let _gone = match self.is_folder {
            true => std::fs::remove_dir_all(&self.path),
            false => std::fs::remove_file(&self.path),
        };
    }
}
