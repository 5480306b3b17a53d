use proptest::prelude::*;

use super::super::layout::{Piece, layout};
use super::super::{Checksum, Scan, Writer, fuzz};
use super::*;

/// Events as plain data, with the bytes of a value joined.
fn events(file: &[u8], chunk_bytes: &[usize]) -> Result<Vec<String>, Fault> {
    let (mut seen, mut value) = (Vec::new(), Vec::new());
    let mut reader = Reader::new();
    let mut sizes = chunk_bytes.iter().copied().cycle();
    let mut rest = file;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = after;
        reader.feed(chunk, &mut |event| match event {
            Event::Value(bytes) => value.extend_from_slice(bytes),
            Event::KeyEnd { .. } => seen.push(format!("{event:?} {:?}", mem::take(&mut value))),
            event => seen.push(format!("{event:?}")),
        })?;
    }
    reader.finish().map(|()| seen)
}

fn string() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..90).prop_map(|text| {
            let mut writer = Writer::new(0);
            writer.string(&text);
            writer.finish()[9..][..text.len() + if text.len() < 64 { 1 } else { 2 }].to_vec()
        }),
        any::<[u8; 1]>().prop_map(|n| vec![0xc0, n[0]]),
        any::<[u8; 2]>().prop_map(|n| vec![0xc1, n[0], n[1]]),
        any::<[u8; 4]>().prop_map(|n| vec![0xc2, n[0], n[1], n[2], n[3]]),
        (0_u8..8).prop_map(|more| vec![0xc3, 6, 2 + 9 + more, 1, b'a', b'b', 7 << 5, more, 1]),
    ]
    .prop_filter("lzf length byte", |bytes| bytes[0] != 0xc3 || bytes[2] < 64)
}

fn number() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0_u8..64).prop_map(|n| vec![n]),
        (64_u8..128, any::<u8>()).prop_map(|(high, low)| vec![high, low]),
        any::<[u8; 4]>().prop_map(|n| [&[0x80][..], &n].concat()),
        any::<[u8; 8]>().prop_map(|n| [&[0x81][..], &n].concat()),
    ]
}

fn module() -> impl Strategy<Value = Vec<u8>> {
    let item = prop_oneof![
        (1_u8..3, number()).prop_map(|(code, n)| [&[code][..], &n].concat()),
        any::<[u8; 4]>().prop_map(|n| [&[3][..], &n].concat()),
        any::<[u8; 8]>().prop_map(|n| [&[4][..], &n].concat()),
        string().prop_map(|text| [&[5][..], &text].concat()),
    ];
    prop::collection::vec(item, 0..4).prop_map(|items| [&items.concat()[..], &[0]].concat())
}

/// Bytes that fit a layout.
fn value(pieces: &'static [Piece]) -> BoxedStrategy<Vec<u8>> {
    pieces.iter().fold(Just(Vec::new()).boxed(), |before, piece| {
        let bytes = match *piece {
            Piece::Raw(count) => prop::collection::vec(any::<u8>(), usize::try_from(count).unwrap()).boxed(),
            Piece::Len | Piece::ModuleId => number().boxed(),
            Piece::Str => string().boxed(),
            Piece::Score => prop_oneof![(253..=255_u8).prop_map(|code| vec![code]), Just(b"\x031.5".to_vec())].boxed(),
            Piece::Module => module().boxed(),
            Piece::Many(inner) => prop::collection::vec(value(inner), 0..3)
                .prop_map(|items| [&[u8::try_from(items.len()).unwrap()][..], &items.concat()].concat())
                .boxed(),
        };
        (before, bytes).prop_map(|(before, bytes)| [before, bytes].concat()).boxed()
    })
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    let codes: Vec<u8> = (0..=30).filter(|code| layout(*code).is_some()).collect();
    let record = prop::sample::select(codes).prop_flat_map(|code| {
        let key = prop::collection::vec(any::<u8>(), 0..80);
        (Just(code), key, value(layout(code).unwrap().pieces), any::<Option<i64>>(), any::<u8>(), 0_u64..3)
    });
    prop::collection::vec(record, 0..6).prop_map(|records| {
        let mut writer = Writer::new(12);
        writer.aux("redis-ver", "7.4.0").function(b"#!lua name=f\n");
        writer.raw(&[247]).raw(&[5, 2, 7, 5, 1, b'x', 0]).raw(&[244, 1, 2, 3, 251, 9, 9]);
        for (code, key, value, expiry, frequency, database) in records {
            writer.select(database);
            if let Some(at) = expiry {
                writer.expires_at_ms(at).idle_seconds(at.unsigned_abs());
            } else {
                writer.frequency(frequency);
            }
            writer.record(code, &key, &value);
        }
        writer.finish()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunking_gives_the_same_events(file in file(), sizes in prop::collection::vec(1_usize..40, 1..8)) {
        let whole = events(&file, &[usize::MAX]).unwrap();
        prop_assert_eq!(&events(&file, &sizes).unwrap(), &whole);
        prop_assert_eq!(&events(&file, &[1]).unwrap(), &whole);
    }

    #[test]
    fn a_cut_at_any_byte_is_found(file in file()) {
        for cut in 0..file.len() {
            prop_assert_eq!(events(&file[..cut], &[7]), Err(Fault::Truncated { offset: u64::try_from(cut).unwrap() }));
        }
    }

    #[test]
    fn a_flipped_bit_never_passes_the_checksum(file in file(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let mut file = file;
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        let mut checksum = Checksum::new();
        file.chunks(5).for_each(|chunk| checksum.feed(chunk));
        prop_assert!(checksum.finish().is_err());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz(&bytes);
        fuzz(&[b"REDIS0012", &bytes[..]].concat());
    }
}

#[test]
fn records_are_reported_with_what_belongs_to_them() {
    let mut writer = Writer::new(11);
    writer.select(3).expires_at_ms(1_700_000_000_123).idle_seconds(70).record(2, b"tags", b"\x02\x01a\x01b");
    writer.raw(&[253]).raw(&2_i32.to_le_bytes()).frequency(9).record(0, b"n", &[0xc0, 7]);
    let mut keys = Vec::new();
    let mut values = Vec::new();
    let mut reader = Reader::new();
    reader
        .feed(&writer.finish(), &mut |event| match event {
            Event::Key(key) => keys.push((
                key.name.to_vec(),
                key.database,
                key.kind,
                key.expires_at_ms,
                key.idle_seconds,
                key.frequency,
            )),
            Event::Value(bytes) => values.push(bytes.to_vec()),
            _ => {}
        })
        .unwrap();
    reader.finish().unwrap();
    assert_eq!(
        keys,
        [
            (b"tags".to_vec(), 3, ValueKind::Set, Some(1_700_000_000_123), Some(70), None),
            (b"n".to_vec(), 3, ValueKind::String, Some(2000), None, Some(9)),
        ]
    );
    assert_eq!(values, [b"\x02\x01a\x01b".to_vec(), vec![0xc0, 7]]);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let fault = |file: &[u8]| events(file, &[4]).unwrap_err();
    assert_eq!(fault(b"PK\x03\x04.....").to_string(), Fault::Magic.to_string());
    assert_eq!(fault(b"VALKEY080"), Fault::Valkey { version: 80 });
    assert_eq!(fault(b"REDIS0013"), Fault::Version { version: 13 });
    assert_eq!(fault(b"REDIS0005"), Fault::Version { version: 5 });
    let with = |version, code: u8| Writer::new(version).raw(&[code]).finish();
    for code in [6, 8, 26, 30, 200] {
        assert_eq!(fault(&with(12, code)), Fault::Type { code, version: 12, offset: 9 });
    }
    assert_eq!(fault(&with(10, 20)), Fault::Type { code: 20, version: 10, offset: 9 });
    for code in [242, 243, 246] {
        assert_eq!(fault(&with(12, code)), Fault::Opcode { code, version: 12, offset: 9 });
    }
    assert_eq!(fault(&with(11, 244)), Fault::Opcode { code: 244, version: 11, offset: 9 });
    let trailing = [Writer::new(9).finish(), vec![b'\n']].concat();
    assert_eq!(fault(&trailing), Fault::Trailing { offset: 18 });
}

#[test]
fn a_file_that_is_not_understood_is_still_verified() {
    let scan = |file: &[u8]| {
        let mut scan = Scan::new();
        file.chunks(3).try_for_each(|chunk| scan.feed(chunk)).and_then(|()| scan.finish())
    };
    let file = Writer::new(99).raw(b"whatever this means").finish();
    let summary = scan(&file).unwrap();
    assert_eq!(summary.content, Err(Fault::Version { version: 99 }));
    assert!(summary.seal.checked && summary.seal.header.version == 99);
    let mut damaged = file.clone();
    damaged[12] ^= 1;
    assert!(matches!(scan(&damaged), Err(Fault::Checksum { .. })));
    assert!(matches!(scan(&file[..file.len() - 1]), Err(Fault::Truncated { .. })));
    let mut unchecked = Writer::new(10).finish();
    unchecked.truncate(10);
    unchecked.extend_from_slice(&[0; 8]);
    assert!(!scan(&unchecked).unwrap().seal.checked);
}

#[test]
fn counts_are_per_database_and_kind() {
    let mut writer = Writer::new(10);
    writer.aux("redis-ver", "7.0.15").select(0).record(0, b"a", b"\x01x").record(17, b"z", b"\x01x");
    writer.select(9).expires_at_ms(1).record(0, b"b", b"\x03xyz").function(b"code");
    let mut scan = Scan::new();
    scan.feed(&writer.finish()).unwrap();
    let content = scan.finish().unwrap().content.unwrap();
    let found: Vec<_> = content
        .counts
        .databases()
        .flat_map(|(database, kinds)| kinds.map(move |(kind, tally)| (database, kind, tally.keys, tally.expiring)))
        .collect();
    assert_eq!(found, [(0, ValueKind::String, 1, 0), (0, ValueKind::Zset, 1, 0), (9, ValueKind::String, 1, 1)]);
    assert_eq!((content.functions, content.needs_version, content.largest_value_bytes), (1, 10, 4));
    assert_eq!(content.aux["redis-ver"], "7.0.15");
}
