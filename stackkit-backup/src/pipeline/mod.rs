//! From plain bytes to stored bytes and back.
//!
//! plain bytes → 1 MiB frames → hash and zstd on the [pool](pool) → age, if there are recipients → hash → parts.

mod buffers;
mod index;
mod parts;
mod pool;
mod reader;
mod seal;
mod stored;
mod stored_hash;
mod subtrees;
mod writer;

pub(crate) use index::{FrameIndex, FrameSpan};
pub(crate) use parts::{Parts, Upload};
pub(crate) use pool::{OwnPlace, Plain, Pool};
pub(crate) use reader::{read_all, read_range, unpack};
pub(crate) use stored::{Layout, Stored};
pub(crate) use stored_hash::stored_hash;
use subtrees::{Subtree, Tree};
pub(crate) use writer::{Destination, StoredArtifact, Writer};

/// Plain bytes in a frame; only an artifact's last one is shorter. 1 MiB costs no ratio against one long stream, and
/// keeps a frame in a core's cache.
pub(crate) const FRAME_BYTES: usize = 1 << 20;

/// The largest plain frame that is read, whoever wrote it: 16 of ours.
pub(crate) const FRAME_BYTES_MAX: u64 = 16 << 20;

/// The zstd level. On dumps, 1 is as small as 3 and twice as fast.
pub(crate) const ZSTD_LEVEL: i32 = 1;
