//! Arguments of the commands that delete.

use std::time::Duration;

use clap::Args;
use jiff::Span;
use stackkit::backup::BackupId;

use super::keys::{LeaseArgs, SignArgs, TrustArgs};
use super::value;

/// Each rule keeps backups of its own; what no rule keeps is deleted.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten, next_help_heading = "What to keep")]
    pub(crate) keep: KeepArgs,
    /// Announce the deletions now, and delete what was announced a grace time ago
    #[arg(long)]
    pub(crate) apply: bool,
    /// Also if that deletes more than half of the backups
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) sign: SignArgs,
    #[command(flatten)]
    pub(crate) lease: LeaseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KeepArgs {
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    pub(crate) keep_hourly: Option<u32>,
    /// The same for days
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<u32>,
    /// The same for weeks, which begin on Monday
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<u32>,
    /// The same for months
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<u32>,
    /// The same for quarters
    #[arg(long, value_name = "N")]
    pub(crate) keep_quarterly: Option<u32>,
    /// The same for years
    #[arg(long, value_name = "N")]
    pub(crate) keep_yearly: Option<u32>,
    /// Keep all that are at most so much older than the newest: 30d, 2w, "1 month 3 days"
    #[arg(long, value_name = "SPAN")]
    pub(crate) keep_within: Option<Span>,
    /// Keep all with this tag; may be given again
    #[arg(long, value_name = "TAG", value_parser = value::tag)]
    pub(crate) keep_tag: Vec<String>,
    /// Keep this one; may be given again
    #[arg(long, value_name = "ID")]
    pub(crate) keep_id: Vec<BackupId>,
    /// Where days begin at midnight, such as Europe/Berlin; UTC unless given
    #[arg(long, value_name = "ZONE")]
    pub(crate) time_zone: Option<String>,
    /// The time between the announcement and the deletion of a backup: 0s, 12h; 23h unless given
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) grace: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct UndeleteArgs {
    /// The backup's id
    #[arg(value_name = "ID")]
    pub(crate) backup: BackupId,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) lease: LeaseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Remove it
    #[arg(long)]
    pub(crate) apply: bool,
    /// How old something must be, so that no backup that runs is taken for what a crash left; 48h unless given
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) older_than: Option<Duration>,
    #[command(flatten)]
    pub(crate) lease: LeaseArgs,
}
