//! Which inodes were met already: files with several names.

use std::collections::HashMap;

use super::Meta;
use crate::archive::Timestamp;

/// The most memory that the names of inodes with several links take, in bytes. An inode beyond that is treated as
/// files of their own: more bytes, the same content.
const LINKS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a map entry takes beside its path, roughly.
const ENTRY_BYTES: usize = 128;

/// What is known of a node that a census counts: BLAKE3 over its kind, mode, content and attributes.
pub(crate) type Node = blake3::Hash;

/// The inodes of which more names are expected.
#[derive(Debug, Default)]
pub(crate) struct Links {
    known: HashMap<(u64, u64), Known>,
    used_bytes: usize,
}

#[derive(Debug)]
struct Known {
    path: Vec<u8>,
    node: Node,
    names_left: u64,
    size: u64,
    mtime: Timestamp,
}

impl Links {
    /// The first name of the inode and its node, if it was met before and still is what it was: an inode may be
    /// written to meanwhile, or be freed and given to another file.
    pub(crate) fn find(&mut self, meta: &Meta) -> Option<(Vec<u8>, Node)> {
        if meta.links < 2 {
            return None;
        }
        let known = self.known.get_mut(&meta.identity())?;
        if (known.size, known.mtime) != (meta.size, meta.mtime) {
            return None;
        }
        known.names_left = known.names_left.saturating_sub(1);
        let found = (known.path.clone(), known.node);
        if known.names_left == 0 {
            self.forget(meta);
        }
        Some(found)
    }

    /// Remembers the first name of an inode that has more of them. Whether there was room.
    pub(crate) fn remember(&mut self, meta: &Meta, path: &[u8], node: Node) -> bool {
        if meta.links < 2 {
            return true;
        }
        self.forget(meta);
        let bytes = path.len() + ENTRY_BYTES;
        if self.used_bytes + bytes > LINKS_BYTES_MAX {
            return false;
        }
        self.used_bytes += bytes;
        let (names_left, size, mtime) = (meta.links - 1, meta.size, meta.mtime);
        self.known.insert(meta.identity(), Known { path: path.to_vec(), node, names_left, size, mtime });
        true
    }

    fn forget(&mut self, meta: &Meta) {
        if let Some(known) = self.known.remove(&meta.identity()) {
            self.used_bytes -= known.path.len() + ENTRY_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::FileType;

    use super::*;

    fn meta(inode: u64, links: u64) -> Meta {
        Meta {
            device: 1,
            inode,
            links,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 10,
            allocated_bytes: 4096,
            mtime: Timestamp { seconds: 5, nanoseconds: 0 },
            ctime: Timestamp::default(),
            file_type: FileType::RegularFile,
        }
    }

    fn node() -> Node {
        blake3::hash(b"node")
    }

    #[test]
    fn an_inode_is_forgotten_after_its_last_name() {
        let mut links = Links::default();
        assert!(links.remember(&meta(7, 3), b"first", node()));
        assert!(links.find(&meta(8, 3)).is_none());
        for _ in 0..2 {
            assert_eq!(links.find(&meta(7, 3)), Some((b"first".to_vec(), node())));
        }
        assert!(links.find(&meta(7, 3)).is_none());
        assert_eq!(links.used_bytes, 0);
    }

    #[test]
    fn an_inode_that_changed_is_another_file() {
        let mut links = Links::default();
        assert!(links.remember(&meta(7, 2), b"first", node()));
        let changed = Meta { size: 11, ..meta(7, 2) };
        assert!(links.find(&changed).is_none());
        assert!(links.remember(&changed, b"second", node()));
        assert_eq!(links.find(&changed).map(|(path, _)| path), Some(b"second".to_vec()));
        assert_eq!(links.used_bytes, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut links = Links::default();
        let kept = (0..1_000_000).filter(|inode| links.remember(&meta(*inode, 2), b"some/path", node())).count();
        assert_eq!(kept, LINKS_BYTES_MAX / (ENTRY_BYTES + 9));
    }
}
