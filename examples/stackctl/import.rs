//! `import`: what somebody else's `pg_dump` wrote, restored as a backup is.

use std::path::Path;

use stackkit::backup::{OldData, RestoreContext, RestoreOptions, RestorePlan};
use stackkit::postgres::{Archive, TrustedSql};
use stackkit::{BackupProvider, Error, ErrorKind, Postgres, Service};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::cli::{ImportArgs, Target};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::restore::confirmed;
use crate::setup;

/// How much of a file is looked at to tell text from an archive: two blocks of a tar file, whose padding is zeros.
const LOOK_BYTES: u64 = 1024;

/// What a custom archive begins with.
const MAGIC: &[u8] = b"PGDMP";

/// Shows the plan, asks, fills a new database beside the target, and lets it take the target's place.
pub(crate) async fn import(target: &Target, args: &ImportArgs, out: &mut Output) -> Outcome {
    let service = service(target, args, out)?;
    let old_data = if args.remove_old { OldData::Remove } else { OldData::Keep };
    let options = RestoreOptions::new().with_old_data(old_data);
    if is_text(&args.file).await.map_err(Failure::usage)? {
        return import_text(&service, args, &options, out).await;
    }
    let archive = Archive::open(&args.file).await.map_err(Failure::usage)?;
    let plan = service.plan_restore(&archive, &options).await.map_err(failure)?;
    if let Some(exit) = told(&plan, &service, args, out).await? {
        return Ok(exit);
    }
    let report = service.restore(plan, &archive, &RestoreContext::new()).await.map_err(failure)?;
    for warning in &report.warnings {
        out.warning(warning);
    }
    let kept = report.old_data_kept_as.as_ref().map(|name| format!("; the old data is kept as {name}"));
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
    let plan = service.plan_import_sql(open(&args.file).await?, options).await.map_err(failure)?;
    if let Some(exit) = told(&plan, service, args, out).await? {
        return Ok(exit);
    }
    let report = service.import_sql(plan, open(&args.file).await?, TrustedSql).await.map_err(failure)?;
    let restored = &report.restored;
    for warning in &restored.warnings {
        out.warning(warning);
    }
    let kept = restored.old_data_kept_as.as_ref().map(|name| format!("; the old data is kept as {name}"));
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

/// Whether a file is text: neither an archive nor compressed, which have zeros among their first bytes.
async fn is_text(path: &Path) -> stackkit::Result<bool> {
    let of_io = |error| Error::io("read the file", error).with_context("path", path.display());
    if tokio::fs::metadata(path).await.map_err(of_io)?.is_dir() {
        return Ok(false);
    }
    let mut begin = Vec::new();
    let file = File::open(path).await.map_err(of_io)?;
    file.take(LOOK_BYTES).read_to_end(&mut begin).await.map_err(of_io)?;
    Ok(!begin.starts_with(MAGIC) && !begin.contains(&0))
}

async fn open(path: &Path) -> Outcome<File> {
    let of_io = |error| Failure::usage(Error::io("open the file", error).with_context("path", path.display()));
    File::open(path).await.map_err(of_io)
}

/// A file that is damaged or of another kind is the command line's, all else the server's.
fn failure(error: Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::Config | ErrorKind::Unsupported | ErrorKind::Integrity => Exit::Usage,
        _ => Exit::Service,
    };
    Failure { exit, error }
}
