//! Where servers are kept that no package of this system brings: outside of cargo's target directory, for they take
//! minutes to build or a hundred megabytes to fetch.

use std::fs;
use std::path::{Path, PathBuf};

use crate::output::Result;
use crate::shell::Run;

/// The environment variable that names another place.
const FOLDER_VARIABLE: &str = "STACKKIT_SERVERS_DIR";
/// Where root keeps servers that run as another user: root's own cache is closed to every other one.
const SHARED: &str = "/var/cache/stackkit/servers";

/// For programs that run as whoever installs them: `STACKKIT_SERVERS_DIR`, else in the user's cache directory.
pub(super) fn own() -> PathBuf {
    set(FOLDER_VARIABLE).unwrap_or_else(|| {
        let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        cache.unwrap_or_else(std::env::temp_dir).join("stackkit/servers")
    })
}

/// For servers that refuse to run as root: `STACKKIT_SERVERS_DIR`, else as [`own`], but for root a place that every user
/// can reach.
pub(super) fn shared() -> PathBuf {
    match set(FOLDER_VARIABLE) {
        None if is_root() => PathBuf::from(SHARED),
        _ => own(),
    }
}

/// A tree that is there whole or not at all.
pub(super) struct Tree {
    /// Where it will be.
    pub(super) place: PathBuf,
    /// Where it grows.
    pub(super) part: PathBuf,
}

impl Tree {
    /// Begins the tree of `place`.
    ///
    /// # Errors
    /// If the folder can't be made, or if the servers' user could not reach it.
    pub(super) fn begin(place: PathBuf) -> Result<Self> {
        // A name that nobody takes for a version of a server.
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let part = place.with_file_name(format!(".{name}.part-{}", std::process::id()));
        fs::create_dir_all(&part)?;
        allow_reading(&part)?;
        if let (true, Some(closed)) = (is_root(), place.ancestors().skip(1).find(|above| !is_traversable(above))) {
            fs::remove_dir_all(&part)?;
            let closed = closed.display();
            return Err(format!("{closed} is closed to other users, and PostgreSQL does not run as root").into());
        }
        Ok(Self { place, part })
    }

    /// Fills it and puts it in its place. A tree that is only begun is removed.
    ///
    /// # Errors
    /// Those of `fill`; or if the tree can't be renamed.
    pub(super) fn fill(self, fill: impl FnOnce(&Self) -> Result) -> Result {
        let filled = fill(&self);
        if filled.is_ok() {
            return Ok(fs::rename(&self.part, &self.place)?);
        }
        fs::remove_dir_all(&self.part)?;
        filled
    }
}

/// Whether this process is root's.
fn is_root() -> bool {
    Run::new("id").arg("-u").read().is_ok_and(|id| id.trim() == "0")
}

fn set(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(unix)]
fn is_traversable(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    folder.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
}

#[cfg(not(unix))]
fn is_traversable(_: &Path) -> bool {
    true
}

/// Whatever the umask says.
#[cfg(unix)]
fn allow_reading(folder: &Path) -> Result {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn allow_reading(_: &Path) -> Result {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_there_whole_or_not_at_all() {
        let root = std::env::temp_dir().join(format!("stackkit-tree-{}", std::process::id()));
        let place = root.join("server-1.2.3");
        let failed = Tree::begin(place.clone()).unwrap().fill(|tree| {
            assert!(tree.part.is_dir());
            Err("no".into())
        });
        assert!(failed.is_err() && fs::read_dir(&root).unwrap().next().is_none());
        let filled = Tree::begin(place.clone()).unwrap().fill(|tree| Ok(fs::write(tree.part.join("file"), "")?));
        assert!(filled.is_ok() && place.join("file").is_file());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        fs::remove_dir_all(&root).unwrap();
    }
}
