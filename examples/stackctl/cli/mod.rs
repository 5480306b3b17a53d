//! The command line.

mod backups;
mod keys;
mod prune;
pub(crate) mod value;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub(crate) use backups::{BackupArgs, CopyArgs, Level, ListArgs, RestoreArgs, VerifyArgs};
pub(crate) use keys::{KeygenArgs, LeaseArgs, ReadArgs, SignArgs, TrustArgs, WriteArgs};
pub(crate) use prune::{GcArgs, KeepArgs, PruneArgs, UndeleteArgs};
use value::Named;

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
    /// A service of the stack: postgres://…, redis://…, file://…, or env:VARIABLE to keep a password out of the
    /// argument list; may be given again
    #[arg(long = "service", value_name = "[ID=]URL|[ID=]env:NAME", global = true)]
    pub(crate) services: Vec<Named>,
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
    Health,
    /// Serve /livez, /readyz and /health until a signal comes
    Serve {
        /// The address to listen on; port 0 takes a free one
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
    },
    /// Wait until the stack is ready; fails at once on what waiting can't mend
    Wait {
        /// How long at most: 500ms, 60s, 5m, 1h
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = value::duration)]
        timeout: Duration,
    },
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
    /// Show which backups a policy keeps and deletes; delete them with --apply
    Prune(PruneArgs),
    /// Take back the announced deletion of a backup
    Undelete(UndeleteArgs),
    /// Show what crashes left in the repository; remove it with --apply
    Gc(GcArgs),
    /// Copy backups to another repository as they are stored: no key is needed
    Copy(CopyArgs),
    /// Look at tools, servers, rights, clocks and the repository
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

impl Command {
    /// How many signals end it as it stands. A backup ends itself in good order after the first.
    pub(crate) fn signals_that_end_it(&self) -> u32 {
        match self {
            Self::Backup(_) => 2,
            _ => 1,
        }
    }

    /// What an interrupt of the command leaves.
    pub(crate) fn interrupted(&self) -> &'static str {
        match self {
            // A store without a swap, such as Redis, is filled in place.
            Self::Restore(args) if !args.plan => {
                "interrupted; the repository is as it was, but a service whose restore had begun may hold a part of its \
                 data: restore it again"
            }
            Self::Prune(PruneArgs { apply: true, .. }) | Self::Gc(GcArgs { apply: true, .. }) => {
                "interrupted; what is deleted is deleted, and every backup that is listed is whole: run it again"
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
