//! The command line.

mod backups;
mod health;
mod keys;
mod maintain;
mod postgres;
mod prune;
pub(crate) mod value;
mod vendor;

use clap::{Args, Parser, Subcommand};

pub(crate) use backups::{BackupArgs, CopyArgs, Level, ListArgs, RestoreArgs, VerifyArgs};
pub(crate) use health::{DetailsArg, ServeArgs, WaitArgs};
pub(crate) use keys::{KeygenArgs, LeaseArgs, ReadArgs, SignArgs, TrustArgs, WriteArgs};
pub(crate) use maintain::MaintainArgs;
pub(crate) use postgres::PostgresArgs;
pub(crate) use prune::{GcArgs, KeepArgs, PruneArgs, UndeleteArgs};
use stackkit::ServiceId;
use value::{Named, Needs};
pub(crate) use vendor::{ExportArgs, Format, ImportArgs, Packing, RecoverArgs, Replaced};

use crate::location::Location;

/// The name of a stack that was given none.
const STACK_DEFAULT: &str = "stack";

/// Probes, backs up, verifies, restores and prunes a stack of datastores.
///
/// Exit codes: 0 done, 1 the answer is no, 2 usage or configuration, 3 a service failed, 4 the repository failed, 130
/// interrupted with nothing half-written.
#[derive(Debug, Parser)]
#[command(name = "stackctl", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "Global options")]
    pub(crate) target: Target,
    /// Print one JSON object per line
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is worked on.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The stack's name, which its backups are kept under; `stack` unless given
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) stack: Option<String>,
    /// A service of the stack: postgres://…, redis://…, file://…, https://…, tcp://host:port, heartbeat:/path, or
    /// env:VARIABLE to keep a password out of the argument list; may be given again
    #[arg(long = "service", value_name = "[ID=]URL|[ID=]env:NAME", global = true)]
    pub(crate) services: Vec<Named>,
    /// What a service needs: web=postgres,cache. A service that fails because of another one says so; may be given again
    #[arg(long, value_name = "ID=ID,…", global = true)]
    pub(crate) after: Vec<Needs>,
    /// A service without which the stack is degraded, not unready; may be given again
    #[arg(long, value_name = "ID", global = true)]
    pub(crate) optional: Vec<ServiceId>,
    /// Where backups are kept: file:///path, s3://bucket/prefix, or env:VARIABLE
    #[arg(long, value_name = "URL|env:NAME", global = true)]
    pub(crate) repository: Option<Location>,
}

impl Target {
    /// The stack's name.
    pub(crate) fn stack_name(&self) -> &str {
        self.stack.as_deref().unwrap_or(STACK_DEFAULT)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Probe each service once; 0 if the stack is ready, 1 if not
    Health {
        /// Go on probing: a live table on a terminal, else a line for each change, until a signal comes
        #[arg(long)]
        watch: bool,
    },
    /// Serve /livez, /readyz, /health, /metrics and /status until a signal comes, and tell transitions on standard error
    Serve(ServeArgs),
    /// Wait until the stack is ready; fails at once on what waiting can't mend
    Wait(WaitArgs),
    /// Make the keys that encrypt and sign backups
    Keygen(KeygenArgs),
    /// Back up all services as one backup
    Backup(BackupArgs),
    /// List the backups, newest first; with --stack only that stack's
    List(ListArgs),
    /// Check a backup; 0 if it is whole, 1 if not
    Verify(VerifyArgs),
    /// Restore a backup: shows the plan, asks, restores, compares the census
    Restore(RestoreArgs),
    /// Write a PostgreSQL service of a backup as an archive of the vendor's, which `pg_restore` reads
    Export(ExportArgs),
    /// Restore an archive that `pg_dump` wrote, whoever ran it: shows the plan, asks, restores
    Import(ImportArgs),
    /// Finish or undo what restores of a PostgreSQL database that were cut short left: shows the plan, asks, does it
    Recover(RecoverArgs),
    /// Show which backups a policy keeps and deletes; delete them with --apply
    Prune(PruneArgs),
    /// Take back the announced deletion of a backup
    Undelete(UndeleteArgs),
    /// Show what crashes left in the repository; remove it with --apply
    Gc(GcArgs),
    /// Copy backups to another repository as they are stored: no key is needed
    Copy(CopyArgs),
    /// Show what wants maintenance in each PostgreSQL and the plan that mends it; do it with --apply
    Maintain(MaintainArgs),
    /// Look at tools, servers, rights, clocks and the repository
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

impl Command {
    /// How many signals end it as it stands. A backup and a server end themselves in good order after the
    /// first.
    pub(crate) fn signals_that_end_it(&self) -> u32 {
        match self {
            Self::Backup(_) | Self::Serve(_) => 2,
            _ => 1,
        }
    }

    /// What an interrupt of the command leaves.
    pub(crate) fn interrupted(&self) -> &'static str {
        match self {
            // A store without a swap, such as Redis, is filled in place.
            Self::Restore(args) if !args.plan => {
                "interrupted; the repository is as it was. A store that is filled in place, such as Redis, may hold a part of \
                 its data: restore it again. A PostgreSQL database is wholly the old or the new one: `stackctl recover` \
                 removes what was begun beside it"
            }
            Self::Import(args) if !args.plan => {
                "interrupted; the database is wholly the old or the new one: `stackctl recover` removes what was begun beside it"
            }
            Self::Recover(args) if args.yes => "interrupted; each step is done or not: run it again",
            Self::Prune(PruneArgs { apply: true, .. }) | Self::Gc(GcArgs { apply: true, .. }) => {
                "interrupted; what is deleted is deleted, and every backup that is listed is whole: run it again"
            }
            Self::Maintain(args) if args.apply => {
                "interrupted; the statement under way was cancelled, and a rebuild may have left an index that is not valid: run it again"
            }
            Self::Copy(_) => "interrupted; what is copied is whole, and the next copy goes on from there",
            _ => "interrupted; nothing is half-written",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
