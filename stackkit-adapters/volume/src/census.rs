//! What a tree holds, in numbers, and one hash over its content.

use std::path::Path;

use stackkit_core::Census;

use crate::archive::Xattr;
use crate::error::Result;
use crate::tree::{FileAccess, Found, Links, Node, Walk, Warnings, file_xattrs, hash_file};
use crate::worker::Cancel;

/// The attributes that count. Those of other namespaces belong to the system and to root: a restore by another user
/// can't set them.
const COUNTED_NAMESPACE: &[u8] = b"user.";

/// How many there are of each kind.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) files: u64,
    pub(crate) directories: u64,
    pub(crate) symlinks: u64,
    /// The sizes of all files, each counted once whatever the number of its names.
    pub(crate) bytes: u64,
}

impl Counts {
    /// The counts alone.
    pub(crate) fn census(&self) -> Census {
        Census::new()
            .with_count("files", self.files)
            .with_count("directories", self.directories)
            .with_count("symlinks", self.symlinks)
            .with_count("bytes", self.bytes)
    }
}

/// Counts entries in the order of a [`Walk`].
///
/// The digest `content` is BLAKE3 over one record for each entry but the volume itself: the length of its path
/// (`u64`, little-endian), the path, and the 32 bytes of its node hash. The node hash is BLAKE3 over the kind (`d`,
/// `f`, `l`), the mode (`u32`, little-endian; 0 for a link), then
/// - for a file its size (`u64`) and the 32 bytes of BLAKE3 of its content, holes read as zeros,
/// - for a symbolic link its target,
///
/// and for files and directories their `user.` attributes by name: length and bytes of the name, length and bytes of
/// the value. Owners and times are no part of it, and a further name of a file counts as the file.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Counts,
    content: blake3::Hasher,
}

impl Tally {
    /// Counts a directory; the volume itself, whose path is empty, is not counted.
    pub(crate) fn directory(&mut self, path: &[u8], mode: u32, xattrs: &[Xattr]) {
        if !path.is_empty() {
            self.counts.directories += 1;
            self.record(path, directory_node(mode, xattrs));
        }
    }

    /// Counts the first name of a file.
    pub(crate) fn file(&mut self, path: &[u8], size: u64, node: Node) {
        self.counts.files += 1;
        self.counts.bytes += size;
        self.record(path, node);
    }

    /// Counts a further name of a file: it adds no bytes.
    pub(crate) fn hard_link(&mut self, path: &[u8], node: Node) {
        self.counts.files += 1;
        self.record(path, node);
    }

    /// Counts a symbolic link.
    pub(crate) fn symlink(&mut self, path: &[u8], target: &[u8]) {
        self.counts.symlinks += 1;
        let mut hasher = node_hasher(b'l', 0);
        hasher.update(target);
        self.record(path, hasher.finalize());
    }

    fn record(&mut self, path: &[u8], node: Node) {
        put(&mut self.content, path);
        self.content.update(node.as_bytes());
    }

    /// The counts and the digest.
    pub(crate) fn census(&self) -> Census {
        self.counts.census().with_digest("content", self.content.finalize().to_hex().as_str())
    }
}

/// The node hash of a file.
pub(crate) fn file_node(mode: u32, size: u64, content: &blake3::Hash, xattrs: &[Xattr]) -> Node {
    let mut hasher = node_hasher(b'f', mode);
    hasher.update(&size.to_le_bytes());
    hasher.update(content.as_bytes());
    put_xattrs(&mut hasher, xattrs);
    hasher.finalize()
}

fn directory_node(mode: u32, xattrs: &[Xattr]) -> Node {
    let mut hasher = node_hasher(b'd', mode);
    put_xattrs(&mut hasher, xattrs);
    hasher.finalize()
}

fn node_hasher(kind: u8, mode: u32) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&mode.to_le_bytes());
    hasher
}

fn put_xattrs(hasher: &mut blake3::Hasher, xattrs: &[Xattr]) {
    for xattr in xattrs.iter().filter(|xattr| xattr.name.starts_with(COUNTED_NAMESPACE)) {
        put(hasher, &xattr.name);
        put(hasher, &xattr.value);
    }
}

/// Adds bytes with their length, so that no two lists of them look alike.
fn put(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Counts the directory at `path`, reading every byte.
pub(crate) fn take(path: &Path, cancel: &Cancel) -> Result<(Census, Warnings)> {
    let mut walk = Walk::open(path, FileAccess::Open)?;
    let mut tally = Tally::default();
    let mut links = Links::default();
    let mut warnings = Warnings::default();
    let mut buffer = Vec::new();
    while let Some((path, found)) = walk.next()? {
        cancel.check()?;
        match found {
            Found::Directory(directory, meta) => tally.directory(path, meta.mode, &file_xattrs(directory, path)?),
            Found::Symlink(_, target) => tally.symlink(path, &target),
            Found::File(Some(file), meta) => match links.find(&meta) {
                Some((_, node)) => tally.hard_link(path, node),
                None => {
                    let xattrs = file_xattrs(std::os::fd::AsFd::as_fd(&file), path)?;
                    let content = hash_file(&file, &meta, &mut buffer, path, cancel)?;
                    let node = file_node(meta.mode, meta.size, &content, &xattrs);
                    tally.file(path, meta.size, node);
                    if !links.remember(&meta, path, node) {
                        warnings.push(path, "counted on its own: too many files have several names");
                    }
                }
            },
            Found::File(None, _) | Found::Special(_) => {}
        }
    }
    warnings.append(walk.into_warnings());
    Ok((tally.census(), warnings))
}

/// How many bytes the regular files of a tree have, and a hash that changes whenever the tree does: over the path,
/// kind, size and times of change of each entry, of its content and of its inode. One `stat` each; nothing is read.
pub(crate) fn fingerprint(path: &Path, cancel: &Cancel) -> Result<TreeStat> {
    let mut walk = Walk::open(path, FileAccess::Stat)?;
    let mut hasher = blake3::Hasher::new();
    let mut stat = TreeStat::default();
    while let Some((path, found)) = walk.next()? {
        cancel.check()?;
        let (kind, meta) = match found {
            Found::Directory(_, meta) => (b'd', meta),
            Found::File(_, meta) => (b'f', meta),
            Found::Symlink(meta, _) => (b'l', meta),
            Found::Special(meta) => (b's', meta),
        };
        if path.is_empty() {
            // The time of the volume itself changes with each write probe.
            hasher.update(&meta.inode.to_le_bytes());
            continue;
        }
        stat.entries += 1;
        stat.directories += u64::from(kind == b'd');
        if kind == b'f' {
            stat.files += 1;
            stat.bytes += meta.size;
        }
        put(&mut hasher, path);
        hasher.update(&[kind]);
        hasher.update(&meta.size.to_le_bytes());
        for time in [meta.mtime, meta.ctime] {
            hasher.update(&time.seconds.to_le_bytes());
            hasher.update(&time.nanoseconds.to_le_bytes());
        }
    }
    stat.fingerprint = hasher.finalize().to_hex().to_string();
    Ok(stat)
}

/// What [`fingerprint`] found.
#[derive(Debug, Default)]
pub(crate) struct TreeStat {
    pub(crate) entries: u64,
    pub(crate) files: u64,
    pub(crate) directories: u64,
    pub(crate) bytes: u64,
    pub(crate) fingerprint: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(count: impl FnOnce(&mut Tally)) -> String {
        let mut tally = Tally::default();
        count(&mut tally);
        tally.census().digests["content"].clone()
    }

    #[test]
    fn the_digest_tells_paths_modes_targets_and_user_attributes_apart() {
        let content = blake3::hash(b"x");
        let user = [Xattr { name: b"user.a".to_vec(), value: b"1".to_vec() }];
        let system = [Xattr { name: b"security.selinux".to_vec(), value: b"1".to_vec() }];
        let file = |path: &[u8], mode, xattrs: &[Xattr]| {
            digest(|tally| tally.file(path, 1, file_node(mode, 1, &content, xattrs)))
        };
        let plain = file(b"a", 0o644, &[]);
        assert_ne!(plain, file(b"b", 0o644, &[]));
        assert_ne!(plain, file(b"a", 0o600, &[]));
        assert_ne!(plain, file(b"a", 0o644, &user));
        assert_eq!(plain, file(b"a", 0o644, &system));
        assert_ne!(digest(|tally| tally.symlink(b"a", b"b")), digest(|tally| tally.symlink(b"a", b"c")));
        assert_ne!(digest(|tally| tally.symlink(b"ab", b"c")), digest(|tally| tally.symlink(b"a", b"bc")));
    }

    #[test]
    fn a_further_name_adds_a_file_but_no_bytes() {
        let node = blake3::hash(b"node");
        let mut tally = Tally::default();
        tally.file(b"a", 10, node);
        tally.hard_link(b"b", node);
        assert_eq!((tally.census().count("files"), tally.census().count("bytes")), (2, 10));
    }
}
