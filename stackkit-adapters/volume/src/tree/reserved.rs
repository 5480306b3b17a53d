//! The names directly inside a volume that are not its users'.

use std::os::fd::BorrowedFd;

use rustix::fs::{fstat, fstatfs};

/// Names that begin so are stackkit's own: a write probe, data of a restore in the making or replaced by one.
pub(crate) const RESERVED_PREFIX: &[u8] = b".stackkit-";

/// Where the checker of an ext file system puts what it finds. It stands in the root of each, for root only.
const LOST_FOUND: &[u8] = b"lost+found";

/// `EXT4_SUPER_MAGIC` and `EXT4_ROOT_INO`, the same for ext2 and ext3.
const EXT_MAGIC: i128 = 0xEF53;
const EXT_ROOT_INODE: u64 = 2;

/// Which names are neither dumped, nor counted, nor moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserved {
    is_ext_root: bool,
}

impl Reserved {
    /// Those directly inside `volume`.
    pub(crate) fn of(volume: BorrowedFd<'_>) -> Self {
        let is_ext = fstatfs(volume).is_ok_and(|found| i128::from(found.f_type) == EXT_MAGIC);
        let is_root = fstat(volume).is_ok_and(|found| found.st_ino == EXT_ROOT_INODE);
        Self { is_ext_root: is_ext && is_root }
    }

    /// Whether `name` is one.
    pub(crate) fn covers(self, name: &[u8]) -> bool {
        name.starts_with(RESERVED_PREFIX) || (self.is_ext_root && name == LOST_FOUND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_found_is_reserved_in_the_root_of_ext_alone() {
        let names = [&b".stackkit-probe"[..], b".stackkit", b"lost+found"];
        let covered = |is_ext_root| names.map(|name| Reserved { is_ext_root }.covers(name));
        assert_eq!(covered(true), [true, false, true]);
        assert_eq!(covered(false), [true, false, false]);
    }
}
