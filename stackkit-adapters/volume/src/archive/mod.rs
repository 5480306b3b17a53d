//! The archive format: POSIX tar with PAX records (IEEE Std 1003.1-2017, `pax`, "ustar" and "pax Interchange Format"),
//! and GNU tar's sparse format 1.0 and long names. Sans-IO: bytes in, events out, and the other way round.
//!
//! A writer appends headers to a buffer ([`encode_entry`]) and puts the content after them itself, padded to whole
//! blocks ([`padding`]); [`END`] closes the archive. A [`Reader`] is handed slices of any length and answers with
//! [`Event`]s; its memory is bounded by [`EXTENDED_BYTES_MAX`] and [`EXTENTS_READ_MAX`].

mod header;
mod pax;
mod reader;
#[cfg(test)]
mod roundtrip;
mod sparse;
mod writer;

pub(crate) use reader::{Event, Reader};
pub(crate) use writer::{END, encode_entry, padding};

/// The unit of everything in a tar archive, in bytes (POSIX).
pub(crate) const BLOCK_BYTES: usize = 512;

/// The longest extended header or long name that is written or read, in bytes. Linux allows 64 KiB for one attribute
/// and 64 KiB for the list of their names; 8 MiB holds every set met in practice and still bounds the memory.
pub(crate) const EXTENDED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The most extended attributes of one member that are read. Linux allows 64 KiB for the list of their names
/// (`XATTR_LIST_MAX`), and one as short as `user.x` takes seven bytes of it.
pub(crate) const XATTRS_MAX: usize = 64 * 1024 / 7;

/// The most extents of one sparse file that are written: 1 MiB of memory. What lies behind them is stored with its
/// holes filled.
pub(crate) const EXTENTS_WRITE_MAX: usize = 64 * 1024;

/// The most extents of one sparse file that are read: 16 MiB of memory, sixteen times what is ever written here.
pub(crate) const EXTENTS_READ_MAX: usize = 1024 * 1024;

/// A time with nanoseconds; `nanoseconds` counts forward from `seconds`, also before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Timestamp {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// A stretch of a file that holds data; what lies between two of them reads as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Xattr {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file of `size` bytes. With `extents`, only those are in the archive.
    File {
        size: u64,
        extents: Option<Vec<Extent>>,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of a member that stands before it.
    HardLink {
        target: Vec<u8>,
    },
    /// A device, a FIFO or a vendor's own type, by its type flag. Never written.
    Special {
        flag: u8,
    },
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As in the archive: bytes, `./` in front and `/` behind a directory where the writer put them.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// The permission bits, `0o7777` at most.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) xattrs: Vec<Xattr>,
}

/// What is wrong with an archive, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {offset} of the archive")]
pub(crate) struct ArchiveError {
    pub(crate) offset: u64,
    pub(crate) fault: Fault,
}

/// What is wrong with an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the header's checksum differs")]
    Checksum,
    #[error("a number of the header can't be read")]
    Number,
    #[error("an extended header is malformed")]
    Extended,
    #[error("an extended header or long name is longer than {EXTENDED_BYTES_MAX} bytes, or holds too many attributes")]
    ExtendedTooLong,
    #[error("the map of a sparse file is malformed")]
    SparseMap,
    #[error("a sparse file has more than {EXTENTS_READ_MAX} extents")]
    SparseTooFragmented,
    #[error("a sparse format other than GNU 1.0 is used")]
    SparseFormat,
    #[error("a volume, multi-volume or incremental member is used")]
    MemberType,
    #[error("data follows the end marker")]
    TrailingData,
    #[error("the archive ends too early")]
    Truncated,
}

impl Fault {
    /// Whether the archive is fine but uses what this reader does not know.
    pub(crate) fn is_unsupported(self) -> bool {
        matches!(self, Self::SparseFormat | Self::MemberType | Self::SparseTooFragmented | Self::ExtendedTooLong)
    }
}
