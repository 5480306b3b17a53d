//! Which inodes were met already: files with several names.

use std::collections::HashMap;

use super::Meta;

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
}

impl Links {
    /// The first name of the inode and its node, if it was met before.
    pub(crate) fn find(&mut self, meta: &Meta) -> Option<(Vec<u8>, Node)> {
        if meta.links < 2 {
            return None;
        }
        let known = self.known.get_mut(&meta.identity())?;
        known.names_left = known.names_left.saturating_sub(1);
        let found = (known.path.clone(), known.node);
        if known.names_left == 0 {
            self.used_bytes -= known.path.len() + ENTRY_BYTES;
            self.known.remove(&meta.identity());
        }
        Some(found)
    }

    /// Remembers the first name of an inode that has more of them. Whether there was room.
    pub(crate) fn remember(&mut self, meta: &Meta, path: &[u8], node: Node) -> bool {
        if meta.links < 2 {
            return true;
        }
        let bytes = path.len() + ENTRY_BYTES;
        if self.used_bytes + bytes > LINKS_BYTES_MAX {
            return false;
        }
        self.used_bytes += bytes;
        let known = Known { path: path.to_vec(), node, names_left: meta.links - 1 };
        self.known.insert(meta.identity(), known);
        true
    }
}
