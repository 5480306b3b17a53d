//! `import`: an archive that somebody else's `pg_dump` wrote, restored as a backup is.

use stackkit::backup::{OldData, RestoreContext, RestoreOptions};
use stackkit::postgres::{Archive, Owners, PostgresRestore};
use stackkit::{BackupProvider, Error, ErrorKind, Postgres, Service};

use crate::cli::{ImportArgs, Target};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::restore::confirmed;
use crate::setup;

/// Shows the plan, asks, restores into a new database beside the target, and lets it take the target's place.
pub(crate) async fn import(target: &Target, args: &ImportArgs, out: &mut Output) -> Outcome {
    let service = service(target, args, out)?;
    let archive = Archive::open(&args.file).await.map_err(Failure::usage)?;
    let old_data = if args.remove_old { OldData::Remove } else { OldData::Keep };
    let options = RestoreOptions::new().with_old_data(old_data);
    let plan = service.plan_restore(&archive, &options).await.map_err(failure)?;
    if args.plan {
        out.result(&plan, &plan).map_err(Failure::usage)?;
        return Ok(Exit::Done);
    }
    if !args.yes && !confirmed(&plan, service.id().as_str(), out).await? {
        out.note("another name was typed; nothing is changed");
        return Ok(Exit::No);
    }
    let report = service.restore(plan, &archive, &RestoreContext::new()).await.map_err(failure)?;
    for warning in &report.warnings {
        out.warning(warning);
    }
    let kept = report.old_data_kept_as.as_ref().map(|name| format!("; the old data is kept as {name}"));
    out.result(format!("{} restored{}", report.service, kept.unwrap_or_default()), &report).map_err(Failure::usage)?;
    Ok(Exit::Done)
}

/// The database to import into.
fn service(target: &Target, args: &ImportArgs, out: &mut Output) -> Outcome<Postgres> {
    let service = setup::postgres(target, &args.into, "--into", out)?;
    let mut restore = PostgresRestore::new();
    if args.no_owner {
        restore = restore.with_owners(Owners::Skip);
    }
    if args.no_privileges {
        restore = restore.without_privileges();
    }
    let config = service.config().clone().with_restore(restore);
    Ok(Postgres::new(config).with_id(service.id().as_str()))
}

/// A file that is damaged or of another kind is the command line's, all else the server's.
fn failure(error: Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::Config | ErrorKind::Unsupported | ErrorKind::Integrity => Exit::Usage,
        _ => Exit::Service,
    };
    Failure { exit, error }
}
