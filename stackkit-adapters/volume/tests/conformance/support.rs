//! Trees to dump, and the few steps that most cases share.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};
use stackkit_core::backup::{
    DumpContext, DumpReport, OldData, RestoreContext, RestoreOptions, RestorePlan, RestoreReport,
};
use stackkit_core::process::Tool;
use stackkit_core::{BackupProvider, Census, Result};
use stackkit_volume::Volume;
use tempfile::TempDir;

use crate::memory::{Backup, Sink};

/// How long a tool may take.
const TOOL_LIMIT: Duration = Duration::from_secs(60);

/// A temporary directory with a volume in it.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) volume: Volume,
}

impl Place {
    /// The volume's directory exists and is empty.
    pub(crate) fn empty() -> Self {
        let place = Self::missing();
        fs::create_dir(place.path()).unwrap();
        place
    }

    pub(crate) fn missing() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let volume = Volume::new("uploads", directory.path().join("uploads"));
        Self { directory, volume }
    }

    /// A tree with one of everything.
    pub(crate) fn full() -> Self {
        let place = Self::empty();
        fill(place.path());
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.volume.path()
    }

    /// Removes the volume's directory.
    pub(crate) fn wipe(&self) {
        open_up(self.path());
        fs::remove_dir_all(self.path()).unwrap();
    }

    /// What stands beside the volume.
    pub(crate) fn siblings(&self) -> Vec<String> {
        names(self.directory.path()).into_iter().filter(|name| name != "uploads").collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        open_up(self.directory.path());
    }
}

/// Makes every directory below `root` removable for others than root.
fn open_up(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755)).ok();
            open_up(&entry.path());
        }
    }
}

/// The sorted names in a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The size of the sparse file: far above what it allocates.
pub(crate) const SPARSE_BYTES: u64 = 64 * 1024 * 1024;

fn fill(root: &Path) {
    let inside = |name: &[u8]| root.join(OsStr::from_bytes(name));
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::create_dir(root.join("read-only")).unwrap();
    fs::write(root.join("read-only/file"), "x").unwrap();
    fs::set_permissions(root.join("read-only"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::write(root.join("a/empty"), "").unwrap();
    fs::write(root.join("a/b/block"), [7; 512]).unwrap();
    fs::write(root.join("a/large"), (0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect::<Vec<_>>()).unwrap();
    fs::write(inside("grüße €.txt".as_bytes()), "unicode").unwrap();
    fs::write(inside(b"not-text-\xff\xfe"), "binary").unwrap();
    fs::write(inside(&[b'n'; 200]), "long").unwrap();
    fs::write(inside(&[0xfe; 150]), "long and binary").unwrap();
    fs::write(inside(b"new\nline"), "newline").unwrap();
    let deep = root.join("d".repeat(120)).join("e".repeat(120)).join("f".repeat(60));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("leaf"), "leaf").unwrap();
    symlink("a/large", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    symlink("x".repeat(300), root.join("long-link")).unwrap();
    fs::hard_link(root.join("a/large"), root.join("z-hard-link")).unwrap();
    fs::write(root.join("setuid"), "s").unwrap();
    fs::set_permissions(root.join("setuid"), fs::Permissions::from_mode(0o4750)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(SPARSE_BYTES).unwrap();
    for offset in [1024 * 1024, 20 * 1024 * 1024 + 5] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"island", offset).unwrap();
    }
    fs::File::create(root.join("all-hole")).unwrap().set_len(1024 * 1024).unwrap();
    rustix::fs::setxattr(root.join("setuid"), "user.mime=type", b"text/\0plain", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("a"), "user.note", b"", XattrFlags::empty()).unwrap();
    for (name, seconds) in [("a/empty", -5), ("link", 1_000_000_000), ("a", 999)] {
        let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Dumps a volume that nobody changes.
pub(crate) async fn dump(volume: &Volume) -> (Backup, DumpReport) {
    let sink = Sink::new();
    let report = volume.begin(&DumpContext::new()).await.unwrap().run(&sink).await.unwrap();
    (sink.backup().unwrap(), report)
}

pub(crate) async fn plan(volume: &Volume, backup: &Backup) -> RestorePlan {
    volume.plan_restore(backup, &RestoreOptions::new()).await.unwrap()
}

/// Plans and restores, with the census compared.
pub(crate) async fn restore(volume: &Volume, backup: &Backup, expected: Option<&Census>) -> Result<RestoreReport> {
    let plan = plan(volume, backup).await;
    volume.restore(plan, backup, &context(expected)).await
}

/// As [`restore`], without keeping the old data.
pub(crate) async fn replace(volume: &Volume, backup: &Backup) -> Result<RestoreReport> {
    let options = RestoreOptions::new().with_old_data(OldData::Remove);
    let plan = volume.plan_restore(backup, &options).await?;
    volume.restore(plan, backup, &RestoreContext::new()).await
}

pub(crate) fn context(expected: Option<&Census>) -> RestoreContext {
    expected.cloned().map_or_else(RestoreContext::new, |census| RestoreContext::new().with_expected(census))
}

/// Runs a program to its good end.
pub(crate) async fn run(program: &str, args: &[&OsStr]) -> Result<Vec<u8>> {
    let path = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|folder| PathBuf::from(folder).join(program));
    let path = path.into_iter().find(|path| path.exists()).unwrap_or_else(|| PathBuf::from(program));
    Tool::new(path).args(args).env("LC_ALL", "C").output(TOOL_LIMIT).await
}

/// The output of `find`, which shows everything that `stat` does but owner and change time.
pub(crate) async fn listing(root: &Path) -> String {
    let format = "%P %y %m %n %s %T@ %l\\n";
    let args = [root.as_os_str(), OsStr::new("-printf"), OsStr::new(format)];
    let output = run("find", &args).await.unwrap();
    let mut lines: Vec<_> = output.split_inclusive(|byte| *byte == b'\n').map(String::from_utf8_lossy).collect();
    lines.sort_unstable();
    lines.concat()
}
