//! Arguments of the commands that make, read and copy backups.

use clap::{Args, ValueEnum};
use stackkit::ServiceId;

use super::keys::{ReadArgs, SignArgs, TrustArgs};
use super::value::{self, Named, Portion, RecipientSource, Wanted};

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Encrypt to this recipient: age1…, or a file such as recipient.txt; may be given again
    #[arg(long = "recipient", value_name = "age1…|FILE")]
    pub(crate) recipients: Vec<RecipientSource>,
    /// Say that the backup may be stored unencrypted
    #[arg(long, conflicts_with = "recipients")]
    pub(crate) unencrypted: bool,
    /// Encrypt the manifest too, but for what a listing needs
    #[arg(long, requires = "recipients")]
    pub(crate) encrypt_manifest: bool,
    #[command(flatten)]
    pub(crate) sign: SignArgs,
    /// A word to find the backup by; may be given again
    #[arg(long = "tag", value_name = "TAG", value_parser = value::tag)]
    pub(crate) tags: Vec<String>,
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
