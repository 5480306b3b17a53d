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

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use stackkit::Error;
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command};
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

async fn run(cli: &Cli, out: &mut Output) -> Outcome {
    let target = &cli.target;
    match &cli.command {
        Command::Health { watch: false } => health::health(&setup::stack(target, out)?, out).await,
        Command::Health { watch: true } => watch::watch(&setup::stack(target, out)?, out).await,
        Command::Serve(args) => serve::serve(&setup::stack(target, out)?, args, out).await,
        Command::Wait(args) => health::wait(&setup::stack(target, out)?, args, out).await,
        Command::Backup(args) => {
            let url = setup::repository_url(target, out)?;
            let stack = setup::stack(target, out)?;
            setup::apart(&stack, &url)?;
            backup::backup(&stack, &url, args, out).await
        }
        Command::Keygen(args) => keygen::keygen(args, out),
        Command::List(args) => {
            list::list(&setup::repository_url(target, out)?, target.stack.as_deref(), args, out).await
        }
        Command::Verify(args) => verify::verify(target, args, out).await,
        Command::Recover(args) => recover::recover(target, args, out).await,
        Command::Restore(args) => restore::restore(target, args, out).await,
        Command::Export(args) => export::export(target, args, out).await,
        Command::Import(args) => import::import(target, args, out).await,
        Command::Prune(args) => prune::prune(&setup::repository_url(target, out)?, args, out).await,
        Command::Undelete(args) => prune::undelete(&setup::repository_url(target, out)?, args, out).await,
        Command::Gc(args) => prune::gc(&setup::repository_url(target, out)?, args, out).await,
        Command::Copy(args) => copy::copy(target, args, out).await,
        Command::Maintain(args) => maintain::maintain(target, args, out).await,
        Command::Doctor(args) => {
            let repository = target.repository.as_ref().map(|_| setup::repository_url(target, out)).transpose()?;
            doctor::doctor(&setup::stack(target, out)?, repository.as_ref(), args, out).await
        }
    }
}
