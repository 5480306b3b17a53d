//! From an [`Entry`] to the blocks that stand before its content.

use super::header::{Header, LARGE_MAX, NAME_BYTES, SMALL_MAX, flag};
use super::{BLOCK_BYTES, EXTENDED_BYTES_MAX, Entry, EntryKind, Fault, pax, sparse};

/// What closes an archive: two blocks of zeros.
pub(crate) const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// How many zero bytes follow a content of `length` bytes.
pub(crate) fn padding(length: u64) -> usize {
    // The remainder is below 512.
    usize::try_from(length % BLOCK_BYTES as u64).map_or(0, |rest| (BLOCK_BYTES - rest) % BLOCK_BYTES)
}

/// Appends all blocks that stand before the content of `entry`: an extended header where ustar's fields do not hold
/// everything, the header, the map of a sparse file. The content of the file (of its extents, if it is sparse) and
/// [`padding`] have to follow.
pub(crate) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut header = Header {
        name: entry.path.clone(),
        link: Vec::new(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size: 0,
        mtime: entry.mtime.seconds,
        flag: flag::FILE,
    };
    let mut map = Vec::new();
    match &entry.kind {
        EntryKind::File { size, extents: None } => header.size = *size,
        EntryKind::File { size, extents: Some(extents) } => {
            sparse::encode_map(extents, *size, &mut map);
            header.size = extents.iter().map(|extent| extent.length).sum::<u64>() + map.len() as u64;
        }
        EntryKind::Directory => header.flag = flag::DIRECTORY,
        EntryKind::Symlink { target } => (header.flag, header.link) = (flag::SYMLINK, target.clone()),
        EntryKind::HardLink { target } => (header.flag, header.link) = (flag::HARD_LINK, target.clone()),
        EntryKind::Special { .. } => return Err(Fault::MemberType),
    }
    let records = records(entry, &mut header);
    if records.len() > EXTENDED_BYTES_MAX {
        return Err(Fault::ExtendedTooLong);
    }
    if !records.is_empty() {
        extended(&records, &header, out);
    }
    header.encode(out);
    out.extend_from_slice(&map);
    Ok(())
}

/// The records for what the fields of `header` can't hold; renames a sparse file there as GNU tar does.
fn records(entry: &Entry, header: &mut Header) -> Vec<u8> {
    let mut out = Vec::new();
    let is_binary = |text: &[u8]| std::str::from_utf8(text).is_err();
    let long_name = needs_record(&entry.path);
    let long_link = needs_record(&header.link);
    if (long_name && is_binary(&entry.path)) || (long_link && is_binary(&header.link)) {
        // By POSIX the values of `path` and `linkpath` are UTF-8, unless this record says otherwise.
        pax::put(&mut out, b"hdrcharset", b"BINARY");
    }
    if let EntryKind::File { size, extents: Some(_) } = &entry.kind {
        pax::put(&mut out, b"GNU.sparse.major", b"1");
        pax::put(&mut out, b"GNU.sparse.minor", b"0");
        pax::put(&mut out, b"GNU.sparse.name", &entry.path);
        pax::put(&mut out, b"GNU.sparse.realsize", size.to_string().as_bytes());
        header.name = [b"./GNUSparseFile.0/", base_name(&entry.path)].concat();
    } else if long_name {
        pax::put(&mut out, b"path", &entry.path);
    }
    if long_link {
        pax::put(&mut out, b"linkpath", &header.link);
    }
    for (key, value, most) in
        [(&b"size"[..], header.size, LARGE_MAX), (b"uid", header.uid, SMALL_MAX), (b"gid", header.gid, SMALL_MAX)]
    {
        if value > most {
            pax::put(&mut out, key, value.to_string().as_bytes());
        }
    }
    let seconds_fit = u64::try_from(entry.mtime.seconds).is_ok_and(|seconds| seconds <= LARGE_MAX);
    if entry.mtime.nanoseconds != 0 || !seconds_fit {
        pax::put(&mut out, b"mtime", pax::format_time(entry.mtime).as_bytes());
    }
    for xattr in &entry.xattrs {
        pax::put_xattr(&mut out, xattr);
    }
    out
}

/// Whether a name does not fit its field, or is text beyond ASCII, whose encoding only a record tells. Short names
/// that are no text stay in the field, where every reader takes them as bytes.
fn needs_record(name: &[u8]) -> bool {
    name.len() > NAME_BYTES || (!name.is_ascii() && std::str::from_utf8(name).is_ok())
}

/// Appends an extended header with `records` for the member of `header`.
fn extended(records: &[u8], header: &Header, out: &mut Vec<u8>) {
    Header {
        name: [b"./PaxHeaders/", base_name(&header.name)].concat(),
        link: Vec::new(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: records.len() as u64,
        mtime: header.mtime,
        flag: flag::PAX,
    }
    .encode(out);
    out.extend_from_slice(records);
    out.resize(out.len() + padding(records.len() as u64), 0);
}

/// The last component, without the slash of a directory.
fn base_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
