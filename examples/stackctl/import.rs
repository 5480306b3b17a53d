//! `import`: what somebody else's `pg_dump` wrote, restored as a backup is.

use std::path::Path;

use stackkit::backup::{OldData, RestoreContext, RestoreOptions, RestorePlan};
use stackkit::postgres::{Archive, TrustedSql};
use stackkit::{BackupProvider, Error, ErrorKind, OneLine, Postgres, Service};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::cli::{ImportArgs, Target};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::restore::confirmed;
use crate::setup;
use crate::verify::ABSENT;

/// How much of a file is looked at to tell text from an archive: two blocks of a tar file, whose padding is zeros.
const LOOK_BYTES: u64 = 1024;

/// What a custom archive begins with.
const MAGIC: &[u8] = b"PGDMP";

/// What packed files begin with, and by what they are unpacked.
const PACKED: [(&[u8], &str); 5] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
];

/// Shows the plan, asks, fills a new database beside the target, and lets it take the target's place.
pub(crate) async fn import(target: &Target, args: &ImportArgs, out: &mut Output) -> Outcome {
    let service = service(target, args, out)?;
    let old_data = if args.remove_old { OldData::Remove } else { OldData::Keep };
    let options = RestoreOptions::new().with_old_data(old_data);
    let failure = |error: Error| failure(error.with_context("path", args.file.display()));
    if is_text(&args.file).await.map_err(failure)? {
        return import_text(&service, args, &options, out).await;
    }
    let archive = Archive::open(&args.file).await.map_err(|error| Failure { exit: Exit::Usage, ..failure(error) })?;
    let plan = service.plan_restore(&archive, &options).await.map_err(failure)?;
    if let Some(exit) = told(&plan, &service, args, out).await? {
        return Ok(exit);
    }
    let report = service.restore(plan, &archive, &RestoreContext::new()).await.map_err(failure)?;
    for warning in &report.warnings {
        out.warning(warning);
    }
    let kept = report.old_data_kept_as.as_deref().map(|name| format!("; the old data is kept as {}", OneLine(name)));
    out.result(format!("{} restored{}", report.service, kept.unwrap_or_default()), &report).map_err(Failure::usage)?;
    Ok(Exit::Done)
}

/// The same with SQL text, which is read twice: for the plan, and to be run.
async fn import_text(service: &Postgres, args: &ImportArgs, options: &RestoreOptions, out: &mut Output) -> Outcome {
    if !args.trusted {
        let message = "the file is SQL text: it would be run as it is, may do all that the role may, and a superuser's \
            can run programs on the server; say --trusted if you know who wrote it, or take an archive of pg_dump (-Fc, -Fd)";
        return Err(Failure::usage(Error::config(message)));
    }
    let failure = |error: Error| failure(error.with_context("path", args.file.display()));
    let plan = service.plan_import_sql(open(&args.file).await?, options).await.map_err(failure)?;
    if let Some(exit) = told(&plan, service, args, out).await? {
        return Ok(exit);
    }
    let report = service.import_sql(plan, open(&args.file).await?, TrustedSql).await.map_err(failure)?;
    let restored = &report.restored;
    for warning in &restored.warnings {
        out.warning(warning);
    }
    let kept = restored.old_data_kept_as.as_deref().map(|name| format!("; the old data is kept as {}", OneLine(name)));
    let (statements, rows) = (report.statements, report.rows);
    let told =
        format!("{}: {statements} statements run, {rows} rows copied{}", restored.service, kept.unwrap_or_default());
    out.result(told, &report).map_err(Failure::usage)?;
    Ok(Exit::Done)
}

/// Shows the plan or asks; gives the exit if that was all.
async fn told(plan: &RestorePlan, service: &Postgres, args: &ImportArgs, out: &mut Output) -> Outcome<Option<Exit>> {
    if args.plan {
        out.result(plan, plan).map_err(Failure::usage)?;
        return Ok(Some(Exit::Done));
    }
    if !args.yes && !confirmed(plan, service.id().as_str(), out).await? {
        out.note("another name was typed; nothing is changed");
        return Ok(Some(Exit::No));
    }
    Ok(None)
}

/// The database to import into.
fn service(target: &Target, args: &ImportArgs, out: &mut Output) -> Outcome<Postgres> {
    let service = setup::postgres(target, &args.into, "--into", out)?;
    let config = service.config().clone().with_restore(args.postgres.options());
    Ok(Postgres::new(config).with_id(service.id().as_str()))
}

/// Whether a file is text: neither an archive nor packed, which have zeros or a mark among their first bytes.
///
/// # Errors
/// `Config` for what no archive can be in: a file that is not there, a pipe, nothing, what must be unpacked first.
async fn is_text(path: &Path) -> stackkit::Result<bool> {
    let of_io = |error: std::io::Error| Error::io("read the file", error).with_kind(ErrorKind::Config);
    let metadata = tokio::fs::metadata(path).await.map_err(of_io)?;
    if metadata.is_dir() {
        return Ok(false);
    }
    if !metadata.is_file() {
        // A pipe gives its bytes once, and one without a writer never begins.
        return Err(Error::config("it is no regular file, and is read more than once: write it to a disk first"));
    }
    let mut begin = Vec::new();
    let file = File::open(path).await.map_err(of_io)?;
    file.take(LOOK_BYTES).read_to_end(&mut begin).await.map_err(of_io)?;
    if begin.is_empty() {
        return Err(Error::config("the file is empty"));
    }
    if let Some((_, tool)) = PACKED.iter().find(|(mark, _)| begin.starts_with(mark)) {
        return Err(Error::config("the file is packed: unpack it first").with_context("by", tool));
    }
    Ok(!begin.starts_with(MAGIC) && !begin.contains(&0))
}

async fn open(path: &Path) -> Outcome<File> {
    let of_io = |error| Failure::usage(Error::io("open the file", error).with_context("path", path.display()));
    File::open(path).await.map_err(of_io)
}

/// A file that is damaged or of another kind is the command line's, what it does not hold is an answer, all else the
/// server's.
fn failure(error: Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::NotFound if error.code() == Some(ABSENT) => Exit::No,
        ErrorKind::Config | ErrorKind::Unsupported | ErrorKind::Integrity => Exit::Usage,
        _ => Exit::Service,
    };
    Failure { exit, error }
}
