//! Arguments of the commands that write and read the vendor's own archives.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use stackkit::{Error, ServiceId};

use super::PostgresArgs;
use super::keys::ReadArgs;
use super::value::Wanted;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A PostgreSQL service of a backup: ID/SERVICE, or latest/SERVICE
    #[arg(value_name = "ID/SERVICE")]
    pub(crate) part: Part,
    /// What to write
    #[arg(long, value_enum)]
    pub(crate) format: Format,
    /// The file or folder to make, or - for standard output
    #[arg(long, value_name = "PATH|-")]
    pub(crate) out: PathBuf,
    /// The major version whose `pg_restore` must read it; that of the server that was dumped unless given
    #[arg(long = "for", value_name = "MAJOR")]
    pub(crate) major: Option<u32>,
    /// Which database, in a backup of several
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Only this table, with its rows, indexes and constraints; may be given again
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    pub(crate) tables: Vec<String>,
    /// Pack the data inside
    #[arg(long, value_enum, default_value_t = Packing::None)]
    pub(crate) compress: Packing,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// What `pg_dump` wrote: a custom file, a folder, a tar file; SQL text with --trusted
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where to: a service of the stack by its id, postgres://…, or env:NAME. Its database is replaced by a new one
    #[arg(long, value_name = "ID|URL|env:NAME")]
    pub(crate) into: String,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) plan: bool,
    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Remove the replaced database at once instead of keeping it under another name
    #[arg(long, conflicts_with = "keep_old")]
    pub(crate) remove_old: bool,
    /// Run SQL text as it is: you know who wrote it, and that it may do all that the role may
    #[arg(long)]
    pub(crate) trusted: bool,
    #[command(flatten, next_help_heading = "PostgreSQL")]
    pub(crate) postgres: PostgresArgs,
}

/// One service of one backup.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) backup: Wanted,
    pub(crate) service: ServiceId,
}

impl FromStr for Part {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let (backup, service) = text.split_once('/').ok_or_else(|| Error::config("what to export is ID/SERVICE"))?;
        Ok(Self { backup: backup.parse()?, service: ServiceId::new(service)? })
    }
}

/// The vendor's formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A folder with a file for each table, for `pg_restore -j`
    Directory,
    /// One file for `pg_restore`
    Custom,
    /// SQL text for `psql`
    Plain,
}

/// Nothing of a restore that runs is touched.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The PostgreSQL database: the id of a service, or its URL
    #[arg(value_name = "ID|URL|env:NAME")]
    pub(crate) service: String,
    /// Remove databases that restores replaced, instead
    #[arg(long, value_name = "WHICH")]
    pub(crate) remove_old: Option<Replaced>,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) plan: bool,
    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Which replaced databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Replaced {
    /// Those whose time is over
    Expired,
    /// Every one
    All,
}

/// How data is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Packing {
    /// Not at all
    None,
    /// Every `pg_restore` reads it
    Gzip,
    /// Read by `pg_restore` from 16 on
    Zstd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_backup_and_a_service() {
        let part: Part = "latest/db".parse().unwrap();
        assert!(matches!(part.backup, Wanted::Latest));
        assert_eq!(part.service.as_str(), "db");
        assert!("latest".parse::<Part>().is_err() && "x/db".parse::<Part>().is_err());
    }
}
