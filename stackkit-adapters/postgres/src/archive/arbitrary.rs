//! Random archives for the tests.

use proptest::prelude::*;

use super::text::decode;
use super::{Compression, Data, Entry, Format, Header, Section};
use crate::tools::Version;

/// A header and an entry of the simplest kind.
pub(crate) fn plain() -> (Header, Entry) {
    let header = Header {
        version: 116,
        int_bytes: 4,
        offset_bytes: 8,
        format: Format::Tar,
        compression: Compression::None,
        created: [1, 2, 3, 4, 5, 126, 0],
        database: "shop".to_owned(),
        server_text: "15.18".to_owned(),
        server: Version::parse("15.18"),
        pg_dump_text: "16.2".to_owned(),
        pg_dump: Version::parse("16.2"),
        entries: 1,
    };
    let entry = Entry {
        dump_id: 7,
        has_data: false,
        table_oid: "1259".to_owned(),
        oid: "16384".to_owned(),
        tag: "orders".to_owned(),
        kind: "TABLE".to_owned(),
        section: Section::PreData,
        definition: "CREATE TABLE public.orders ();\n".to_owned(),
        drop: "DROP TABLE public.orders;\n".to_owned(),
        copy: String::new(),
        schema: Some("public".to_owned()),
        tablespace: Some(String::new()),
        access_method: Some("heap".to_owned()),
        relation_kind: 114,
        owner: "app".to_owned(),
        depends_on: Vec::new(),
        data: Data::File(String::new()),
    };
    (header, entry)
}

/// Any bytes, as the reader gives them.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| decode(&bytes)),
        Just(String::new()),
    ]
}

fn section() -> impl Strategy<Value = Section> {
    prop_oneof![Just(Section::None), Just(Section::PreData), Just(Section::Data), Just(Section::PostData)]
}

/// A header, its count of entries not set.
fn header() -> impl Strategy<Value = Header> {
    let format = prop_oneof![Just(Format::Custom), Just(Format::Tar)];
    let compression =
        prop_oneof![Just(Compression::None), Just(Compression::Gzip), Just(Compression::Lz4), Just(Compression::Zstd)];
    let texts = (text(), text(), text());
    (112u16..=116, format, compression, any::<[i16; 7]>(), texts).prop_map(
        |(version, format, compression, created, (database, server_text, pg_dump_text))| Header {
            version,
            int_bytes: 4,
            offset_bytes: 8,
            format,
            compression: match (version, compression) {
                (..115, Compression::Lz4 | Compression::Zstd) => Compression::Gzip,
                _ => compression,
            },
            created: created.map(i32::from),
            database,
            server: Version::parse(&server_text),
            server_text,
            pg_dump: Version::parse(&pg_dump_text),
            pg_dump_text,
            entries: 0,
        },
    )
}

fn entry(header: &Header) -> impl Strategy<Value = Entry> + use<> {
    let (version, format) = (header.version, header.format);
    let numbers = (any::<i32>().prop_filter("the reader has no least number", |n| *n != i32::MIN), any::<bool>());
    let texts = proptest::collection::vec(text(), 6);
    let options = (proptest::option::of(text()), proptest::option::of(text()));
    let place = (any::<u8>(), any::<u64>(), text());
    let rest = (section(), any::<i16>(), proptest::collection::vec(any::<i16>(), 0..4));
    (numbers, texts, options, place, rest).prop_map(move |(numbers, texts, options, place, rest)| {
        let [tag, kind, definition, drop, copy, owner] = texts.try_into().unwrap_or_default();
        Entry {
            dump_id: numbers.0,
            has_data: numbers.1,
            table_oid: "1259".to_owned(),
            oid: "0".to_owned(),
            tag,
            kind,
            section: rest.0,
            definition,
            drop,
            copy,
            schema: options.0,
            tablespace: options.1,
            access_method: (version >= 114).then(|| "heap".to_owned()),
            relation_kind: if version >= 116 { i32::from(rest.1) } else { 0 },
            owner,
            depends_on: rest.2.into_iter().map(i32::from).collect(),
            data: match format {
                Format::Custom => Data::Offset { state: place.0, offset: place.1 },
                Format::Tar => Data::File(place.2),
            },
        }
    })
}

/// A header and the entries that it counts.
pub(crate) fn archive() -> impl Strategy<Value = (Header, Vec<Entry>)> {
    header().prop_flat_map(|header| {
        proptest::collection::vec(entry(&header), 0..6).prop_map(move |entries| {
            let count = u64::try_from(entries.len()).unwrap_or_default();
            (Header { entries: count, ..header.clone() }, entries)
        })
    })
}
