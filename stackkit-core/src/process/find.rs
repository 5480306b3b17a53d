//! Looking for vendor tools.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// The directories of `PATH`, in order.
#[must_use]
pub fn path_directories() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// Finds the first executable file called `name` in `directories`, then in `PATH`.
///
/// # Errors
/// `ToolMissing` with every directory that was looked into.
pub fn find_tool(name: &str, directories: &[PathBuf]) -> Result<PathBuf> {
    let searched: Vec<PathBuf> = directories.iter().cloned().chain(path_directories()).collect();
    searched.iter().map(|directory| directory.join(name)).find(|path| is_executable(path)).ok_or_else(|| {
        let places: Vec<String> = searched.iter().map(|place| place.display().to_string()).collect();
        Error::new(ErrorKind::ToolMissing, format!("{name} is not installed"))
            .with_context("looked_in", places.join(":"))
    })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_says_where_it_was_looked_for() {
        let error = find_tool("no-such-tool", &[PathBuf::from("/opt/nowhere")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ToolMissing);
        assert!(error.to_string().contains("/opt/nowhere"), "{error}");
    }
}
