//! Where the servers' binaries are.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use stackkit_core::process::{is_root, path_directories};
use stackkit_core::{Error, ErrorKind, Result};

/// What installs the servers on this project's machines.
const INSTALL_COMMAND: &str = "cargo xtask servers";

/// The environment variable that names the folder of servers that were built; else it is in the user's cache directory.
const BUILT_VARIABLE: &str = "STACKKIT_SERVERS_DIR";
/// Where root keeps the servers that run as another user, who can't look into root's cache.
const BUILT_FOR_ALL: &str = "/var/cache/stackkit/servers";

/// Finds `program`: in the directory that the environment variable `variable` names, and then nowhere else; or in
/// `first`, in `PATH`, then in `well_known`. A `*` in the middle of a well-known directory stands for a version; the highest is
/// taken first.
///
/// # Errors
/// `ToolMissing` with all directories that were looked into, and the command that installs it.
pub(crate) fn find_server(
    program: &str,
    variable: &'static str,
    first: &[PathBuf],
    well_known: &[&str],
) -> Result<PathBuf> {
    let directories = match std::env::var_os(variable) {
        Some(explicit) => vec![PathBuf::from(explicit)],
        None => {
            let well_known = well_known.iter().flat_map(|pattern| expand(pattern));
            first.iter().cloned().chain(path_directories()).chain(well_known).collect()
        }
    };
    find_in(&directories, program).ok_or_else(|| missing(program, &directories, variable, INSTALL_COMMAND))
}

/// Finds `program` of the server `name`, which is not the one that this system has, in `directories`.
///
/// # Errors
/// As [`find_server`].
pub(crate) fn find_built(program: &str, name: &str, directories: &[PathBuf]) -> Result<PathBuf> {
    let install = format!("{INSTALL_COMMAND} {name}");
    find_in(directories, program).ok_or_else(|| missing(name, directories, BUILT_VARIABLE, &install))
}

fn find_in(directories: &[PathBuf], program: &str) -> Option<PathBuf> {
    directories.iter().map(|directory| directory.join(program)).find(|path| path.is_file())
}

fn missing(name: &str, directories: &[PathBuf], variable: &'static str, install: &str) -> Error {
    let places: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
    Error::new(ErrorKind::ToolMissing, format!("{name} is not installed"))
        .with_context("looked_in", places.join(":"))
        .with_context("variable", variable)
        .with_context("install_with", install)
}

/// The folders of the server `name` that `cargo xtask servers` built, `NAME-VERSION`, the newest first.
pub(crate) fn built(name: &str) -> Vec<PathBuf> {
    let cache = || set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let root = set(BUILT_VARIABLE).or_else(|| cache().map(|cache| cache.join("stackkit/servers")));
    root.map_or_else(Vec::new, |root| versions_in(&root, name))
}

/// As [`built`], of a server that root runs as another user.
pub(crate) fn built_for_all(name: &str) -> Vec<PathBuf> {
    if is_root() && set(BUILT_VARIABLE).is_none() { versions_in(Path::new(BUILT_FOR_ALL), name) } else { built(name) }
}

fn set(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn versions_in(root: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_version = |folder: &String| folder.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    let mut folders: Vec<String> = names.filter(is_version).collect();
    folders.sort_by_key(|folder| Reverse(version_key(folder)));
    folders.into_iter().map(|folder| root.join(folder)).collect()
}

fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((parent, rest)) = pattern.split_once("/*/") else {
        return vec![PathBuf::from(pattern)];
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut versions: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    versions.sort_by_key(|name| Reverse(version_key(name)));
    versions.iter().map(|version| Path::new(parent).join(version).join(rest)).collect()
}

/// The numbers in a directory's name, so that 15 comes after 9.6.
fn version_key(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let mut names = vec!["9.6", "15", "16.1", "16"];
        names.sort_by_key(|name| Reverse(version_key(name)));
        assert_eq!(names, ["16.1", "16", "15", "9.6"]);
    }

    #[test]
    fn the_newest_of_the_built_versions_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["s3d-v0.0.0-20250101000000-aaaaaaaaaaaa", "s3d-v0.0.0-20260101000000-000000000000", "s3dx-v9"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let found = versions_in(root.path(), "s3d");
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("s3d-v0.0.0-20260101000000-000000000000"), "{found:?}");
        assert!(versions_in(&root.path().join("none"), "s3d").is_empty());
    }

    #[test]
    fn a_missing_server_says_where_it_was_looked_for_and_what_installs_it() {
        let error = find_server("no-such-server", "STACKKIT_NO_SUCH_BIN", &[], &["/opt/nowhere"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ToolMissing);
        let text = error.to_string();
        assert!(text.contains("/opt/nowhere") && text.contains("cargo xtask servers"), "{text}");
    }
}
