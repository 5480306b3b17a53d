//! Owner, mode, attributes and times of a restored entry, set in the one order that works: a change of owner clears
//! set-uid bits and capabilities, so it comes first; a read-only file takes no attributes, so its mode comes after them;
//! every change touches the times, so they come last.

use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr, fstat, futimens,
    utimensat,
};
use rustix::io::Errno;

use super::{Meta, Warnings, file_xattrs};
use crate::archive::{Entry, Timestamp, Xattr};
use crate::error::{PathText, Result, VolumeError, os_at};

/// The namespace whose attributes are data: not being able to set them fails a restore.
const USER_NAMESPACE: &[u8] = b"user.";

/// What is set on an entry once its content is there.
#[derive(Debug)]
pub(crate) struct Seal {
    owner: Option<(u64, u64)>,
    mode: u32,
    mtime: Option<Timestamp>,
    xattrs: Vec<Xattr>,
}

impl Seal {
    /// What the archive says of a member.
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            owner: Some((entry.uid, entry.gid)),
            mode: entry.mode,
            mtime: Some(entry.mtime),
            xattrs: entry.xattrs.clone(),
        }
    }

    /// What an open directory looks like, to be set on another one.
    pub(crate) fn read(directory: BorrowedFd<'_>) -> Result<Self> {
        let meta = Meta::from(fstat(directory).map_err(os_at("stat", b""))?);
        Ok(Self { mtime: Some(meta.mtime), xattrs: file_xattrs(directory, b"")?, ..Self::like(&meta) })
    }

    /// For a directory that the archive only implies.
    pub(crate) fn mode_only(mode: u32) -> Self {
        Self { owner: None, mode, mtime: None, xattrs: Vec::new() }
    }

    /// For a directory that takes the place of one.
    pub(crate) fn like(meta: &Meta) -> Self {
        Self { owner: Some((u64::from(meta.uid), u64::from(meta.gid))), mtime: None, ..Self::again(meta) }
    }

    /// For a directory that gets further entries after it was left.
    pub(crate) fn again(meta: &Meta) -> Self {
        Self { owner: None, mode: meta.mode, mtime: Some(meta.mtime), xattrs: Vec::new() }
    }

    /// Sets it on an open file or directory.
    pub(crate) fn apply(&self, file: BorrowedFd<'_>, path: &[u8], warnings: &mut Warnings) -> Result<()> {
        if let Some((uid, gid)) = self.owner.and_then(owner_to_set) {
            owner_result(fchown(file, Some(uid), Some(gid)), path, warnings)?;
        }
        for xattr in &self.xattrs {
            let result = fsetxattr(file, xattr.name.as_slice(), &xattr.value, XattrFlags::empty());
            xattr_result(result, xattr, path, warnings)?;
        }
        fchmod(file, Mode::from_raw_mode(self.mode)).map_err(os_at("set the mode", path))?;
        match self.mtime {
            Some(mtime) => futimens(file, &times(mtime)).map_err(os_at("set the time", path)),
            None => Ok(()),
        }
    }
}

/// Sets owner and time of a symbolic link, which has no mode of its own.
pub(crate) fn seal_symlink(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry, warnings: &mut Warnings) -> Result<()> {
    if let Some((uid, gid)) = owner_to_set((entry.uid, entry.gid)) {
        let result = chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        owner_result(result, &entry.path, warnings)?;
    }
    utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(os_at("set the time", &entry.path))
}

/// The owner, if this process is root and the numbers fit.
fn owner_to_set((uid, gid): (u64, u64)) -> Option<(Uid, Gid)> {
    let id = |number: u64| u32::try_from(number).ok().filter(|number| *number != u32::MAX);
    let (uid, gid) = (id(uid)?, id(gid)?);
    rustix::process::geteuid().is_root().then(|| (Uid::from_raw(uid), Gid::from_raw(gid)))
}

fn owner_result(result: Result<(), Errno>, path: &[u8], warnings: &mut Warnings) -> Result<()> {
    match result {
        // Root of a user namespace, or a file system without owners.
        Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => {
            warnings.push(path, "its owner can't be set here");
            Ok(())
        }
        result => result.map_err(os_at("set the owner", path)),
    }
}

fn xattr_result(result: Result<(), Errno>, xattr: &Xattr, path: &[u8], warnings: &mut Warnings) -> Result<()> {
    let Err(errno) = result else { return Ok(()) };
    if !xattr.name.starts_with(USER_NAMESPACE) {
        warnings.push(path, &format!("its attribute {} can't be set here", PathText::new(&xattr.name)));
        return Ok(());
    }
    match errno {
        Errno::OPNOTSUPP => {
            let reason = "the file system holds no extended attributes, and the archive has some";
            Err(VolumeError::Unsupported { path: PathText::new(path), reason })
        }
        errno => Err(os_at("set an attribute", path)(errno)),
    }
}

/// Sets the time of change and leaves that of access.
fn times(mtime: Timestamp) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    Timestamps {
        last_access: omit,
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) },
    }
}
