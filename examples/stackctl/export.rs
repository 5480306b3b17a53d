//! `export`: a PostgreSQL service of a backup as the vendor's own archive.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use stackkit::postgres::{ExportCompression, ExportFormat, ExportOptions, ExportTo, export as write};
use stackkit::{Error, ErrorKind};

use crate::cli::{ExportArgs, Format, Packing, Target};
use crate::exit::{Exit, Failure, Outcome, STORED_OBJECT};
use crate::keys;
use crate::list::open;
use crate::output::Output;
use crate::setup;
use crate::verify::{ABSENT, absent, find};

/// Reads the artifacts of one service and writes them for `pg_restore`. No server is asked.
pub(crate) async fn export(target: &Target, args: &ExportArgs, out: &mut Output) -> Outcome {
    let url = setup::repository_url(target, out)?;
    let repository = open(&url, keys::reading(&args.read).await?).await?;
    let id = find(&repository, &args.part.backup, target.stack_name()).await?;
    let source = repository.source(&id, args.part.service.as_str()).await.map_err(absent)?;
    let to_stream = args.out == Path::new("-");
    let mut stdout = stdout().map_err(Failure::usage)?;
    let to = match to_stream {
        true => ExportTo::Stream(&mut stdout),
        false => ExportTo::Path(args.out.clone()),
    };
    let report = write(&*source, &options(args), to).await.map_err(|error| failure(error, &args.out))?;
    for warning in &report.warnings {
        out.warning(warning);
    }
    let text = format!(
        "{}: {} entries, {} tables, {} large objects",
        report.database, report.entries, report.tables, report.large_objects
    );
    match to_stream {
        // Standard output is the archive.
        true => out.note(text),
        false => out.result(text, &report).map_err(Failure::usage)?,
    }
    Ok(Exit::Done)
}

/// Standard output, whatever it is, without a lock that would be held for the whole export.
fn stdout() -> Result<tokio::fs::File, Error> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|error| Error::io("open standard output", error))?;
    Ok(std::fs::File::from(stdout).into())
}

fn options(args: &ExportArgs) -> ExportOptions {
    let format = match args.format {
        Format::Directory => ExportFormat::Directory,
        Format::Custom => ExportFormat::Custom,
        Format::Plain => ExportFormat::Plain,
    };
    let compression = match args.compress {
        Packing::None => ExportCompression::None,
        Packing::Gzip => ExportCompression::Gzip,
        Packing::Zstd => ExportCompression::Zstd,
    };
    let options = ExportOptions::new(format).with_compression(compression).only_tables(args.tables.iter().cloned());
    let options = args.major.into_iter().fold(options, ExportOptions::for_major);
    args.database.iter().fold(options, ExportOptions::with_database)
}

/// What the dump does not hold is an answer; what can't be written is told with its place.
fn failure(error: Error, out: &Path) -> Failure {
    let is_stored = error.context().any(|(key, _)| key == STORED_OBJECT);
    match error.kind() {
        ErrorKind::AlreadyExists => {
            let error = error.with_context("path", out.display());
            Failure::usage(error.with_context("hint", "choose another, or remove what is there"))
        }
        ErrorKind::NotFound if !is_stored && error.code() != Some(ABSENT) => {
            let error = error.with_context("path", out.display());
            Failure::usage(error.with_context("hint", "make its folder first"))
        }
        // A full disk, a folder that is not ours, a reader that has left.
        ErrorKind::Io | ErrorKind::PermissionDenied | ErrorKind::Unreachable if !is_stored => {
            Failure::usage(error.with_context("path", out.display()))
        }
        _ => absent(error),
    }
}
