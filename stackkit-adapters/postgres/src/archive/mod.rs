//! `pg_dump`'s archives: header, table of contents, and where the data of an entry is.

#[cfg(test)]
mod arbitrary;
mod blobs;
mod codec;
mod custom;
mod data;
mod foreign;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod input;
mod place;
mod read;
mod source;
pub(crate) mod tar;
pub(crate) mod text;
mod toc;
pub(crate) mod write;

pub(crate) use blobs::List;
pub(crate) use custom::scan;
pub(crate) use input::{Input, of_io};
#[cfg(test)]
pub(crate) use read::samples;
pub(crate) use read::{entry, header};
pub use source::Archive;
pub(crate) use source::as_layout;
pub(crate) use toc::TocStream;

use crate::tools::Version;

/// From this version of the format on large objects are described in groups.
pub(crate) const GROUPS_SINCE: u16 = 116;

/// How an archive is laid out; the byte behind the versions in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One file, the data behind the table of contents.
    Custom,
    /// A tar file or a directory: entries name their files.
    Tar,
}

impl Format {
    pub(crate) fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Custom),
            3 => Some(Self::Tar),
            _ => None,
        }
    }
}

/// How the data of an archive is compressed; the byte in headers from 1.15 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Lz4,
    Zstd,
}

impl Compression {
    pub(crate) fn of_byte(byte: u8) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Lz4, Self::Zstd].get(usize::from(byte)).copied()
    }
}

/// The first bytes of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// `major * 100 + minor` of the format: 114 is 1.14.
    pub(crate) version: u16,
    /// Bytes of an integer beside its sign.
    pub(crate) int_bytes: usize,
    /// Bytes of a file offset.
    pub(crate) offset_bytes: usize,
    pub(crate) format: Format,
    pub(crate) compression: Compression,
    /// Second, minute, hour, day, month from 0, years since 1900, daylight saving time.
    pub(crate) created: [i32; 7],
    /// The database that was dumped.
    pub(crate) database: String,
    /// The server it was dumped from, as it calls itself.
    pub(crate) server_text: String,
    /// The server it was dumped from.
    pub(crate) server: Option<Version>,
    /// The `pg_dump` that wrote it, as it calls itself.
    pub(crate) pg_dump_text: String,
    /// The `pg_dump` that wrote it.
    pub(crate) pg_dump: Option<Version>,
    /// How many entries follow.
    pub(crate) entries: u64,
}

/// When an entry is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    /// With what it belongs to: comments, grants.
    None,
    PreData,
    Data,
    PostData,
}

impl Section {
    pub(crate) fn of_number(number: i32) -> Self {
        match number {
            2 => Self::PreData,
            3 => Self::Data,
            4 => Self::PostData,
            _ => Self::None,
        }
    }
}

/// The state of an entry without data in a custom archive.
pub(crate) const NO_DATA: u8 = 3;

/// Where an entry's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// In a custom archive: 1 is not known, 2 is known, 3 is no data.
    Offset { state: u8, offset: u64 },
    /// In a directory or tar archive; empty if there is none.
    File(String),
}

/// One line of the table of contents. Its texts give the archive's bytes back through [`text::encode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number in the archive; from 1.
    pub(crate) dump_id: i32,
    /// Whether it has data.
    pub(crate) has_data: bool,
    /// The catalog that the object is in, and its number there.
    pub(crate) table_oid: String,
    pub(crate) oid: String,
    /// The object's name.
    pub(crate) tag: String,
    /// Its kind: `TABLE`, `TABLE DATA`, `EXTENSION`, …
    pub(crate) kind: String,
    pub(crate) section: Section,
    /// The SQL that makes it.
    pub(crate) definition: String,
    /// The SQL that removes it.
    pub(crate) drop: String,
    /// The `COPY … FROM stdin;` of its data.
    pub(crate) copy: String,
    pub(crate) schema: Option<String>,
    /// Empty is the database's own; none is that it has no place.
    pub(crate) tablespace: Option<String>,
    pub(crate) access_method: Option<String>,
    /// `pg_class.relkind` as a character code, from 1.16 on; else 0.
    pub(crate) relation_kind: i32,
    /// The role that owns it; empty if none.
    pub(crate) owner: String,
    /// The entries that come before it.
    pub(crate) depends_on: Vec<i32>,
    pub(crate) data: Data,
}
