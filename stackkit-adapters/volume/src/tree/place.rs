//! Writes the members of an archive into a directory, and nowhere else.
//!
//! Paths are taken apart and each directory on the way is opened relative to its parent without following symbolic
//! links, so no member can reach a place outside, whatever links stand before it in the archive.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, linkat, mkdirat, openat, statat, symlinkat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, pwrite};

use super::reserved::RESERVED_PREFIX;
use super::seal::{Seal, seal_symlink};
use super::{DEPTH_MAX, Meta, TOO_DEEP, Warnings};
use crate::archive::{Entry, EntryKind, Event};
use crate::error::{PathText, Result, VolumeError, os_at};

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const CREATE_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The mode of what is in the making: nobody else looks at half a file.
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_DIRECTORY: Mode = Mode::from_raw_mode(0o700);

/// The mode of a directory for which the archive has no member of its own.
const IMPLIED_MODE: u32 = 0o755;

/// Writes members below one directory.
#[derive(Debug)]
pub(crate) struct Placer {
    root: OwnedFd,
    /// Of the directory that is replaced, until the archive says otherwise.
    root_seal: Seal,
    /// The directories from below the root down to the one that was used last.
    levels: Vec<Level>,
    file: Option<OpenFile>,
    warnings: Warnings,
}

/// An open directory. Its mode and times are set when it is left, because each entry that is made in it changes them
/// and a read-only one could not be filled.
#[derive(Debug)]
struct Level {
    name: Vec<u8>,
    directory: OwnedFd,
    seal: Seal,
}

#[derive(Debug)]
struct OpenFile {
    file: OwnedFd,
    path: Vec<u8>,
    size: u64,
    is_sparse: bool,
    seal: Seal,
}

impl Placer {
    /// Writes below `root`, which looks like `replaced` at the end, unless the archive has a member for it.
    pub(crate) fn new(root: OwnedFd, replaced: Option<&Meta>) -> Self {
        let root_seal = replaced.map_or_else(|| Seal::mode_only(IMPLIED_MODE), Seal::like);
        Self { root, root_seal, levels: Vec::new(), file: None, warnings: Warnings::default() }
    }

    /// Does what the next event of the archive says.
    pub(crate) fn place(&mut self, event: Event<'_>) -> Result<()> {
        match event {
            Event::Entry(entry) => self.begin(&entry),
            Event::Data { offset, bytes } => match &self.file {
                Some(open) => write_at(open, bytes, offset),
                None => Ok(()),
            },
            Event::FileEnd => match self.file.take() {
                Some(open) => self.end_file(&open),
                None => Ok(()),
            },
            Event::End => Ok(()),
        }
    }

    /// Sets what is due on the directories that are still open.
    pub(crate) fn finish(mut self) -> Result<Warnings> {
        self.leave_to(0)?;
        self.root_seal.apply(self.root.as_fd(), b"", &mut self.warnings)?;
        Ok(self.warnings)
    }

    fn begin(&mut self, entry: &Entry) -> Result<()> {
        let path = entry.path.clone();
        let refused = |reason| VolumeError::Refused { path: PathText::new(&path), reason };
        let components = components(&path).map_err(refused)?;
        let Some((name, parents)) = components.split_last() else {
            return match entry.kind {
                EntryKind::Directory => {
                    self.root_seal = Seal::of(entry);
                    Ok(())
                }
                _ => Err(refused("the volume itself is not a directory in it")),
            };
        };
        let name = *name;
        match &entry.kind {
            EntryKind::Directory => self.enter(&components, Some(entry)),
            EntryKind::File { size, extents } => {
                let parent = self.enter_parent(parents)?;
                let file = openat(parent, name, CREATE_FILE, PRIVATE_FILE).map_err(made("create a file", &path))?;
                let (size, is_sparse) = (*size, extents.is_some());
                self.file = Some(OpenFile { file, size, is_sparse, seal: Seal::of(entry), path });
                Ok(())
            }
            EntryKind::Symlink { target } => {
                let parent = self.enter_parent(parents)?;
                symlinkat(target.as_slice(), parent, name).map_err(made("create a symbolic link", &path))?;
                let parent = self.levels.last().map_or(self.root.as_fd(), |level| level.directory.as_fd());
                seal_symlink(parent, name, entry, &mut self.warnings)
            }
            EntryKind::HardLink { target } => self.hard_link(&path, target, parents, name),
            EntryKind::Special { .. } => {
                self.warnings.push(&path, "a device, FIFO or unknown member was skipped");
                Ok(())
            }
        }
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8], parents: &[&[u8]], name: &[u8]) -> Result<()> {
        let refused = |reason| VolumeError::Refused { path: PathText::new(path), reason };
        let target = components(target).map_err(refused)?;
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(refused("a hard link to the volume itself"));
        };
        let mut from = fcntl_dupfd_cloexec(&self.root, 0).map_err(os_at("open", path))?;
        for component in target_parents {
            from = openat(&from, *component, OPEN_DIRECTORY, Mode::empty()).map_err(|errno| match errno {
                Errno::NOENT | Errno::LOOP | Errno::NOTDIR => refused("a hard link to what is no member before it"),
                errno => os_at("open", path)(errno),
            })?;
        }
        let is_file = statat(&from, *target_name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| !matches!(Meta::from(stat).file_type, FileType::Directory));
        if !is_file {
            return Err(refused("a hard link to what is no member before it"));
        }
        let parent = self.enter_parent(parents)?;
        linkat(&from, *target_name, parent, name, AtFlags::empty()).map_err(made("create a hard link", path))
    }

    fn end_file(&mut self, open: &OpenFile) -> Result<()> {
        if open.is_sparse {
            rustix::fs::ftruncate(&open.file, open.size).map_err(os_at("set the size", &open.path))?;
        }
        open.seal.apply(open.file.as_fd(), &open.path, &mut self.warnings)
    }

    fn enter_parent(&mut self, parents: &[&[u8]]) -> Result<BorrowedFd<'_>> {
        self.enter(parents, None)?;
        Ok(self.levels.last().map_or(self.root.as_fd(), |level| level.directory.as_fd()))
    }

    /// Opens the directories of `path`, making those that are missing. `entry` is the member of the last one.
    fn enter(&mut self, path: &[&[u8]], entry: Option<&Entry>) -> Result<()> {
        if path.len() > DEPTH_MAX {
            return Err(VolumeError::Unsupported { path: PathText::new(&path.join(&b'/')), reason: TOO_DEEP });
        }
        let shared = self.levels.iter().zip(path).take_while(|(level, name)| level.name == **name).count();
        self.leave_to(shared)?;
        for name in &path[shared..] {
            let parent = self.levels.last().map_or(self.root.as_fd(), |level| level.directory.as_fd());
            let level = open_or_make(parent, name).map_err(|errno| match errno {
                Errno::LOOP | Errno::NOTDIR => {
                    let reason = "its path leads through something that is not a directory";
                    VolumeError::Refused { path: PathText::new(&path.join(&b'/')), reason }
                }
                errno => os_at("create a directory", &path.join(&b'/'))(errno),
            })?;
            self.levels.push(level);
        }
        if let (Some(entry), Some(last)) = (entry, self.levels.last_mut()) {
            last.seal = Seal::of(entry);
        }
        Ok(())
    }

    /// Leaves directories until `depth` are open.
    fn leave_to(&mut self, depth: usize) -> Result<()> {
        while self.levels.len() > depth {
            let path = self.levels.iter().map(|level| level.name.as_slice()).collect::<Vec<_>>().join(&b'/');
            if let Some(level) = self.levels.pop() {
                level.seal.apply(level.directory.as_fd(), &path, &mut self.warnings)?;
            }
        }
        Ok(())
    }
}

/// A directory that is there already keeps its mode and times, unless a member says otherwise.
fn open_or_make(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Level, Errno> {
    let made = match mkdirat(parent, name, PRIVATE_DIRECTORY) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    let directory = openat(parent, name, OPEN_DIRECTORY, Mode::empty())?;
    let seal = match made {
        true => Seal::mode_only(IMPLIED_MODE),
        false => Seal::again(&Meta::from(fstat(&directory)?)),
    };
    Ok(Level { name: name.to_vec(), directory, seal })
}

fn write_at(open: &OpenFile, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        match pwrite(&open.file, bytes, offset) {
            Ok(length) => {
                bytes = &bytes[length..];
                offset += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(os_at("write", &open.path)(errno)),
        }
    }
    Ok(())
}

/// As [`os_at`], with the name being taken refused: no member may replace another.
fn made(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> VolumeError {
    let path = path.to_vec();
    move |errno| match errno {
        Errno::EXIST => VolumeError::Refused { path: PathText::new(&path), reason: "it stands there twice" },
        errno => os_at(action, &path)(errno),
    }
}

/// The names on the way to a member; none for the volume itself. Says why if the path may not be used.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.starts_with(b"/") {
        return Err("its path is absolute");
    }
    if path.contains(&0) {
        return Err("its path holds a NUL");
    }
    let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if components.contains(&&b".."[..]) {
        return Err("its path leads upwards");
    }
    if components.first().is_some_and(|first| first.starts_with(RESERVED_PREFIX)) {
        return Err("its name is reserved for stackkit");
    }
    Ok(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(components(b"./a//b/./c/"), Ok(vec![&b"a"[..], b"b", b"c"]));
        assert_eq!(components(b"./"), Ok(vec![]));
        assert_eq!(components(b"..a/b.."), Ok(vec![&b"..a"[..], b"b.."]));
        for bad in [&b"/etc/passwd"[..], b"../evil", b"a/../../evil", b"a/..", b"a\0b", b"./.stackkit-new-1/x"] {
            assert!(components(bad).is_err(), "{bad:?}");
        }
    }
}
