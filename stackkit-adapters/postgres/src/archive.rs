//! The head of `pg_dump`'s custom format: header and table of contents. Sans-IO: bytes in, entries out.
//!
//! Versions 1.12 (PostgreSQL 9.0) to 1.16 (18), as `pg_backup_archiver.c` writes them. Data is left to `pg_restore`.

use stackkit_core::{Error, ErrorKind, Result};

use crate::tools::Version;

/// What the custom format begins with.
const MAGIC: &[u8] = b"PGDMP";

/// The format byte of a custom archive; 3 is tar or directory.
const FORMAT_CUSTOM: u8 = 1;

/// The oldest and newest format that is understood, as `major * 100 + minor`.
const FORMATS: std::ops::RangeInclusive<u16> = 112..=116;

/// The longest string that is believed: far above the largest definition that servers allow, far below memory.
const STRING_BYTES_MAX: u64 = 1 << 30;

/// How many entries are believed.
const ENTRIES_MAX: u64 = 1 << 31;

/// The first bytes of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// `major * 100 + minor` of the format: 114 is 1.14.
    pub(crate) format: u16,
    /// Bytes of an integer beside its sign.
    int_bytes: usize,
    /// Bytes of a file offset.
    offset_bytes: usize,
    /// The database that was dumped.
    pub(crate) database: String,
    /// The server it was dumped from.
    pub(crate) server: Option<Version>,
    /// The `pg_dump` that wrote it.
    pub(crate) pg_dump: Option<Version>,
    /// How many entries follow.
    pub(crate) entries: u64,
}

/// One line of the table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The object's name.
    pub(crate) tag: String,
    /// Its kind: `TABLE`, `TABLE DATA`, `EXTENSION`, …
    pub(crate) kind: String,
    /// The SQL that makes it.
    pub(crate) definition: String,
    /// The role that owns it; empty if none.
    pub(crate) owner: String,
}

/// What a parse of a prefix of the archive comes to: a value and how many bytes it took, or not enough bytes.
pub(crate) type Parsed<T> = Result<Option<(T, usize)>>;

/// Why a parse stops before its end.
enum Stop {
    /// More bytes are needed.
    Short,
    /// The bytes are no archive.
    Bad(Error),
}

type Step<T> = std::result::Result<T, Stop>;

/// Reads the header at the start of `bytes`.
pub(crate) fn header(bytes: &[u8]) -> Parsed<Header> {
    finish(bytes, |cursor| {
        if cursor.take(MAGIC.len())? != MAGIC {
            return Err(bad("the artifact is not a custom archive of pg_dump"));
        }
        let format = u16::from(cursor.byte()?) * 100 + u16::from(cursor.byte()?);
        let _revision = cursor.byte()?;
        if !FORMATS.contains(&format) {
            let error = Error::new(ErrorKind::Unsupported, "the archive's format is not 1.12 to 1.16");
            return Err(Stop::Bad(error.with_context("format", format!("{}.{}", format / 100, format % 100))));
        }
        cursor.int_bytes = usize::from(cursor.byte()?);
        let offset_bytes = usize::from(cursor.byte()?);
        if !(1..=8).contains(&cursor.int_bytes) || !(1..=8).contains(&offset_bytes) {
            return Err(bad("the archive's integers have an impossible size"));
        }
        if cursor.byte()? != FORMAT_CUSTOM {
            return Err(bad("the archive is not of the custom format"));
        }
        match format {
            115.. => drop(cursor.byte()?),
            _ => drop(cursor.int()?),
        }
        for _second_to_dst in 0..7 {
            cursor.int()?;
        }
        let database = cursor.string()?.unwrap_or_default();
        let server = cursor.string()?.as_deref().and_then(Version::parse);
        let pg_dump = cursor.string()?.as_deref().and_then(Version::parse);
        let entries = cursor.count(ENTRIES_MAX)?;
        Ok(Header { format, int_bytes: cursor.int_bytes, offset_bytes, database, server, pg_dump, entries })
    })
}

/// Reads one entry at the start of `bytes`.
pub(crate) fn entry(header: &Header, bytes: &[u8]) -> Parsed<Entry> {
    finish(bytes, |cursor| {
        cursor.int_bytes = header.int_bytes;
        let (_id, _has_data) = (cursor.int()?, cursor.int()?);
        let (_table_oid, _oid) = (cursor.string()?, cursor.string()?);
        let tag = cursor.string()?.unwrap_or_default();
        let kind = cursor.string()?.unwrap_or_default();
        let _section = cursor.int()?;
        let definition = cursor.string()?.unwrap_or_default();
        let (_drop, _copy, _schema, _tablespace) =
            (cursor.string()?, cursor.string()?, cursor.string()?, cursor.string()?);
        // Table access methods came with 1.14, the kind of relation with 1.16.
        if header.format >= 114 {
            cursor.string()?;
        }
        if header.format >= 116 {
            cursor.int()?;
        }
        let owner = cursor.string()?.unwrap_or_default();
        let _with_oids = cursor.string()?;
        while cursor.string()?.is_some() {}
        let _offset_state = cursor.byte()?;
        cursor.take(header.offset_bytes)?;
        Ok(Entry { tag, kind, definition, owner })
    })
}

fn bad(message: &str) -> Stop {
    Stop::Bad(Error::integrity(message))
}

fn finish<T>(bytes: &[u8], read: impl FnOnce(&mut Cursor<'_>) -> Step<T>) -> Parsed<T> {
    let mut cursor = Cursor { rest: bytes, int_bytes: 4 };
    match read(&mut cursor) {
        Ok(value) => Ok(Some((value, bytes.len() - cursor.rest.len()))),
        Err(Stop::Short) => Ok(None),
        Err(Stop::Bad(error)) => Err(error),
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
    int_bytes: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Step<u8> {
        self.take(1)?.first().copied().ok_or(Stop::Short)
    }

    /// A sign byte and a little-endian magnitude; `None` is negative.
    fn int(&mut self) -> Step<Option<u64>> {
        let is_negative = self.byte()? != 0;
        let magnitude = self.take(self.int_bytes)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        Ok((!is_negative).then_some(magnitude))
    }

    fn count(&mut self, max: u64) -> Step<u64> {
        self.int()?.filter(|count| *count <= max).ok_or_else(|| bad("the archive holds an impossible length"))
    }

    /// A length and bytes; a negative length is NULL.
    fn string(&mut self) -> Step<Option<String>> {
        let Some(length) = self.int()? else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|_| length <= STRING_BYTES_MAX);
        let bytes = self.take(length.ok_or_else(|| bad("the archive holds an impossible length"))?)?;
        Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
    }
}

/// Archives written by hand.
#[cfg(test)]
pub(crate) mod samples {
    use super::FORMAT_CUSTOM;

    fn int(out: &mut Vec<u8>, value: i32) {
        out.push(u8::from(value < 0));
        out.extend(value.unsigned_abs().to_le_bytes());
    }

    fn string(out: &mut Vec<u8>, text: Option<&str>) {
        match text {
            Some(text) => {
                int(out, i32::try_from(text.len()).expect("a short text"));
                out.extend(text.as_bytes());
            }
            None => int(out, -1),
        }
    }

    pub(crate) fn header(minor: u8, entries: i32) -> Vec<u8> {
        let mut out = Vec::from(b"PGDMP\x01");
        out.extend([minor, 0, 4, 8, FORMAT_CUSTOM]);
        match minor {
            15.. => out.push(0),
            _ => int(&mut out, 0),
        }
        (0..7).for_each(|field| int(&mut out, field));
        for text in ["shop", "15.18 (Debian 15.18-0+deb12u1)", "16.2"] {
            string(&mut out, Some(text));
        }
        int(&mut out, entries);
        out
    }

    pub(crate) fn entry(minor: u8, kind: &str) -> Vec<u8> {
        let mut out = Vec::new();
        int(&mut out, 7);
        int(&mut out, 1);
        for text in ["1259", "16384", "orders", kind] {
            string(&mut out, Some(text));
        }
        int(&mut out, 2);
        for text in ["CREATE …", "DROP …"] {
            string(&mut out, Some(text));
        }
        (0..3).for_each(|_| string(&mut out, None));
        if minor >= 14 {
            string(&mut out, Some("heap"));
        }
        if minor >= 16 {
            int(&mut out, 114);
        }
        for text in [Some("app"), Some("false"), Some("3"), Some("4"), None] {
            string(&mut out, text);
        }
        out.push(1);
        out.extend([0; 8]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{entry as sample_entry, header as sample};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_known_format_is_read() {
        for minor in 12..=16 {
            let bytes = sample(minor, 1);
            let (head, used) = header(&bytes).expect("an archive").expect("all of it");
            assert_eq!((used, head.entries, head.database.as_str()), (bytes.len(), 1, "shop"), "1.{minor}");
            assert_eq!((head.server, head.pg_dump), (Some(Version(150_018)), Some(Version(160_002))));
            let bytes = sample_entry(minor, "TABLE");
            let (entry, used) = entry(&head, &bytes).expect("an entry").expect("all of it");
            assert_eq!((used, entry.kind.as_str(), entry.owner.as_str()), (bytes.len(), "TABLE", "app"), "1.{minor}");
        }
    }

    #[test]
    fn foreign_and_future_bytes_are_refused() {
        assert_eq!(header(b"-- SQL dump").expect_err("text").kind(), ErrorKind::Integrity);
        assert_eq!(header(&sample(17, 0)).expect_err("a later format").kind(), ErrorKind::Unsupported);
    }

    proptest! {
        #[test]
        fn a_prefix_is_short_and_never_wrong(cut in 0usize..80) {
            let bytes = sample(14, 1);
            prop_assume!(cut < bytes.len());
            prop_assert!(header(&bytes[..cut]).expect("no error").is_none());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _parsed = header(&bytes);
            let (head, _) = header(&sample(16, 1)).expect("an archive").expect("all of it");
            let _parsed = entry(&head, &bytes);
        }
    }
}
