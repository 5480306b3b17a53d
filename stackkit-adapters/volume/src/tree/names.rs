//! The names in one directory, sorted by their bytes, in two allocations.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

/// The buffer for `getdents64`, in bytes: about 1000 entries a call.
const LISTING_BYTES: usize = 32 * 1024;

/// Names and their types. Its memory is the only one that grows with the data: about 32 bytes for each entry of the
/// directories on the path to the entry that is being read.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// All names, each closed by a NUL.
    arena: Vec<u8>,
    index: Vec<Name>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    start: u32,
    /// With the NUL; names have 255 bytes at most.
    length: u16,
    file_type: FileType,
}

impl Names {
    /// Lists `directory` without `.`, `..` and the names that `skip` picks.
    pub(crate) fn read(directory: BorrowedFd<'_>, skip: impl Fn(&[u8]) -> bool) -> Result<Self, Errno> {
        let mut names = Self::default();
        let mut buffer = [MaybeUninit::<u8>::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(directory, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") && !skip(name.to_bytes()) {
                names.push(name, entry.file_type())?;
            }
        }
        let arena = &names.arena;
        names.index.sort_unstable_by(|one, other| one.bytes(arena).cmp(other.bytes(arena)));
        Ok(names)
    }

    fn push(&mut self, name: &CStr, file_type: FileType) -> Result<(), Errno> {
        let bytes = name.to_bytes_with_nul();
        let start = u32::try_from(self.arena.len()).map_err(|_out_of_range| Errno::OVERFLOW)?;
        let length = u16::try_from(bytes.len()).map_err(|_out_of_range| Errno::NAMETOOLONG)?;
        self.arena.extend_from_slice(bytes);
        self.index.push(Name { start, length, file_type });
        Ok(())
    }

    /// The next name in order, with the type that the directory tells of it, `Unknown` perhaps.
    pub(crate) fn next(&mut self) -> Option<(&CStr, FileType)> {
        let name = self.index.get(self.next)?;
        self.next += 1;
        Some((CStr::from_bytes_with_nul(name.bytes(&self.arena)).ok()?, name.file_type))
    }
}

impl Name {
    fn bytes(self, arena: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &arena[start..start + usize::from(self.length)]
    }
}
