//! From plain bytes to stored bytes and back.
//!
//! plain bytes → hash → 1 MiB frames → zstd on the [pool](pool) → *here an encrypting stage fits* → hash → upload.

mod buffers;
mod index;
mod pool;
mod reader;
mod writer;

pub(crate) use index::{FrameIndex, FrameSpan};
pub(crate) use pool::{OwnPlace, Plain, Pool};
pub(crate) use reader::{Layout, read_all, read_range, unpack};
pub(crate) use writer::{StoredArtifact, Writer};

/// Plain bytes in a frame; only an artifact's last one is shorter. 1 MiB costs no ratio against one long stream, and
/// keeps a frame in a core's cache.
pub(crate) const FRAME_BYTES: usize = 1 << 20;

/// The largest plain frame that is read, whoever wrote it: 16 of ours.
pub(crate) const FRAME_BYTES_MAX: u64 = 16 << 20;

/// The zstd level. On dumps, 1 is as small as 3 and twice as fast.
pub(crate) const ZSTD_LEVEL: i32 = 1;

/// Stored bytes in an uploaded part: the least that S3 accepts for any part but the last.
pub(crate) const PART_BYTES: usize = 5 << 20;
