//! The command line.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stackkit::{Error, ServiceId};

use crate::location::Location;

/// The name of a stack that was given none.
const STACK_DEFAULT: &str = "stack";

/// Probes, backs up, verifies and restores a stack of datastores.
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
    /// Where backups are kept: file:///path, or env:VARIABLE
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
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
    /// Back up all services as one backup
    Backup(BackupArgs),
    /// List the backups, newest first; with --stack only that stack's
    List {
        /// Also those without a manifest: backups that run, and what interrupted ones left
        #[arg(long)]
        all: bool,
    },
    /// Check a backup; 0 if it is whole, 1 if not
    Verify {
        /// A backup's id, or latest
        #[arg(default_value = "latest")]
        backup: Wanted,
        /// How deep to look
        #[arg(long, value_enum, default_value_t = Level::Stored)]
        level: Level,
    },
    /// Restore a backup: shows the plan, asks, restores, compares the census
    Restore(RestoreArgs),
    /// Look at tools, servers, rights, clocks and the repository
    Doctor,
}

impl Command {
    /// What an interrupt of the command leaves.
    pub(crate) fn interrupted(&self) -> &'static str {
        match self {
            // A store without a swap, such as Redis, is filled in place.
            Self::Restore(args) if !args.plan => {
                "interrupted; the repository is as it was, but a service whose restore had begun may hold a part of its \
                 data: restore it again"
            }
            _ => "interrupted; nothing is half-written",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// A word to find the backup by; may be given again
    #[arg(long = "tag", value_name = "TAG", value_parser = tag)]
    pub(crate) tags: Vec<String>,
    /// Say that the backup may be stored unencrypted; required until there is encryption
    #[arg(long)]
    pub(crate) unencrypted: bool,
    /// Keep what succeeded when a service fails; such a backup is never `latest`
    #[arg(long)]
    pub(crate) partial: bool,
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
}

/// How deep `verify` looks.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Level {
    /// The hash of every stored byte
    Stored,
    /// Also decompress, hash the plain bytes, and parse them as the vendor would
    Content,
}

/// A backup that is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// The newest complete one.
    Latest,
    /// This one.
    Id(stackkit::backup::BackupId),
}

impl FromStr for Wanted {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "latest" => Ok(Self::Latest),
            id => id.parse().map(Self::Id),
        }
    }
}

/// `[ID=]LOCATION`.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) id: Option<ServiceId>,
    pub(crate) location: Location,
}

impl From<&str> for Named {
    fn from(text: &str) -> Self {
        // A URL may hold an equals sign too, but what stands before it is no id then.
        let named = text.split_once('=').and_then(|(id, rest)| Some((ServiceId::new(id).ok()?, rest)));
        match named {
            Some((id, location)) => Self { id: Some(id), location: location.into() },
            None => Self { id: None, location: text.into() },
        }
    }
}

/// A tag that can be seen, and stays on its line.
fn tag(text: &str) -> Result<String, &'static str> {
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => Err("a tag is a word"),
        false => Ok(text.to_owned()),
    }
}

/// A whole number with one of the units `ms`, `s`, `m`, `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text:?} is not a time such as 500ms, 60s, 5m or 1h");
    let number: u64 = number.parse().map_err(|_not_a_number| wrong())?;
    let factor_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor_ms).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_a_unit() {
        for (text, millis) in [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "60", "s", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_ends_at_the_first_equals_sign() {
        let id = |text| Named::from(text).id.map(String::from);
        assert_eq!(id("cache=redis://db?db=1").as_deref(), Some("cache"));
        assert_eq!(id("cache=env:REDIS_URL").as_deref(), Some("cache"));
        assert_eq!(id("redis://db?db=1"), None);
        assert_eq!(id("file:///srv/a=b"), None);
    }
}
