//! Which `pg_dump` and `pg_restore` to run, and with which environment.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stackkit_core::process::{Tool, path_directories};
use stackkit_core::{Error, ErrorKind, Result};

use crate::client::APPLICATION_NAME;
use crate::config::{Host, PostgresConfig, TlsMode};

/// How long a tool may take to print its version: it prints one line, but may have to be read from a slow disk.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Where packages put the tools beside `PATH`: parent, beginning of a folder's name, folder in it. Debian and Ubuntu,
/// the RPMs of postgresql.org, Homebrew on Apple silicon and on Intel.
const PACKAGE_PLACES: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];

/// Debian's dispatcher, which chooses a version by rules of its own.
const DEBIAN_WRAPPER: &str = "pg_wrapper";

/// Variables of libpq that would change what a tool connects to, or what it prints.
const ENV_REMOVED: [&str; 6] =
    ["PGSERVICE", "PGHOSTADDR", "PGCLIENTENCODING", "PGTARGETSESSIONATTRS", "PGDATESTYLE", "PGTZ"];

/// From this version on libpq can trust the system's certificates (`sslrootcert=system`).
const SYSTEM_ROOTS_SINCE: Version = Version(160_000);

/// From this version on `pg_restore` sets `transaction_timeout`, which older servers do not know.
const TRANSACTION_TIMEOUT_SINCE: Version = Version(170_000);

/// A version as `server_version_num` counts: 150018 is 15.18, 90624 is 9.6.24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32);

impl Version {
    /// Reads `15.18`, `9.6.24`, `18beta1` or `17devel`; what follows a space is a package's own.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = |part: &str| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse::<u32>().ok()
        };
        let mut parts = text.split_whitespace().next()?.split('.');
        let major = digits(parts.next()?)?;
        let second = parts.next().and_then(digits).unwrap_or(0);
        let third = parts.next().and_then(digits).unwrap_or(0);
        match major {
            0 => None,
            10.. => major.checked_mul(10_000)?.checked_add(second).map(Self),
            _ => Some(Self(major * 10_000 + second.min(99) * 100 + third.min(99))),
        }
    }

    /// What a tool prints for `--version`: `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    pub(crate) fn of_tool(output: &str) -> Option<Self> {
        output.split_once("(PostgreSQL)").and_then(|(_, version)| Self::parse(version))
    }

    /// The release series: tools and servers of one series understand each other whatever their minor versions.
    pub(crate) fn series(self) -> u32 {
        if self.0 >= 100_000 { self.0 / 10_000 * 100 } else { self.0 / 100 }
    }

    /// The series in words: `15` or `9.6`.
    pub(crate) fn series_name(self) -> String {
        match self.0 >= 100_000 {
            true => (self.0 / 10_000).to_string(),
            false => format!("{}.{}", self.0 / 10_000, self.0 / 100 % 100),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = if self.0 >= 100_000 { self.0 % 10_000 } else { self.0 % 100 };
        write!(f, "{}.{last}", self.series_name())
    }
}

/// A tool that was found, and what it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VendorTool {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
}

impl VendorTool {
    /// The tool, ready to connect to `database` as configured. The password goes by the environment, which only
    /// this user and root can read.
    pub(crate) fn command(&self, config: &PostgresConfig, database: &str) -> Result<Tool> {
        let host = match &config.host {
            Host::Tcp(name) => OsStr::new(name),
            Host::Unix(directory) => directory.as_os_str(),
        };
        let mut tool = self
            .offline()
            .env("PGHOST", host)
            .env("PGPORT", config.port.to_string())
            .env("PGUSER", &config.user)
            .env("PGDATABASE", database)
            .env("PGAPPNAME", APPLICATION_NAME)
            .env("PGOPTIONS", "")
            .env("PGSSLMODE", config.tls.as_str())
            .env("PGCONNECT_TIMEOUT", config.connect_timeout.as_secs().max(2).to_string());
        tool = match self.roots(config)? {
            Some(roots) => tool.env("PGSSLROOTCERT", roots),
            None => tool.env_remove("PGSSLROOTCERT"),
        };
        Ok(match &config.password {
            Some(password) => tool.secret_env("PGPASSWORD", password),
            None => tool.env_remove("PGPASSWORD"),
        })
    }

    /// The tool with a clean environment, for work without a server.
    pub(crate) fn offline(&self) -> Tool {
        ENV_REMOVED.iter().fold(Tool::new(&self.path), Tool::env_remove).env("LC_ALL", "C")
    }

    fn roots(&self, config: &PostgresConfig) -> Result<Option<PathBuf>> {
        match (&config.host, config.tls, &config.ca_file) {
            (Host::Tcp(_), TlsMode::VerifyFull, Some(file)) => Ok(Some(file.clone())),
            (Host::Tcp(_), TlsMode::VerifyFull, None) if self.version >= SYSTEM_ROOTS_SINCE => {
                Ok(Some("system".into()))
            }
            (Host::Tcp(_), TlsMode::VerifyFull, None) => {
                let message = "tools before version 16 can't verify against the system's certificates: name a CA file";
                Err(Error::config(message).with_context("tool", self.path.display()))
            }
            _ => Ok(None),
        }
    }
}

/// Finds the `name` to use with something of version `need`: see [`choose`].
///
/// Looks into the configured directories and no others; without such into `PATH` and where packages put the tools.
pub(crate) async fn find(name: &'static str, config: &PostgresConfig, need: Version) -> Result<VendorTool> {
    let (directories, looked_in) = match config.tool_dirs.is_empty() {
        false => (config.tool_dirs.clone(), shown(&config.tool_dirs)),
        true => {
            let packages = PACKAGE_PLACES.map(|(parent, start, end)| format!("{parent}/{start}*/{end}"));
            (default_directories().await, [shown(&path_directories()), packages.to_vec()].concat())
        }
    };
    let mut found = Vec::new();
    let mut unusable = Vec::new();
    for path in candidates(name, &directories).await {
        match version_of(&path).await {
            Some(version) => found.push(VendorTool { path, version }),
            None => unusable.push(format!("{} (tells no version)", path.display())),
        }
    }
    if let Some(tool) = choose(&found, need) {
        return Ok(tool.clone());
    }
    unusable.extend(found.iter().map(|tool| format!("{} ({})", tool.path.display(), tool.version)));
    Err(missing(name, need, &unusable, &looked_in))
}

/// Whether a `pg_restore` of version `tool` sends settings that a server of version `server` refuses.
pub(crate) fn sends_new_settings(tool: Version, server: Version) -> bool {
    tool >= TRANSACTION_TIMEOUT_SINCE && server < TRANSACTION_TIMEOUT_SINCE
}

/// The lines of a tool's standard error, empty ones left out: the warnings of a tool that succeeded.
pub(crate) fn lines(stderr: &str) -> Vec<String> {
    stderr.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn shown(directories: &[PathBuf]) -> Vec<String> {
    directories.iter().map(|directory| directory.display().to_string()).collect()
}

/// The tool of the series closest to `need` that is not older; of that series the newest.
///
/// Not the newest of all: from version 17 on `pg_restore` sends settings that older servers refuse, and archives of a
/// newer `pg_dump` can't be read by the `pg_restore` that belongs to the server.
fn choose(found: &[VendorTool], need: Version) -> Option<&VendorTool> {
    let fit = found.iter().filter(|tool| tool.version.series() >= need.series());
    fit.min_by_key(|tool| (tool.version.series(), Reverse(tool.version)))
}

fn missing(name: &str, need: Version, unusable: &[String], looked_in: &[String]) -> Error {
    let series = need.series_name();
    let message = match unusable.is_empty() {
        true => format!("no {name} is installed; version {series} or newer is needed"),
        false => format!("no {name} that is installed is new enough; version {series} or newer is needed"),
    };
    let error = Error::new(ErrorKind::ToolMissing, message);
    let error = if unusable.is_empty() { error } else { error.with_context("found", unusable.join(", ")) };
    error.with_context("looked_in", looked_in.join(":")).with_context(
        "install",
        format!("the client package of PostgreSQL {series}, such as postgresql-client-{series}"),
    )
}

async fn version_of(path: &Path) -> Option<Version> {
    let output = Tool::new(path).arg("--version").env("LC_ALL", "C").output(VERSION_TIMEOUT).await.ok()?;
    Version::of_tool(&String::from_utf8_lossy(&output))
}

/// Each file called `name` once, in the order of the directories.
async fn candidates(name: &str, directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut paths = Vec::new();
    for directory in directories {
        let path = directory.join(name);
        let Ok(real) = tokio::fs::canonicalize(&path).await else { continue };
        if !real.ends_with(DEBIAN_WRAPPER) && seen.insert(real) {
            paths.push(path);
        }
    }
    paths
}

async fn default_directories() -> Vec<PathBuf> {
    let mut directories = path_directories();
    for (parent, start, end) in PACKAGE_PLACES {
        let Ok(mut entries) = tokio::fs::read_dir(parent).await else { continue };
        while let Ok(Some(entry)) = entries.next_entry().await {
            if entry.file_name().to_string_lossy().starts_with(start) {
                directories.push(entry.path().join(end));
            }
        }
    }
    directories
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tool(text: &str) -> VendorTool {
        VendorTool { path: format!("/{text}").into(), version: Version::parse(text).expect(text) }
    }

    #[test]
    fn versions_are_read_as_servers_count_them() {
        for (text, number) in [("15.18", 150_018), ("9.6.24", 90_624), ("18beta1", 180_000), ("17devel", 170_000)] {
            assert_eq!(Version::parse(text), Some(Version(number)), "{text}");
        }
        assert_eq!(Version::of_tool("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(Version(150_018)));
        assert_eq!(Version::of_tool("pg_dump 15.18"), None);
        assert_eq!(Version(150_018).to_string(), "15.18");
        assert_eq!(Version(90_624).to_string(), "9.6.24");
    }

    #[test]
    fn the_closest_series_that_is_not_older_is_chosen() {
        let found = [tool("18.4"), tool("15.2"), tool("15.18"), tool("16.1"), tool("9.6.24")];
        let chosen = |need: u32| choose(&found, Version(need)).map(|tool| tool.version.to_string());
        assert_eq!(chosen(150_099).as_deref(), Some("15.18"));
        assert_eq!(chosen(140_000).as_deref(), Some("15.18"));
        assert_eq!(chosen(170_000).as_deref(), Some("18.4"));
        assert_eq!(chosen(90_400).as_deref(), Some("9.6.24"));
        assert_eq!(chosen(190_000), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _version = Version::parse(&text);
        }

        #[test]
        fn versions_print_as_they_are_read(major in 10u32..99, minor in 0u32..9999) {
            let text = format!("{major}.{minor}");
            prop_assert_eq!(Version::parse(&text).expect("a version").to_string(), text);
        }
    }
}
