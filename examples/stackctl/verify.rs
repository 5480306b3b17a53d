//! `verify`, and finding the backup that is meant.

use jiff::tz::TimeZone;
use stackkit::backup::{BackupId, Repository};
use stackkit::{Clock, ErrorKind, VerifyLevel};

use crate::cli::value::Wanted;
use crate::cli::{Level, Target, VerifyArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::keys;
use crate::list::open;
use crate::output::Output;
use crate::progress::Teller;
use crate::setup;

/// Checks a backup. The vendors' formats are parsed by the services of the command line, where there are any; a drill restores
/// into private servers of its own.
pub(crate) async fn verify(target: &Target, args: &VerifyArgs, out: &mut Output) -> Outcome {
    let options = keys::signing(keys::reading(&args.read).await?, &args.sign)?;
    let repository = open(&setup::repository_url(target, out)?, options).await?;
    let id = find(&repository, &args.backup, target.stack_name()).await.map_err(damaged)?;
    let scratch = stackkit_fixtures::scratch();
    let stack = match target.services.is_empty() {
        true => None,
        false => Some(setup::stack(target, out)?),
    };
    let mut verification = repository.verification(&id).level(match args.level {
        Level::Stored => VerifyLevel::Stored,
        Level::Content => VerifyLevel::Content,
        Level::Drill => VerifyLevel::Drill,
    });
    if let Some(stack) = &stack {
        verification = verification.with_stack(stack);
    }
    if args.level == Level::Drill {
        verification = verification.with_scratch(&scratch);
    }
    if let Some(portion) = args.sample {
        let today = Clock::system().now().to_zoned(TimeZone::UTC).date();
        verification = verification.sample(portion.on(today).map_err(Failure::usage)?);
    }
    let verification = verification.with_progress(Teller::new(out, &Clock::system()));
    let report = verification.run().await.map_err(|error| damaged(absent(error)))?;
    out.result(&report, &report).map_err(Failure::usage)?;
    Ok(if report.is_ok() { Exit::Done } else { Exit::No })
}

/// Whatever is damaged, down to the manifest, is what was asked about.
fn damaged(failure: Failure) -> Failure {
    match failure.error.kind() {
        ErrorKind::Integrity => Failure { exit: Exit::No, ..failure },
        _ => failure,
    }
}

/// The id of the wanted backup.
///
/// # Errors
/// No, if the stack has no backup; else the repository's.
pub(crate) async fn find(repository: &Repository, wanted: &Wanted, stack: &str) -> Outcome<BackupId> {
    match wanted {
        Wanted::Id(id) => Ok(*id),
        Wanted::Latest => repository.latest(stack).await.map_err(absent),
    }
}

/// The code of what was asked for by name and a dump does not hold.
pub(crate) const ABSENT: &str = "postgres.dump.absent";

/// What the repository or a dump does not have is an answer; all else is a failure.
pub(crate) fn absent(error: stackkit::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound if error.service().is_none() || error.code() == Some(ABSENT) => {
            Failure { exit: Exit::No, error }
        }
        _ => Failure::repository(error),
    }
}
