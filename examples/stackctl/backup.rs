//! `backup`.

use jiff::tz::TimeZone;
use stackkit::{Error, ErrorKind, Repository, Secret, Stack};

use crate::cli::BackupArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::keys;
use crate::output::Output;
use crate::progress::Teller;
use crate::signals::signals;

/// Backs up all services; 3 if the caller allowed a service to fail, and one did.
///
/// The first signal ends it in good order: what was stored is removed, in a bucket too. The second one is `main`'s.
pub(crate) async fn backup(stack: &Stack, url: &Secret, args: &BackupArgs, out: &Output) -> Outcome {
    let mut stop = Box::pin(signals(1)?);
    let options = keys::signing(keys::writing(&args.write)?, &args.sign)?;
    let repository = tokio::select! {
        opened = Repository::open_or_create(url.expose(), options) => opened.map_err(Failure::repository)?,
        () = &mut stop => return Ok(Exit::Interrupted),
    };
    let mut run = repository.backup(stack).with_progress(Teller::new(out, stack.clock())).stop_when(stop);
    for tag in &args.tags {
        run = run.with_tag(tag);
    }
    if args.partial {
        run = run.partial();
    }
    if let Some(span) = args.retain_for {
        let until = stack.clock().now().to_zoned(TimeZone::UTC).checked_add(span);
        let beyond = |error| Error::config("--retain-for ends after the calendar does").with_source(error);
        run = run.with_retain_until(until.map_err(beyond).map_err(Failure::usage)?.timestamp());
    }
    let backup = match run.run().await {
        Ok(backup) => backup,
        Err(error) if error.kind() == ErrorKind::Cancelled => return Ok(Exit::Interrupted),
        Err(error) => return Err(Failure::repository(error)),
    };
    out.result(&backup, backup.manifest()).map_err(Failure::usage)?;
    Ok(if backup.is_partial() { Exit::Service } else { Exit::Done })
}
