//! `backup`.

use stackkit::{Repository, Secret, Stack};

use crate::cli::BackupArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::keys;
use crate::output::Output;
use crate::progress::Teller;

/// Backs up all services; 3 if the caller allowed a service to fail, and one did.
pub(crate) async fn backup(stack: &Stack, url: &Secret, args: &BackupArgs, out: &Output) -> Outcome {
    let options = keys::signing(keys::writing(&args.write)?, &args.sign)?;
    let repository = Repository::open_or_create(url.expose(), options).await.map_err(Failure::repository)?;
    let mut run = repository.backup(stack).with_progress(Teller::new(out, stack.clock()));
    for tag in &args.tags {
        run = run.with_tag(tag);
    }
    if args.partial {
        run = run.partial();
    }
    let backup = run.run().await.map_err(Failure::repository)?;
    out.result(&backup, backup.manifest()).map_err(Failure::usage)?;
    Ok(if backup.is_partial() { Exit::Service } else { Exit::Done })
}
