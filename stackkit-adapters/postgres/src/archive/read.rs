//! Reads header and table of contents. Sans-IO: bytes in, values out.
//!
//! Versions 1.12 (PostgreSQL 9.0) to 1.16 (18), as `pg_backup_archiver.c` writes them.

use stackkit_core::{Error, ErrorKind, Result};

use super::text::decode;
use super::{Compression, Data, Entry, Format, Header, Section};
use crate::tools::Version;

/// What an archive begins with.
pub(super) const MAGIC: &[u8] = b"PGDMP";

/// The oldest and newest format that is understood, as `major * 100 + minor`.
pub(super) const FORMATS: std::ops::RangeInclusive<u16> = 112..=116;

/// The longest string that is believed: far above the largest definition that servers allow, far below memory.
const STRING_BYTES_MAX: u64 = 1 << 30;

/// How many entries are believed.
const ENTRIES_MAX: u64 = 1 << 31;

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
            return Err(bad("the bytes are not an archive of pg_dump"));
        }
        let version = u16::from(cursor.byte()?) * 100 + u16::from(cursor.byte()?);
        let _revision = cursor.byte()?;
        if !FORMATS.contains(&version) {
            let error = Error::new(ErrorKind::Unsupported, "the archive's format is not 1.12 to 1.16");
            return Err(Stop::Bad(error.with_context("format", format!("{}.{}", version / 100, version % 100))));
        }
        cursor.int_bytes = usize::from(cursor.byte()?);
        let offset_bytes = usize::from(cursor.byte()?);
        if !(1..=8).contains(&cursor.int_bytes) || !(1..=8).contains(&offset_bytes) {
            return Err(bad("the archive's integers have an impossible size"));
        }
        let format = Format::of_byte(cursor.byte()?).ok_or_else(|| bad("the archive is of an unknown kind"))?;
        let compression = match version {
            115.. => Compression::of_byte(cursor.byte()?).ok_or_else(|| bad("the archive's compression is unknown"))?,
            // A level: -1 is zlib's default, 0 is none.
            _ => {
                if cursor.int()? == Some(0) {
                    Compression::None
                } else {
                    Compression::Gzip
                }
            }
        };
        let mut created = [0; 7];
        for field in &mut created {
            *field = cursor.signed()?;
        }
        let database = cursor.string()?.unwrap_or_default();
        let server_text = cursor.string()?.unwrap_or_default();
        let pg_dump_text = cursor.string()?.unwrap_or_default();
        let entries = cursor.count(ENTRIES_MAX)?;
        let (server, pg_dump) = (Version::parse(&server_text), Version::parse(&pg_dump_text));
        let int_bytes = cursor.int_bytes;
        Ok(Header {
            version,
            int_bytes,
            offset_bytes,
            format,
            compression,
            created,
            database,
            server_text,
            server,
            pg_dump_text,
            pg_dump,
            entries,
        })
    })
}

/// Reads one entry at the start of `bytes`.
pub(crate) fn entry(header: &Header, bytes: &[u8]) -> Parsed<Entry> {
    finish(bytes, |cursor| {
        cursor.int_bytes = header.int_bytes;
        let (dump_id, has_data) = (cursor.signed()?, cursor.signed()? != 0);
        let (table_oid, oid) = (cursor.text()?, cursor.text()?);
        let (tag, kind) = (cursor.text()?, cursor.text()?);
        let section = Section::of_number(cursor.signed()?);
        let (definition, drop, copy) = (cursor.text()?, cursor.text()?, cursor.text()?);
        let (schema, tablespace) = (cursor.string()?, cursor.string()?);
        // Table access methods came with 1.14, the kind of relation with 1.16.
        let access_method = if header.version >= 114 { cursor.string()? } else { None };
        let relation_kind = if header.version >= 116 { cursor.signed()? } else { 0 };
        let owner = cursor.text()?;
        let _with_oids = cursor.string()?;
        let mut depends_on = Vec::new();
        while let Some(id) = cursor.string()? {
            depends_on.push(id.parse().map_err(|_not_a_number| bad("a dependency of the archive is no number"))?);
        }
        let data = match header.format {
            Format::Custom => {
                let state = cursor.byte()?;
                let offset = cursor.take(header.offset_bytes)?.iter().rev();
                Data::Offset { state, offset: offset.fold(0, |value, byte| value << 8 | u64::from(*byte)) }
            }
            Format::Tar => Data::File(cursor.text()?),
        };
        Ok(Entry {
            dump_id,
            has_data,
            table_oid,
            oid,
            tag,
            kind,
            section,
            definition,
            drop,
            copy,
            schema,
            tablespace,
            access_method,
            relation_kind,
            owner,
            depends_on,
            data,
        })
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

    fn signed(&mut self) -> Step<i32> {
        let is_negative = self.byte()? != 0;
        let magnitude =
            self.take(self.int_bytes)?.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let value = i32::try_from(magnitude).map_err(|_too_large| bad("the archive holds an impossible number"))?;
        Ok(if is_negative { -value } else { value })
    }

    /// A string that stands for nothing where it is NULL.
    fn text(&mut self) -> Step<String> {
        Ok(self.string()?.unwrap_or_default())
    }

    fn count(&mut self, max: u64) -> Step<u64> {
        self.int()?.filter(|count| *count <= max).ok_or_else(|| bad("the archive holds an impossible length"))
    }

    /// A length and bytes; a negative length is NULL.
    fn string(&mut self) -> Step<Option<String>> {
        let Some(length) = self.int()? else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|_| length <= STRING_BYTES_MAX);
        let bytes = self.take(length.ok_or_else(|| bad("the archive holds an impossible length"))?)?;
        Ok(Some(decode(bytes)))
    }
}

/// Archives written by hand.
#[cfg(test)]
pub(crate) mod samples {
    /// The byte of a custom archive.
    const FORMAT_CUSTOM: u8 = 1;

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
