//! Where a program is looked for.

use std::path::{Path, PathBuf};

/// Besides `PATH`: server binaries often stand in a folder of their own. `*` is one part of a folder's name.
const WELL_KNOWN: [&str; 10] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/usr/local/go/bin",
    "/usr/lib/go-*/bin",
];

/// The folders to look in, in order: `PATH`, then the well-known ones that exist.
pub(crate) fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(WELL_KNOWN.iter().flat_map(|pattern| expand(pattern)));
    folders
}

/// The first of `names` found in `folders`.
pub(crate) fn find(names: &[&str], folders: &[PathBuf]) -> Option<PathBuf> {
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| is_program(path))
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// The existing folders that `pattern`, with at most one `*`, stands for.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![PathBuf::from(pattern)] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let Ok(entries) = Path::new(parent).read_dir() else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut found: Vec<PathBuf> = names
        .filter(|name| name.to_string_lossy().starts_with(prefix))
        .map(|name| Path::new(parent).join(name).join(after.trim_start_matches('/')))
        .filter(|folder| folder.is_dir())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_an_executable_file() {
        assert!(find(&["sh"], &folders()).is_some());
        assert!(find(&["Cargo.toml"], &[crate::shell::root()]).is_none(), "a file that cannot be executed");
        assert!(find(&["xtask"], &[crate::shell::root()]).is_none(), "a folder");
        assert!(find(&["no-such-program", "sh"], &folders()).is_some(), "the second name serves as well");
    }

    #[test]
    fn a_star_stands_for_one_part_of_a_name() {
        let root = crate::shell::root();
        assert_eq!(expand(&format!("{}/xta*/src", root.display())), [root.join("xtask/src")]);
        assert!(expand(&format!("{}/nothing*/src", root.display())).is_empty());
    }
}
