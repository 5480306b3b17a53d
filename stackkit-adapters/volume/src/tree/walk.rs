//! A tree, entry by entry, in one fixed order.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::names::Names;
use super::reserved::Reserved;
use super::{DEPTH_MAX, Meta, TOO_DEEP, Warnings};
use crate::error::{PathText, Result, VolumeError, os, os_at};

/// `O_NONBLOCK`: a FIFO that took the place of a file must not make the reader wait for a writer.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Whether a walk opens the regular files that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileAccess {
    /// Yes: [`Found::File`] carries the open file.
    Open,
    /// No, one `stat` each is enough.
    Stat,
}

/// What stands at a path.
#[derive(Debug)]
pub(crate) enum Found<'w> {
    /// A directory; its entries follow. The volume itself comes first, with an empty path.
    Directory(BorrowedFd<'w>, Meta),
    /// A regular file, open for reading if the walk opens files.
    File(Option<OwnedFd>, Meta),
    /// A symbolic link and its target, which is never followed.
    Symlink(Meta, Vec<u8>),
    /// A socket, a FIFO or a device.
    Special(Meta),
}

/// A walk over a directory, depth first, the names of each directory in the order of their bytes.
///
/// Symbolic links are never followed; what vanishes while the walk goes on is left out with a warning.
#[derive(Debug)]
pub(crate) struct Walk {
    access: FileAccess,
    levels: Vec<Level>,
    path: Vec<u8>,
    root: Option<OwnedFd>,
    warnings: Warnings,
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    names: Names,
    /// How long the path of the directory is.
    path_bytes: usize,
}

/// A [`Found`] before it borrows from the walk.
enum Fresh {
    Directory(Meta),
    Other(Found<'static>),
    Gone,
}

impl Walk {
    /// Opens the directory at `path`, which may be reached through symbolic links.
    pub(crate) fn open(path: &Path, access: FileAccess) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOTDIR => VolumeError::NotADirectory { path: path.into() },
            errno => os("open", path)(errno),
        })?;
        Ok(Self { access, levels: Vec::new(), path: Vec::new(), root: Some(root), warnings: Warnings::default() })
    }

    /// The next entry and its path relative to the volume.
    pub(crate) fn next(&mut self) -> Result<Option<(&[u8], Found<'_>)>> {
        if let Some(root) = self.root.take() {
            let meta = Meta::from(fstat(&root).map_err(os_at("stat", b""))?);
            self.descend(root)?;
            return Ok(self.directory(meta));
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            self.path.truncate(level.path_bytes);
            let Some((name, file_type)) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            let parent = level.directory.as_fd();
            let looked = look(parent, name, file_type, self.access, &self.path)?;
            match looked {
                (Fresh::Directory(meta), Some(directory)) => {
                    self.descend(directory)?;
                    return Ok(self.directory(meta));
                }
                (Fresh::Other(found), _) => return Ok(Some((&self.path, found))),
                (Fresh::Gone | Fresh::Directory(_), _) => {
                    self.warnings.push(&self.path, "vanished or changed its kind while the directory was read");
                }
            }
        }
    }

    /// What was left out, once the walk is at its end.
    pub(crate) fn into_warnings(self) -> Warnings {
        self.warnings
    }

    fn descend(&mut self, directory: OwnedFd) -> Result<()> {
        if self.levels.len() >= DEPTH_MAX {
            return Err(VolumeError::Unsupported { path: PathText::new(&self.path), reason: TOO_DEEP });
        }
        let reserved = self.levels.is_empty().then(|| Reserved::of(directory.as_fd()));
        let names = Names::read(directory.as_fd(), |name| reserved.is_some_and(|reserved| reserved.covers(name)));
        let names = names.map_err(os_at("list", &self.path))?;
        self.levels.push(Level { directory, names, path_bytes: self.path.len() });
        Ok(())
    }

    fn directory(&self, meta: Meta) -> Option<(&[u8], Found<'_>)> {
        let level = self.levels.last()?;
        Some((&self.path, Found::Directory(level.directory.as_fd(), meta)))
    }
}

/// Opens or reads what `name` in `parent` is; a directory comes with its descriptor.
fn look(
    parent: BorrowedFd<'_>,
    name: &CStr,
    told: FileType,
    access: FileAccess,
    path: &[u8],
) -> Result<(Fresh, Option<OwnedFd>)> {
    let looked = match told {
        FileType::RegularFile if access == FileAccess::Open => open_file(parent, name),
        FileType::Directory => open_directory(parent, name),
        _ => statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).and_then(|stat| {
            let meta = Meta::from(stat);
            match meta.file_type {
                FileType::RegularFile if access == FileAccess::Open => open_file(parent, name),
                FileType::RegularFile => Ok((Fresh::Other(Found::File(None, meta)), None)),
                FileType::Directory => open_directory(parent, name),
                FileType::Symlink => {
                    let target = readlinkat(parent, name, Vec::new())?.into_bytes();
                    Ok((Fresh::Other(Found::Symlink(meta, target)), None))
                }
                _ => Ok((Fresh::Other(Found::Special(meta)), None)),
            }
        }),
    };
    match looked {
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Ok((Fresh::Gone, None)),
        looked => looked.map_err(os_at("open", path)),
    }
}

fn open_file(parent: BorrowedFd<'_>, name: &CStr) -> Result<(Fresh, Option<OwnedFd>), Errno> {
    let file = openat(parent, name, READ, Mode::empty())?;
    let meta = Meta::from(fstat(&file)?);
    let found = match meta.file_type {
        FileType::RegularFile => Fresh::Other(Found::File(Some(file), meta)),
        _ => Fresh::Gone,
    };
    Ok((found, None))
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<(Fresh, Option<OwnedFd>), Errno> {
    let directory = openat(parent, name, READ | OFlags::DIRECTORY, Mode::empty())?;
    let meta = Meta::from(fstat(&directory)?);
    Ok((Fresh::Directory(meta), Some(directory)))
}
