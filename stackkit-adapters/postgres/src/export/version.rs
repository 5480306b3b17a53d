//! Says a table of contents in an older version of the archive format.

use stackkit_core::{Error, ErrorKind, Result};

use super::{ExportCompression, ExportOptions};
use crate::archive::{Compression, Entry, GROUPS_SINCE, Header, Section, write};

/// The header as it is written: its version is that of the reader, if that is older.
pub(super) fn header(of_dump: &Header, options: &ExportOptions) -> Result<Header> {
    let version = options.major.map_or(of_dump.version, |major| write::version_for(major).min(of_dump.version));
    let compression = match options.compression {
        ExportCompression::None => Compression::None,
        ExportCompression::Gzip => Compression::Gzip,
        ExportCompression::Zstd => Compression::Zstd,
    };
    let header = Header { version, compression, ..of_dump.clone() };
    // Says now what that version can't hold, not after the first table.
    write::header(&header)?;
    Ok(header)
}

/// What becomes of an entry for readers of `header.version`.
pub(super) enum Said {
    /// It is written so.
    Entries(Vec<Entry>),
    /// Those readers have no use for it.
    LeftOut,
}

/// Turns entries of the dump into those that an older reader knows.
#[derive(Debug, Default)]
pub(super) struct Translator {
    /// The numbers of the next entries that are made here; above all others.
    next_id: i32,
    /// The groups of large objects: the group's entry, the numbers in it, and the first of the entries made for them.
    groups: std::collections::BTreeMap<i32, (Vec<u32>, i32)>,
    has_blobs: bool,
}

impl Translator {
    /// `last_id` is the highest number of an entry.
    pub(super) fn new(last_id: i32) -> Self {
        Self { next_id: last_id.saturating_add(1), ..Self::default() }
    }

    /// Says an entry.
    ///
    /// # Errors
    /// `Unsupported` if readers of that version can't be told.
    pub(super) fn say(&mut self, header: &Header, entry: Entry) -> Result<Said> {
        if header.version >= GROUPS_SINCE {
            return Ok(Said::Entries(vec![entry]));
        }
        match entry.kind.as_str() {
            "BLOB METADATA" => self.group(&entry).map(Said::Entries),
            "BLOBS" if std::mem::replace(&mut self.has_blobs, true) => Ok(Said::LeftOut),
            "BLOBS" => Ok(Said::Entries(vec![Entry { depends_on: Vec::new(), ..entry }])),
            "STATISTICS DATA" => Ok(Said::LeftOut),
            "ACL" | "COMMENT" | "SECURITY LABEL" if entry.tag.starts_with("LARGE OBJECTS ") => {
                self.of_group(&entry).map(Said::Entries)
            }
            _ => Ok(Said::Entries(vec![entry])),
        }
    }

    /// One entry for each large object of a group.
    fn group(&mut self, entry: &Entry) -> Result<Vec<Entry>> {
        let numbers: std::result::Result<Vec<u32>, _> = entry.definition.split_whitespace().map(str::parse).collect();
        let numbers = numbers.map_err(|_no_number| Error::integrity("a group of large objects can't be read"))?;
        self.groups.insert(entry.dump_id, (numbers.clone(), self.next_id));
        let mut entries = Vec::new();
        for number in numbers {
            entries.push(Entry {
                dump_id: self.take_id()?,
                tag: number.to_string(),
                oid: number.to_string(),
                kind: "BLOB".to_owned(),
                // Groups stand among the data; older readers fill large objects while others are made, unless all were
                // made before the data.
                section: Section::PreData,
                definition: format!("SELECT pg_catalog.lo_create('{number}');\n"),
                drop: format!("SELECT pg_catalog.lo_unlink('{number}');\n"),
                ..entry.clone()
            });
        }
        Ok(entries)
    }

    /// What stands on a group is written for its first member, and holds for each.
    fn of_group(&mut self, entry: &Entry) -> Result<Vec<Entry>> {
        let group = entry.depends_on.iter().find_map(|id| self.groups.get(id)).cloned();
        let (numbers, first_id) = group.ok_or_else(|| {
            let error =
                Error::new(ErrorKind::Unsupported, "grants on large objects that readers of this version can't read");
            error.with_context("entry", &entry.tag)
        })?;
        let first = numbers.first().map(|number| format!("LARGE OBJECT {number} ")).unwrap_or_default();
        let mut entries = Vec::new();
        for (number, of) in numbers.iter().zip(first_id..) {
            let object = format!("LARGE OBJECT {number} ");
            entries.push(Entry {
                dump_id: self.take_id()?,
                tag: object.trim_end().to_owned(),
                definition: entry.definition.replace(&first, &object),
                depends_on: vec![of],
                ..entry.clone()
            });
        }
        Ok(entries)
    }

    fn take_id(&mut self) -> Result<i32> {
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or_else(|| Error::new(ErrorKind::Unsupported, "too many entries"))?;
        Ok(id)
    }
}
