//! The part of `struct stat` that matters here.

use rustix::fs::{FileType, Stat};

use crate::archive::Timestamp;

/// What the system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) links: u64,
    /// The permission bits, `0o7777` at most.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// What is allocated on the disk.
    pub(crate) allocated_bytes: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) file_type: FileType,
}

/// The unit of `st_blocks` (POSIX leaves it open, Linux says 512).
const STAT_BLOCK_BYTES: u64 = 512;

impl Meta {
    /// Whether a file that looked like `self` and then like `later` has other content now. Access times do not count.
    pub(crate) fn differs(&self, later: &Self) -> bool {
        (self.size, self.mtime, self.ctime) != (later.size, later.mtime, later.ctime)
    }

    /// What tells the inode apart from every other on this machine.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

impl From<Stat> for Meta {
    fn from(stat: Stat) -> Self {
        let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) };
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            links: stat.st_nlink,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(STAT_BLOCK_BYTES),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            file_type: FileType::from_raw_mode(stat.st_mode),
        }
    }
}
