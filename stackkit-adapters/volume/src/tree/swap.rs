//! A directory in the making, and the step that puts it into the place of the old one.

use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags, accessat, fchmod, fremovexattr,
    fstat, fsync, mkdirat, openat, renameat, renameat_with, statat, statx, syncfs, unlinkat,
};
use rustix::io::Errno;
use stackkit_core::backup::TargetState;

use super::names::Names;
use super::remove::remove_tree;
use super::reserved::Reserved;
use super::seal::Seal;
use super::{Meta, Warnings};
use crate::error::{Result, VolumeError, os};

/// The longest file name, in bytes (`NAME_MAX` of Linux).
const NAME_BYTES_MAX: usize = 255;

/// What the names beside the target take beside its own name, in bytes.
const NAME_BYTES_ADDED: usize = 64;

/// The attributes that a new directory takes over from its parent (`acl(5)`).
const INHERITED: [&str; 2] = ["system.posix_acl_default", "system.posix_acl_access"];

/// How old data makes room for the data of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// The directory is made beside the target and exchanged with it in one atomic step.
    Rename,
    /// The directory is made inside the target and the entries are moved one by one: for a mount point, which can't
    /// be renamed, and where the parent directory is not writable. Each move is atomic, all of them are not.
    Children,
}

impl Strategy {
    /// The one that fits `target`.
    pub(crate) fn choose(target: &Path) -> Self {
        let Some(parent) = target.parent() else { return Self::Children };
        let Ok(own) = statat(CWD, target, AtFlags::empty()) else { return Self::Rename };
        let is_mount_root = statx(CWD, target, AtFlags::empty(), StatxFlags::TYPE)
            .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        let is_elsewhere = statat(CWD, parent, AtFlags::empty()).is_ok_and(|parent| parent.st_dev != own.st_dev);
        let is_writable = accessat(CWD, parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        let blocked = matches!(is_writable, Err(Errno::ACCESS | Errno::PERM | Errno::ROFS));
        if is_mount_root || is_elsewhere || blocked { Self::Children } else { Self::Rename }
    }
}

/// A new directory beside or inside its target. Dropping it removes it, unless it was swapped in.
#[derive(Debug)]
pub(crate) struct Staging {
    target: PathBuf,
    place: PathBuf,
    kept_as: PathBuf,
    strategy: Strategy,
    directory: OwnedFd,
    is_armed: bool,
}

/// Where the old data went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Where it is kept, if there was some and it was to be kept.
    pub(crate) kept_as: Option<PathBuf>,
    pub(crate) warnings: Warnings,
}

/// An error of the swap, and which data the target holds after it.
pub(crate) type SwapError = (VolumeError, TargetState);

impl Staging {
    /// Makes the directory, for its owner only.
    pub(crate) fn create(target: &Path, now: Timestamp) -> Result<Self> {
        let strategy = Strategy::choose(target);
        let id = random_id();
        let stamp = now.strftime("%Y%m%dT%H%M%SZ");
        let name = staged_name(target);
        let (place, kept_as) = match (strategy, target.parent()) {
            (Strategy::Rename, Some(parent)) => {
                (parent.join(format!(".{name}.stackkit-{id}")), parent.join(format!("{name}.before-{stamp}-{id}")))
            }
            _ => (target.join(format!(".stackkit-new-{id}")), target.join(format!(".stackkit-old-{stamp}-{id}"))),
        };
        mkdirat(CWD, &place, Mode::from_raw_mode(0o700)).map_err(os("create a directory", &place))?;
        let opened = open_directory(&place);
        let directory = opened.inspect_err(|_| drop(std::fs::remove_dir(&place)))?;
        let staging = Self { target: target.to_path_buf(), place, kept_as, strategy, directory, is_armed: true };
        staging.disinherit()?;
        Ok(staging)
    }

    /// Removes the access lists that the directory has from its parent, which would go on to all that is made in it.
    fn disinherit(&self) -> Result<()> {
        for list in INHERITED {
            match fremovexattr(&self.directory, list) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(os("remove an access list", &self.place)(errno)),
            }
        }
        Ok(())
    }

    /// Where the new data is written.
    pub(crate) fn path(&self) -> &Path {
        &self.place
    }

    /// A descriptor of it.
    pub(crate) fn directory(&self) -> Result<OwnedFd> {
        open_directory(&self.place)
    }

    /// Makes the new data durable: one `syncfs` instead of an `fsync` for each file.
    pub(crate) fn sync(&self) -> Result<()> {
        syncfs(&self.directory).map_err(os("flush", &self.place))
    }

    /// Puts the new data into the place of the old.
    pub(crate) fn swap(mut self, keep_old: bool) -> Result<Outcome, SwapError> {
        let swapped = match self.strategy {
            Strategy::Rename => self.swap_directories(keep_old),
            Strategy::Children => self.swap_children(keep_old),
        };
        self.is_armed = swapped.is_err();
        swapped
    }

    fn swap_directories(&self, keep_old: bool) -> Result<Outcome, SwapError> {
        let mut warnings = Warnings::default();
        let old = match renameat_with(CWD, &self.place, CWD, &self.target, RenameFlags::EXCHANGE) {
            Ok(()) => Some(&self.place),
            Err(Errno::NOENT) => {
                renameat(CWD, &self.place, CWD, &self.target).map_err(|errno| self.failed(errno, true))?;
                None
            }
            // Network file systems know no exchange.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                self.rename_twice()?;
                Some(&self.kept_as)
            }
            Err(errno) => return Err(self.failed(errno, true)),
        };
        let kept_as = old.and_then(|old| self.put_away(old, keep_old, &mut warnings));
        self.sync_directory(self.target.parent().unwrap_or(&self.target), &mut warnings);
        Ok(Outcome { kept_as, warnings })
    }

    fn rename_twice(&self) -> Result<(), SwapError> {
        renameat(CWD, &self.target, CWD, &self.kept_as).map_err(|errno| self.failed(errno, true))?;
        renameat(CWD, &self.place, CWD, &self.target)
            .map_err(|errno| self.failed(errno, renameat(CWD, &self.kept_as, CWD, &self.target).is_ok()))
    }

    /// The error of a swap, and whether the old data is in its place all the same.
    fn failed(&self, errno: Errno, is_undone: bool) -> SwapError {
        match is_undone {
            true => (os("swap", &self.target)(errno), TargetState::Old),
            false => (VolumeError::HalfSwapped { old: (&self.kept_as).into(), errno }, TargetState::Partial),
        }
    }

    /// Keeps or removes the old data at `old`, an empty directory always. From here on the new data is in its place,
    /// so a failure is a warning.
    fn put_away(&self, old: &Path, keep: bool, warnings: &mut Warnings) -> Option<PathBuf> {
        if unlinkat(CWD, old, AtFlags::REMOVEDIR).is_ok() {
            return None;
        }
        if keep {
            return match old == self.kept_as || renameat(CWD, old, CWD, &self.kept_as).is_ok() {
                true => Some(self.kept_as.clone()),
                false => Some(old.to_path_buf()),
            };
        }
        match remove_tree(old) {
            Ok(()) => None,
            Err(_) => {
                warnings.push(old.as_os_str().as_encoded_bytes(), "the old data could not be removed");
                Some(old.to_path_buf())
            }
        }
    }

    fn swap_children(&self, keep_old: bool) -> Result<Outcome, SwapError> {
        let whole = |error| (error, TargetState::Old);
        // Before the moves, which change the time.
        let seal = Seal::read(self.directory.as_fd()).map_err(whole)?;
        let target = open_directory(&self.target).map_err(whole)?;
        mkdirat(CWD, &self.kept_as, Mode::from_raw_mode(0o700))
            .map_err(|errno| whole(os("create a directory", &self.kept_as)(errno)))?;
        let old = open_directory(&self.kept_as).map_err(whole)?;
        let undo = |moves: &[(&OwnedFd, &OwnedFd, &[CString])]| {
            let undone = moves.iter().all(|(from, to, names)| move_back(from, to, names));
            drop(std::fs::remove_dir(&self.kept_as));
            undone
        };
        let (away, result) = move_all(&target, &old);
        if let Err(errno) = result {
            return Err(self.failed(errno, undo(&[(&target, &old, &away)])));
        }
        let (placed, result) = move_all(&self.directory, &target);
        if let Err(errno) = result {
            let is_undone = undo(&[(&self.directory, &target, &placed), (&target, &old, &away)]);
            return Err(self.failed(errno, is_undone));
        }
        let mut warnings = Warnings::default();
        drop(std::fs::remove_dir(&self.place));
        let kept_as = self.put_away(&self.kept_as, keep_old, &mut warnings);
        if seal.apply(target.as_fd(), b"", &mut warnings).is_err() {
            warnings.push(b"", "mode, owner and time of the mount point can't be set");
        }
        self.sync_directory(&self.target, &mut warnings);
        Ok(Outcome { kept_as, warnings })
    }

    fn sync_directory(&self, path: &Path, warnings: &mut Warnings) {
        let synced = open_directory(path).is_ok_and(|directory| fsync(&directory).is_ok());
        if !synced {
            warnings
                .push(path.as_os_str().as_encoded_bytes(), "the swap may not survive a power cut: it can't be flushed");
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.is_armed && remove_tree(&self.place).is_err() {
            tracing::warn!(path = %self.place.display(), "the directory of a failed restore could not be removed");
        }
    }
}

/// Moves all entries but the reserved ones; says which were moved, in order.
fn move_all(from: &OwnedFd, to: &OwnedFd) -> (Vec<CString>, Result<(), Errno>) {
    let mut moved = Vec::new();
    let reserved = Reserved::of(from.as_fd());
    let mut names = match Names::read(from.as_fd(), |name| reserved.covers(name)) {
        Ok(names) => names,
        Err(errno) => return (moved, Err(errno)),
    };
    while let Some((name, _)) = names.next() {
        if let Err(errno) = move_entry(from, to, name) {
            return (moved, Err(errno));
        }
        moved.push(name.to_owned());
    }
    (moved, Ok(()))
}

/// Undoes [`move_all`]; whether all of it could be.
fn move_back(from: &OwnedFd, to: &OwnedFd, names: &[CString]) -> bool {
    names.iter().rev().all(|name| move_entry(to, from, name).is_ok())
}

/// Moves one entry. A directory that is read-only for its owner is made writable meanwhile: its `..` changes.
fn move_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let renamed = renameat(from, name, to, name);
    if renamed != Err(Errno::ACCESS) {
        return renamed;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(directory) = openat(from, name, flags, Mode::empty()) else { return renamed };
    let mode = Meta::from(fstat(&directory)?).mode;
    fchmod(&directory, Mode::from_raw_mode(mode | 0o700))?;
    let renamed = renameat(from, name, to, name);
    // The owner just changed it, so this can't fail; and an entry that was moved has to be known as moved.
    fchmod(&directory, Mode::from_raw_mode(mode)).ok();
    renamed
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(os("open", path))
}

/// What a restore that was killed left beside or inside `target`. It may be the old data, so it is only told.
pub(crate) fn left_overs(target: &Path) -> Vec<PathBuf> {
    let beside = format!(".{}.stackkit-", staged_name(target));
    let inside = [".stackkit-new-", ".stackkit-old-"];
    let list = |directory: &Path, is_ours: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter(|entry| is_ours(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
    };
    let mut found = list(target, &|name| inside.iter().any(|prefix| name.starts_with(prefix)));
    if let Some(parent) = target.parent() {
        found.extend(list(parent, &|name| name.starts_with(&beside)));
    }
    found.sort();
    found
}

/// The name of `target`, short enough to have something added.
fn staged_name(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    name[..name.floor_char_boundary(NAME_BYTES_MAX - NAME_BYTES_ADDED)].to_owned()
}

/// Eight hex digits from the randomness that the standard library seeds its maps with.
fn random_id() -> String {
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{:08x}", random >> 32)
}
