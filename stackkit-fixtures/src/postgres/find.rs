//! Which PostgreSQL runs.

use std::fs;
use std::path::{Path, PathBuf};

use stackkit_core::{Error, Result};

use crate::server::{built_for_all, find_built, find_server};

/// The environment variable that names the major version for fixtures that are not told one.
const MAJOR_VARIABLE: &str = "STACKKIT_POSTGRES_MAJOR";
/// Where packages put the server when its directory is not in `PATH`; the highest version is taken.
const WELL_KNOWN: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql/bin",
    "/usr/local/opt/postgresql/bin",
];
/// Where packages put one version, with `*` for it.
const WELL_KNOWN_VERSIONS: [&str; 4] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
];

/// The program `postgres` of that major version; of the one that the environment variable `STACKKIT_POSTGRES_MAJOR`
/// names; or the one that is installed. Its tools are in the same directory.
///
/// # Errors
/// `ToolMissing`: where it was looked for, and what installs it. `Config` if the environment names no version.
pub fn find_postgres(major: Option<u32>) -> Result<PathBuf> {
    let found = match major.map_or_else(major_of_environment, |major| Ok(Some(major)))? {
        Some(major) => find_version(major)?,
        None => find_server("postgres", "STACKKIT_POSTGRES_BIN", &[], WELL_KNOWN)?,
    };
    // It finds initdb and its libraries from its own place.
    fs::canonicalize(&found).map_err(|error| Error::io("find postgres", error))
}

/// What `STACKKIT_REQUIRE` calls the version that fixtures run when they are not told one: `postgres`, or `postgres17`
/// if the environment variable `STACKKIT_POSTGRES_MAJOR` says 17; 16 and 18 likewise.
#[must_use]
pub fn postgres_kind() -> &'static str {
    match major_of_environment() {
        Ok(Some(16)) => "postgres16",
        Ok(Some(17)) => "postgres17",
        Ok(Some(18)) => "postgres18",
        _ => "postgres",
    }
}

/// The major version that the environment names, if it does.
///
/// # Errors
/// `Config` if it is no number.
fn major_of_environment() -> Result<Option<u32>> {
    let text = std::env::var(MAJOR_VARIABLE).unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let fault = |error| Error::config("the major version of PostgreSQL is no number").with_source(error);
    text.parse().map(Some).map_err(|error| fault(error).with_context("variable", MAJOR_VARIABLE))
}

/// The major version of a data directory.
pub(super) fn major_of(data: &Path) -> Result<u32> {
    let fault = || Error::config("this is no data directory of PostgreSQL").with_context("path", data.display());
    let text = fs::read_to_string(data.join("PG_VERSION")).map_err(|error| fault().with_source(error))?;
    text.trim().parse().map_err(|error| fault().with_source(error))
}

fn find_version(major: u32) -> Result<PathBuf> {
    let name = format!("postgresql-{major}");
    let fetched = built_for_all(&name).into_iter().map(|folder| folder.join("bin"));
    let installed = WELL_KNOWN_VERSIONS.iter().map(|pattern| PathBuf::from(pattern.replace('*', &major.to_string())));
    let folders: Vec<_> = fetched.chain(installed).collect();
    find_built("postgres", &name, &folders)
}

#[cfg(test)]
mod tests {
    use stackkit_core::ErrorKind;

    use super::*;

    #[test]
    fn a_version_that_is_not_there_says_what_installs_it() {
        let error = find_postgres(Some(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ToolMissing);
        let text = error.to_string();
        assert!(text.contains("cargo xtask servers postgresql-3") && text.contains("/usr/lib/postgresql/3"), "{text}");
    }

    #[test]
    fn a_data_directory_tells_its_version() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(major_of(folder.path()).unwrap_err().kind(), ErrorKind::Config);
        fs::write(folder.path().join("PG_VERSION"), "17\n").unwrap();
        assert_eq!(major_of(folder.path()).unwrap(), 17);
    }
}
