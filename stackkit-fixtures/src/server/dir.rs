//! A private directory that goes with the process, however the process goes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use stackkit_core::process::{Child, Tool, User};
use stackkit_core::{Error, ErrorKind, Result};

/// Where a server's data lies in memory, if the machine has it.
const MEMORY_ROOT: &str = "/dev/shm";
/// The environment variable that names another place, and no other is tried then.
const ROOT_VARIABLE: &str = "STACKKIT_FIXTURES_DIR";
/// Less free memory than this, and the disk is taken: four times a PostgreSQL template (28 MiB), with room for data.
const MEMORY_FREE_BYTES_MIN: u64 = 512 * 1024 * 1024;
/// The longest path of a Unix socket: 108 bytes on Linux, 104 on macOS, each with a NUL at its end.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// Room for the longest socket name that a fixture puts into its directory: `/.s.PGSQL.65535`.
const SOCKET_NAME_BYTES: usize = 16;

/// How often a directory is tried to be removed, and the pause between two tries: two seconds in all.
const REMOVE_TRIES: u32 = 400;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// What the watchdog runs: it waits for the end of its standard input, which comes when the last holder of the pipe
/// is gone, and then ends the server and removes the directory.
///
/// Arguments: the directory, the signal that ends the server, a file in the directory that the server removes when
/// it is done with ending. Moving the directory away first is what makes it safe: a server that is being started at
/// this moment can't write its process id any more, and then is not started (see `LAUNCHER`).
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
while read -r line; do :; done
gone=$1.gone
mv "$1" "$gone" 2>/dev/null || exit 0
while [ -e "$gone/pid" ] && [ ! -s "$gone/pid" ]; do :; done
if read -r pid <"$gone/pid"; then
    kill -s "$2" "$pid"
    looks=0
    while [ -e "$gone/$3" ] && [ $looks -lt 250 ]; do sleep 0.02; looks=$((looks + 1)); done
    kill -s KILL -- "-$pid"
fi 2>/dev/null
looks=0
until rm -rf "$gone" 2>/dev/null || [ $looks -ge 250 ]; do sleep 0.02; looks=$((looks + 1)); done
"#;

/// How a server is ended when its data is thrown away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuickEnd {
    /// The signal for `kill -s`.
    pub(crate) signal: &'static str,
    /// A file, relative to the directory, that is there until the server has ended its own children.
    pub(crate) marker: &'static str,
}

impl QuickEnd {
    /// SIGKILL, after which there is nothing to wait for.
    pub(crate) const KILL: Self = Self { signal: "KILL", marker: "no-marker" };
}

/// A directory of mode 0700 with a short path, in memory where there is room.
///
/// It is removed when the value is dropped, and by a watchdog when the process ends without dropping it. A server
/// whose process id stands in its file `pid` is ended first.
#[derive(Debug)]
pub(crate) struct PrivateDir {
    path: PathBuf,
    owner: Option<User>,
    _watchdog: Child,
    /// Only this process holds the writing end of the watchdog's standard input; `exec` closes it.
    _lifeline: OwnedFd,
}

impl PrivateDir {
    /// Makes a directory that belongs to `owner`, or to the user of this process.
    ///
    /// # Errors
    /// `Io`, `PermissionDenied`; `ToolMissing` without `/bin/sh`.
    pub(crate) fn create(owner: Option<User>, end: QuickEnd) -> Result<Self> {
        Self::create_in(&root(owner.is_some())?, owner, end)
    }

    /// Makes a directory for this user where temporary files are.
    ///
    /// # Errors
    /// As [`PrivateDir::create`].
    pub(crate) fn on_disk(end: QuickEnd) -> Result<Self> {
        let root = std::env::var_os(ROOT_VARIABLE).map_or_else(std::env::temp_dir, PathBuf::from);
        Self::create_in(&root, None, end)
    }

    fn create_in(root: &Path, owner: Option<User>, end: QuickEnd) -> Result<Self> {
        let path = root.join(format!("sk-{:012x}", fastrand::u64(..) >> 16));
        // The watchdog first: there is no moment at which the directory exists and nobody would remove it.
        let silent = OpenOptions::new().write(true).open("/dev/null").map_err(|e| Error::io("open /dev/null", e))?;
        let watchdog = Tool::new("/bin/sh").args(["-c", WATCHDOG, "stackkit-watchdog"]).arg(&path);
        let watchdog = watchdog.args([end.signal, end.marker]).stdin_piped().stderr_to(silent);
        let mut watchdog = watchdog.spawn()?;
        let lifeline = watchdog.take_stdin().ok_or_else(|| Error::unexpected("the watchdog has no standard input"))?;
        let lifeline = lifeline.into_owned_fd().map_err(|error| Error::io("hold the watchdog's pipe", error))?;
        if let Err(error) = DirBuilder::new().mode(0o700).create(&path) {
            // Before its pipe ends: a directory of that name is somebody else's.
            drop(watchdog);
            return Err(Error::io("make a fixture's directory", error).with_context("path", path.display()));
        }
        let dir = Self { path, owner, _watchdog: watchdog, _lifeline: lifeline };
        dir.give_to_owner(&dir.path)?;
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn owner(&self) -> Option<User> {
        self.owner
    }

    /// Writes a file of mode 0600 that belongs to the owner.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        use std::io::Write;
        let path = self.path.join(name);
        let mut file = self.open(&path)?;
        file.set_len(0).and_then(|()| file.write_all(content)).map_err(|error| Error::io("write a file", error))?;
        self.give_to_owner(&path)?;
        Ok(path)
    }

    /// Opens a file of mode 0600 to append to.
    pub(crate) fn open(&self, path: &Path) -> Result<File> {
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        opened.map_err(|error| Error::io("open a file", error).with_context("path", path.display()))
    }

    fn give_to_owner(&self, path: &Path) -> Result<()> {
        give(path, self.owner)
            .map_err(|error| Error::io("change the owner", error).with_context("path", path.display()))
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // A worker thread of a cancelled operation may still be writing below it.
        for _ in 0..REMOVE_TRIES {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => std::thread::park_timeout(REMOVE_PAUSE),
                _gone => return,
            }
        }
    }
}

/// Copies a tree of plain files and directories; `owner` gets it, or the user of this process.
pub(crate) async fn copy_tree(from: PathBuf, to: PathBuf, owner: Option<User>) -> Result<()> {
    let copied = tokio::task::spawn_blocking(move || copy_entries(vec![(from, to)], owner)).await;
    copied.map_err(|error| Error::unexpected("the task that copies failed").with_source(error))?
}

fn copy_entries(mut pairs: Vec<(PathBuf, PathBuf)>, owner: Option<User>) -> Result<()> {
    while let Some((from, to)) = pairs.pop() {
        let copied = copy_entry(&from, &to, &mut pairs).and_then(|()| give(&to, owner));
        copied.map_err(|error| Error::io("copy a data directory", error).with_context("path", to.display()))?;
    }
    Ok(())
}

fn copy_entry(from: &Path, to: &Path, pairs: &mut Vec<(PathBuf, PathBuf)>) -> std::io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        pairs.push((entry.path(), to.join(entry.file_name())));
    }
    Ok(())
}

fn give(path: &Path, owner: Option<User>) -> std::io::Result<()> {
    match owner {
        Some(user) => std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

/// The directory to make private ones in: `STACKKIT_FIXTURES_DIR` if it is set, else memory, the temporary directory,
/// `/tmp`.
fn root(for_another_user: bool) -> Result<PathBuf> {
    let candidates = match std::env::var_os(ROOT_VARIABLE) {
        Some(explicit) => vec![PathBuf::from(explicit)],
        None => {
            let memory = Some(PathBuf::from(MEMORY_ROOT)).filter(|path| free_bytes(path) >= MEMORY_FREE_BYTES_MIN);
            memory.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]).collect()
        }
    };
    let fits = |path: &&PathBuf| {
        let path_bytes = path.as_os_str().len() + "/sk-000000000000".len() + SOCKET_NAME_BYTES;
        path_bytes <= SOCKET_PATH_BYTES_MAX && (!for_another_user || is_traversable(path)) && is_writable(path)
    };
    candidates.iter().find(fits).cloned().ok_or_else(|| {
        let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        Error::new(ErrorKind::Io, "no directory for fixtures is writable, short and open to the server's user")
            .with_context("tried", tried.join(":"))
            .with_context("variable", ROOT_VARIABLE)
    })
}

fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

/// Whether any user may pass through `path` and all that is above it.
fn is_traversable(path: &Path) -> bool {
    path.ancestors().all(|step| fs::metadata(step).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}

/// Whether `path` belongs to `user`.
pub(crate) fn belongs_to(path: &Path, uid: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == uid)
}
