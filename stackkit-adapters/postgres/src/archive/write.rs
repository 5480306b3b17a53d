//! Writes header and table of contents. Sans-IO: values in, bytes out.
//!
//! The bytes are those of `pg_backup_archiver.c`, in any version from 1.12 to 1.16, with integers of four bytes and
//! offsets of eight, as every build of the vendor has them. What an older version can't say is an error, unless a
//! reader of that version does not ask for it.

use stackkit_core::{Error, ErrorKind, Result};

use super::text::encode;
use super::{Compression, Data, Entry, Format, Header, Section};

/// Bytes of an integer beside its sign, and of an offset: those of every platform that the vendor builds for.
const INT_BYTES: u8 = 4;
const OFFSET_BYTES: u8 = 8;

/// What readers before 12 take for granted, since they know no other.
const ACCESS_METHOD_USUAL: &str = "heap";

/// `pg_class.relkind` of a partitioned table, whose access method is only that of partitions to come.
const PARTITIONED: i32 = 0x70;

/// The newest version of the format that `pg_restore` of a server series reads.
///
/// 1.13 came with the fixes of 2018 to every series that was alive; 1.14 with 12, 1.15 with 16, 1.16 with 17.
pub(crate) fn version_for(major: u32) -> u16 {
    match major {
        ..12 => 113,
        12..16 => 114,
        16 => 115,
        _ => 116,
    }
}

/// The bytes of a whole table of contents, as `toc.dat` holds them. `header.entries` is what `entries` counts.
///
/// # Errors
/// `Unsupported` for what `header.version` can't say.
#[cfg(any(fuzzing, test))]
pub(crate) fn toc(header: &Header, entries: &[Entry]) -> Result<Vec<u8>> {
    let count = u64::try_from(entries.len()).map_err(|_too_many| impossible("entries"))?;
    let mut out = self::header(&Header { entries: count, ..header.clone() })?;
    for entry in entries {
        self::entry(header, entry, &mut out)?;
    }
    Ok(out)
}

/// The bytes of a header.
///
/// # Errors
/// `Unsupported` for what `header.version` can't say.
pub(crate) fn header(header: &Header) -> Result<Vec<u8>> {
    if !super::read::FORMATS.contains(&header.version) {
        return Err(cannot("the archive's format is not 1.12 to 1.16", header));
    }
    let minor = u8::try_from(header.version % 100).map_err(|_too_large| impossible("version"))?;
    let mut out = Vec::from(super::read::MAGIC);
    let format = match header.format {
        Format::Custom => 1,
        Format::Tar => 3,
    };
    out.extend([1, minor, 0, INT_BYTES, OFFSET_BYTES, format]);
    match (header.version, header.compression) {
        (115.., compression) => out.push(compression.byte()),
        (_, Compression::None) => int(&mut out, 0),
        // The level that stands for the default of zlib; readers only ask whether it is 0.
        (_, Compression::Gzip) => int(&mut out, -1),
        _ => return Err(cannot("readers of this format know neither lz4 nor zstd", header)),
    }
    header.created.iter().for_each(|field| int(&mut out, *field));
    for text in [&header.database, &header.server_text, &header.pg_dump_text] {
        string(&mut out, Some(text))?;
    }
    int(&mut out, i32::try_from(header.entries).map_err(|_too_many| impossible("entries"))?);
    Ok(out)
}

/// Appends the bytes of one entry.
///
/// # Errors
/// `Unsupported` for what `header.version` can't say.
pub(crate) fn entry(header: &Header, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    check_access_method(header, entry)?;
    int(out, entry.dump_id);
    int(out, i32::from(entry.has_data));
    for number in [&entry.table_oid, &entry.oid] {
        // Readers scan a number; an empty text would leave them with none.
        string(out, Some(if number.is_empty() { "0" } else { number }))?;
    }
    string(out, Some(&entry.tag))?;
    string(out, Some(&entry.kind))?;
    int(out, entry.section.number());
    for text in [&entry.definition, &entry.drop, &entry.copy] {
        string(out, Some(text))?;
    }
    string(out, entry.schema.as_deref())?;
    string(out, entry.tablespace.as_deref())?;
    if header.version >= 114 {
        string(out, entry.access_method.as_deref())?;
    }
    if header.version >= 116 {
        int(out, entry.relation_kind);
    }
    string(out, Some(&entry.owner))?;
    string(out, Some("false"))?;
    for id in &entry.depends_on {
        string(out, Some(&id.to_string()))?;
    }
    string(out, None)?;
    match (header.format, &entry.data) {
        (Format::Custom, Data::Offset { state, offset }) => {
            out.push(*state);
            out.extend(offset.to_le_bytes());
        }
        (Format::Tar, Data::File(name)) => string(out, Some(name))?,
        _ => return Err(Error::unexpected("an entry of another kind of archive")),
    }
    Ok(())
}

/// An access method that an older reader would not set must be the one it sets anyway.
fn check_access_method(header: &Header, entry: &Entry) -> Result<()> {
    let method = entry.access_method.as_deref().unwrap_or_default();
    let is_usual = method.is_empty() || method == ACCESS_METHOD_USUAL;
    let is_lost = header.version < 114 || (header.version < 116 && entry.relation_kind == PARTITIONED);
    if is_lost && !is_usual {
        let error = cannot("readers of this format can't set the table's access method", header);
        return Err(error.with_context("table", &entry.tag).with_context("access_method", method));
    }
    Ok(())
}

impl Compression {
    /// The byte in headers from 1.15 on.
    fn byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Lz4 => 2,
            Self::Zstd => 3,
        }
    }
}

impl Section {
    fn number(self) -> i32 {
        match self {
            Self::None => 1,
            Self::PreData => 2,
            Self::Data => 3,
            Self::PostData => 4,
        }
    }
}

fn cannot(message: &str, header: &Header) -> Error {
    let version = format!("{}.{}", header.version / 100, header.version % 100);
    Error::new(ErrorKind::Unsupported, message).with_context("format", version)
}

fn impossible(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "the archive can't hold this much").with_context("what", what)
}

/// A number as it stands between the blocks of a custom archive.
pub(crate) fn number(value: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + usize::from(INT_BYTES));
    int(&mut out, value);
    out
}

/// A sign byte and a little-endian magnitude.
fn int(out: &mut Vec<u8>, value: i32) {
    out.push(u8::from(value < 0));
    out.extend(value.unsigned_abs().to_le_bytes());
}

/// A length and bytes; NULL is a negative length.
fn string(out: &mut Vec<u8>, text: Option<&str>) -> Result<()> {
    let Some(text) = text else {
        int(out, -1);
        return Ok(());
    };
    let bytes = encode(text);
    int(out, i32::try_from(bytes.len()).map_err(|_too_long| impossible("text"))?);
    out.extend_from_slice(&bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::arbitrary;
    use super::*;
    use crate::archive::read;
    use proptest::prelude::*;

    /// What the reader makes of a table of contents.
    fn read_all(bytes: &[u8]) -> (Header, Vec<Entry>) {
        let (header, mut at) = read::header(bytes).expect("an archive").expect("a whole header");
        let mut entries = Vec::new();
        for _ in 0..header.entries {
            let (entry, used) = read::entry(&header, &bytes[at..]).expect("an entry").expect("a whole entry");
            entries.push(entry);
            at += used;
        }
        assert_eq!(at, bytes.len());
        (header, entries)
    }

    #[test]
    fn what_a_reader_can_not_be_told_is_refused() {
        let (mut header, mut entry) = arbitrary::plain();
        header.version = 114;
        header.compression = Compression::Zstd;
        assert_eq!(super::header(&header).expect_err("zstd in 1.14").kind(), ErrorKind::Unsupported);
        header.version = 113;
        entry.access_method = Some("columnar".to_owned());
        let refused = super::entry(&header, &entry, &mut Vec::new()).expect_err("an access method in 1.13");
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        header.version = 117;
        assert_eq!(super::header(&header).expect_err("1.17").kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn readers_of_each_series_get_their_version() {
        assert_eq!([10, 12, 15, 16, 17, 18].map(version_for), [113, 114, 114, 115, 116, 116]);
    }

    proptest! {
        #[test]
        fn the_reader_reads_what_is_written((header, entries) in arbitrary::archive()) {
            let bytes = toc(&header, &entries).expect("bytes");
            let (read_header, read_entries) = read_all(&bytes);
            prop_assert_eq!(read_header, header);
            prop_assert_eq!(read_entries, entries);
        }

        #[test]
        fn every_prefix_is_short((header, entries) in arbitrary::archive(), cut in any::<prop::sample::Index>()) {
            let bytes = toc(&header, &entries).expect("bytes");
            let cut = cut.index(bytes.len());
            let Some((head, mut at)) = read::header(&bytes[..cut]).expect("no error") else { return Ok(()) };
            let mut read = 0;
            while let Some((_, used)) = read::entry(&head, &bytes[at..cut]).expect("no error") {
                at += used;
                read += 1;
                if read == head.entries { break }
            }
            prop_assert!(read < head.entries);
        }
    }
}
