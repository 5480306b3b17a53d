//! Property tests: what is written is read, and nothing makes the reader panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::header::flag;
use super::*;

/// A member with the content of its extents, concatenated.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    entry: Entry,
    content: Vec<u8>,
}

fn write(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        encode_entry(&member.entry, &mut out).unwrap();
        out.extend_from_slice(&member.content);
        out.resize(out.len() + padding(member.content.len() as u64), 0);
    }
    out.extend_from_slice(&END);
    out
}

fn read(archive: &[u8], slice: usize) -> Result<Vec<Member>, ArchiveError> {
    let mut reader = Reader::default();
    let mut members: Vec<Member> = Vec::new();
    for mut input in archive.chunks(slice) {
        while let Some(event) = reader.next(&mut input)? {
            match event {
                Event::Entry(entry) => members.push(Member { entry, content: Vec::new() }),
                Event::Data { bytes, .. } => {
                    members.last_mut().expect("data follows an entry").content.extend_from_slice(bytes);
                }
                Event::FileEnd | Event::End => {}
            }
        }
        assert!(input.is_empty(), "the reader asks for more while it has some");
    }
    reader.finish().map(|()| members)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z/]{1,20}".prop_map(String::into_bytes),
        "[a-zäß/ €]{1,80}".prop_map(String::into_bytes),
        vec(1u8.., 1..220),
        vec(1u8..=127, 90..120),
    ]
    .prop_map(|name| [b"./", name.as_slice(), b"x"].concat())
}

fn extents() -> impl Strategy<Value = (Vec<Extent>, u64)> {
    (vec((1u64..5000, 1u64..700), 1..40), 0u64..9000).prop_map(|(gaps, hole)| {
        let mut end = 0;
        let mut extents = Vec::new();
        for (gap, length) in gaps {
            extents.push(Extent { offset: end + gap, length });
            end += gap + length;
        }
        (extents, end + hole)
    })
}

fn kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![
        (0u64..3000).prop_map(|size| EntryKind::File { size, extents: None }),
        extents().prop_map(|(extents, size)| EntryKind::File { size, extents: Some(extents) }),
        Just(EntryKind::Directory),
        name().prop_map(|target| EntryKind::Symlink { target }),
        name().prop_map(|target| EntryKind::HardLink { target }),
    ]
}

fn member() -> impl Strategy<Value = Member> {
    let numbers = (0u32..=0o7777, prop_oneof![0u64..=70_000, any::<u32>().prop_map(u64::from)], 0u64..=70_000);
    let mtime = (-5_000_000_000i64..50_000_000_000, 0u32..1_000_000_000);
    let xattrs = vec((vec(1u8.., 1..30), vec(any::<u8>(), 0..300)), 0..3);
    (name(), kind(), numbers, mtime, xattrs).prop_map(
        |(path, kind, (mode, uid, gid), (seconds, nanoseconds), xattrs)| {
            let mut xattrs: Vec<Xattr> = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
            xattrs.sort();
            xattrs.dedup_by(|one, other| one.name == other.name);
            let length = match &kind {
                EntryKind::File { size, extents: None } => *size,
                EntryKind::File { extents: Some(extents), .. } => extents.iter().map(|extent| extent.length).sum(),
                _ => 0,
            };
            let content = (0..length).map(|byte| (byte % 251) as u8).collect();
            let mtime = Timestamp { seconds, nanoseconds };
            Member { entry: Entry { path, kind, mode, uid, gid, mtime, xattrs }, content }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(members in vec(member(), 0..6), slice in 1usize..3000) {
        prop_assert_eq!(read(&write(&members), slice).unwrap(), members);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..4096), slice in 1usize..600) {
        let _ = read(&bytes, slice);
    }

    #[test]
    fn damage_never_panics(members in vec(member(), 1..4), hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..9)) {
        let mut archive = write(&members);
        for (at, value) in hits {
            let at = at.index(archive.len());
            archive[at] = value;
        }
        let _ = read(&archive, 1000);
    }

    #[test]
    fn a_cut_archive_is_refused(members in vec(member(), 1..4), at in any::<prop::sample::Index>()) {
        let archive = write(&members);
        let kept = at.index(archive.len());
        prop_assert!(read(&archive[..kept], 700).is_err());
    }

    #[test]
    fn extended_headers_of_random_bytes_never_panic(text in vec(any::<u8>(), 0..600), kind in 0usize..4) {
        let flag = [flag::PAX, flag::PAX_GLOBAL, flag::GNU_LONG_NAME, flag::GNU_LONG_LINK][kind];
        let mut archive = Vec::new();
        let name = b"./h".to_vec();
        let size = text.len() as u64;
        header::Header { name, link: Vec::new(), mode: 0, uid: 0, gid: 0, size, mtime: 0, flag }.encode(&mut archive);
        archive.extend_from_slice(&text);
        archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
        let _ = read(&archive, 512);
    }
}

#[test]
fn an_empty_archive_is_two_blocks_of_zeros() {
    assert_eq!(read(&END, 100).unwrap(), []);
    assert_eq!(read(&[], 100).unwrap_err(), ArchiveError { offset: 0, fault: Fault::Truncated });
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let mut archive = END.to_vec();
    archive.resize(10 * 1024, 0);
    assert!(read(&archive, 512).is_ok());
    *archive.last_mut().unwrap() = 1;
    assert_eq!(read(&archive, 512).unwrap_err().fault, Fault::TrailingData);
}

#[test]
fn an_oversized_extended_header_is_refused_before_it_is_read() {
    let mut archive = Vec::new();
    let (name, link) = (b"./h".to_vec(), Vec::new());
    let size = EXTENDED_BYTES_MAX as u64 + 1;
    header::Header { name, link, mode: 0, uid: 0, gid: 0, size, mtime: 0, flag: flag::PAX }.encode(&mut archive);
    assert_eq!(read(&archive, 512).unwrap_err().fault, Fault::ExtendedTooLong);
}

#[test]
fn a_huge_size_needs_a_record() {
    let size = 1 << 40;
    let entry = Entry {
        path: b"./huge".to_vec(),
        kind: EntryKind::File { size, extents: None },
        mode: 0o600,
        uid: 1 << 40,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Vec::new(),
    };
    let mut archive = Vec::new();
    encode_entry(&entry, &mut archive).unwrap();
    let mut input = archive.as_slice();
    assert_eq!(Reader::default().next(&mut input).unwrap(), Some(Event::Entry(entry)));
}
