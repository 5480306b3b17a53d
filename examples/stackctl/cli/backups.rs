//! Arguments of the commands that make, read and copy backups.

use clap::{Args, ValueEnum};
use jiff::Span;
use stackkit::ServiceId;
use stackkit::backup::BackupId;

use super::PostgresArgs;
use super::keys::{LeaseArgs, ReadArgs, SignArgs, TrustArgs, WriteArgs};
use super::value::{self, Named, Portion, Wanted};
use crate::location::Location;

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) write: WriteArgs,
    #[command(flatten)]
    pub(crate) sign: SignArgs,
    /// A word to find the backup by; may be given again
    #[arg(long = "tag", value_name = "TAG", value_parser = value::tag)]
    pub(crate) tags: Vec<String>,
    /// Lock the backup's objects against deletion for so long, in a bucket with Object Lock: 30d, "1 month"
    #[arg(long, value_name = "SPAN")]
    pub(crate) retain_for: Option<Span>,
    /// Keep what succeeded when a service fails; such a backup is never `latest`
    #[arg(long)]
    pub(crate) partial: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Also those that are to be deleted, and those without a manifest: backups that run, and what interrupted ones
    /// left
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A backup's id, or latest
    #[arg(default_value = "latest")]
    pub(crate) backup: Wanted,
    /// How deep to look
    #[arg(long, value_enum, default_value_t = Level::Stored)]
    pub(crate) level: Level,
    /// Check only a part, such as 1/7, or today's with today/7: every byte in seven days
    #[arg(long, value_name = "PART/OF")]
    pub(crate) sample: Option<Portion>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Sign the evidence of the check
    #[command(flatten)]
    pub(crate) sign: SignArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// A backup's id, or latest
    #[arg(default_value = "latest")]
    pub(crate) backup: Wanted,
    /// Restore only this service; may be given again
    #[arg(long, value_name = "ID")]
    pub(crate) only: Vec<ServiceId>,
    /// Restore a service of the backup somewhere else; may be given again
    #[arg(long, value_name = "ID=URL|ID=env:NAME")]
    pub(crate) to: Vec<Named>,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) plan: bool,
    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    pub(crate) lease: LeaseArgs,
    // Last: the heading stands over all that follows.
    #[command(flatten, next_help_heading = "PostgreSQL")]
    pub(crate) postgres: PostgresArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// The repository to copy to; it must be there, unless --recipient or --unencrypted says how to make it
    #[arg(long, value_name = "URL|env:NAME")]
    pub(crate) to: Location,
    /// Only these; all unless given, or all of the stack with --stack
    #[arg(value_name = "ID")]
    pub(crate) backups: Vec<BackupId>,
    /// Only the newest N complete backups of each stack
    #[arg(long, value_name = "N", conflicts_with = "backups")]
    pub(crate) latest: Option<usize>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
    #[command(flatten)]
    pub(crate) sign: SignArgs,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

/// How deep `verify` looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// The hash of every stored byte; needs no key
    Stored,
    /// Also decrypt, decompress, hash the plain bytes, and parse them as the vendor would
    Content,
    /// Also restore each service into a private server, and compare the census
    Drill,
}
