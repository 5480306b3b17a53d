//! `copy`.

use stackkit::backup::Repository;
use stackkit::{Clock, RepositoryOptions};

use crate::cli::{CopyArgs, Target};
use crate::exit::{Exit, Failure, Outcome};
use crate::keys;
use crate::list::open;
use crate::output::Output;
use crate::progress::Teller;
use crate::setup;
use crate::verify::absent;

/// Copies backups as they are stored; 1 if one of them was refused.
pub(crate) async fn copy(target: &Target, args: &CopyArgs, out: &mut Output) -> Outcome {
    let here = open(&setup::repository_url(target, out)?, keys::trusting(&args.trust)?).await?;
    let url = setup::url(&args.to, "--to", out).map_err(Failure::usage)?;
    let is_new = args.write.is_given();
    let options = if is_new { keys::writing(&args.write)? } else { RepositoryOptions::new() };
    let options = keys::signing(options, &args.sign)?;
    let there = match is_new {
        true => Repository::open_or_create(url.expose(), options).await.map_err(Failure::repository)?,
        false => open(&url, options).await?,
    };
    let mut run = here.copy_to(&there).with_progress(Teller::new(out, &Clock::system()));
    if !args.backups.is_empty() {
        run = run.only(args.backups.iter().copied());
    }
    if let Some(stack) = &target.stack {
        run = run.stack(stack);
    }
    if let Some(count) = args.latest {
        run = run.latest(count);
    }
    let report = run.run().await.map_err(absent)?;
    out.result(&report, &report).map_err(Failure::usage)?;
    Ok(if report.is_ok() { Exit::Done } else { Exit::No })
}
