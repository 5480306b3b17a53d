//! `stackctl`: the whole library as one tool.
//!
//! ```text
//! stackctl --stack shop --service postgres=env:DATABASE_URL --service cache=redis://127.0.0.1 \
//!     --repository file:///var/backups/shop backup --recipient recipient.txt --signing-key signing.key --tag nightly
//! ```

mod backup;
mod cli;
mod copy;
mod doctor;
mod exit;
mod export;
mod health;
mod import;
mod keygen;
mod keys;
mod list;
mod location;
mod maintain;
mod output;
mod progress;
mod prune;
mod recover;
mod restore;
mod serve;
mod setup;
mod signals;
mod table;
mod verify;
mod watch;

use std::future::{Future, ready};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use stackkit::Error;
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command, Target};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;

/// How long the end waits for blocking work: file operations take far less, a read of the terminal may never end.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Output::new(cli.json);
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(Failure::usage(Error::io("start the runtime", error))), &cli, &out),
    };
    let outcome = runtime.block_on(async {
        // Listens before the command starts: whoever sees its first output may send a signal.
        let interrupted = signals::signals(cli.command.signals_that_end_it())?;
        // The command's future is dropped when a signal comes first: children end, staged files go.
        tokio::select! {
            outcome = Box::pin(run(&cli, &mut out)) => outcome,
            () = interrupted => Ok(Exit::Interrupted),
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_WAIT);
    ended(outcome, &cli, &out)
}

/// Tells the error, if there is one, and gives the exit code.
fn ended(outcome: Outcome, cli: &Cli, out: &Output) -> ExitCode {
    let exit = match outcome {
        Ok(Exit::Interrupted) => {
            out.warning(cli.command.interrupted());
            Exit::Interrupted
        }
        Ok(exit) => exit,
        Err(failure) => {
            out.error(&failure.error);
            failure.exit
        }
    };
    exit.into()
}

/// The command's work, in a box: each command's future has a size of its own.
fn run<'a>(cli: &'a Cli, out: &'a mut Output) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    let target = &cli.target;
    match &cli.command {
        Command::Keygen(args) => Box::pin(ready(keygen::keygen(args, out))),
        Command::List(args) => Box::pin(list::list(target, args, out)),
        Command::Verify(args) => Box::pin(verify::verify(target, args, out)),
        Command::Recover(args) => Box::pin(recover::recover(target, args, out)),
        Command::Restore(args) => Box::pin(restore::restore(target, args, out)),
        Command::Export(args) => Box::pin(export::export(target, args, out)),
        Command::Import(args) => Box::pin(import::import(target, args, out)),
        Command::Prune(args) => Box::pin(prune::prune(target, args, out)),
        Command::Undelete(args) => Box::pin(prune::undelete(target, args, out)),
        Command::Gc(args) => Box::pin(prune::gc(target, args, out)),
        Command::Copy(args) => Box::pin(copy::copy(target, args, out)),
        Command::Maintain(args) => Box::pin(maintain::maintain(target, args, out)),
        of_stack => Box::pin(run_on_stack(of_stack, target, out)),
    }
}

/// The commands that work on the whole stack, which is built first.
async fn run_on_stack(command: &Command, target: &Target, out: &mut Output) -> Outcome {
    let stack = setup::stack(target, out)?;
    match command {
        Command::Health { watch: true } => watch::watch(&stack, out).await,
        Command::Serve(args) => serve::serve(&stack, args, out).await,
        Command::Wait(args) => health::wait(&stack, args, out).await,
        Command::Backup(args) => {
            let url = setup::repository_url(target, out)?;
            setup::apart(&stack, &url)?;
            backup::backup(&stack, &url, args, out).await
        }
        Command::Doctor(args) => {
            let repository = target.repository.as_ref().map(|_| setup::repository_url(target, out)).transpose()?;
            doctor::doctor(&stack, repository.as_ref(), args, out).await
        }
        _ => health::health(&stack, out).await,
    }
}
