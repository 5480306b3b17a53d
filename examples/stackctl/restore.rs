//! `restore`: shows the plan, asks, restores.

use std::fmt::Display;
use std::io::{self, IsTerminal};

use stackkit::{Error, RestoreOptions};

use crate::cli::{RestoreArgs, Target};
use crate::exit::{Exit, Failure, Outcome};
use crate::keys;
use crate::list::open;
use crate::output::Output;
use crate::progress::Teller;
use crate::setup;
use crate::verify::{absent, find};

/// Restores a backup over the services of the command line, or over those of `--to`.
pub(crate) async fn restore(target: &Target, args: &RestoreArgs, out: &mut Output) -> Outcome {
    let stack = setup::stack_with(target, &args.to, Some(&args.postgres.options()), out)?;
    if let Some(id) = args.only.iter().find(|id| stack.service(id.as_str()).is_none()) {
        let error = Error::config("--only names a service that the stack does not have").with_context("service", id);
        return Err(Failure::usage(error));
    }
    let url = setup::repository_url(target, out)?;
    setup::apart(&stack, &url)?;
    let repository = open(&url, keys::leasing(keys::reading(&args.read).await?, &args.lease)).await?;
    let id = find(&repository, &args.backup, stack.name()).await?;
    let options = match args.only.is_empty() {
        true => RestoreOptions::new(),
        false => RestoreOptions::new().only(args.only.iter().map(|id| id.as_str())),
    };
    let plan = repository.plan_restore(&id, &stack, &options).await.map_err(absent)?;
    if args.plan {
        out.result(&plan, &plan).map_err(Failure::usage)?;
        return Ok(Exit::Done);
    }
    if !args.yes && !confirmed(&plan, stack.name(), out).await? {
        out.note("another name was typed; nothing is changed");
        return Ok(Exit::No);
    }
    let run = repository.restore(plan, &stack).with_progress(Teller::new(out, stack.clock()));
    let report = run.run().await.map_err(absent)?;
    out.result(&report, &report).map_err(Failure::usage)?;
    Ok(Exit::Done)
}

/// Shows the plan, and tells whether the person at the terminal types `name`, the stack's or the service's.
///
/// # Errors
/// Usage, if there is nobody to ask.
pub(crate) async fn confirmed(plan: impl Display, name: &str, out: &Output) -> Outcome<bool> {
    if !io::stdin().is_terminal() {
        let message = "nobody can be asked: show the plan with --plan, then restore with --yes";
        return Err(Failure::usage(Error::config(message)));
    }
    out.note(plan);
    out.note(format_args!("Type the name {name} to restore:"));
    let failed = |error| Failure::usage(Error::io("read the answer", error));
    let answer = tokio::task::spawn_blocking(|| io::stdin().lines().next().transpose());
    let answer = answer.await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
    Ok(answer.is_some_and(|answer| answer.trim() == name))
}
