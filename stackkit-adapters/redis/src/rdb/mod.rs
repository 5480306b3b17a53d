//! The RDB file format, sans-IO: bytes in, events out.
//!
//! - [`Reader`] walks a file fed in chunks of any size and reports each record; values are skipped by their layout, never
//!   built, so memory stays at one key plus one chunk whatever the values weigh.
//! - [`Checksum`] verifies magic, end opcode and CRC-64 of any version, known or not.
//! - [`Scan`] is both plus the counts that a census needs.
//! - [`Writer`] and [`append_footer`] produce files and `RESTORE` payloads.
//!
//! Versions [`MIN_VERSION`] to [`MAX_VERSION`] with the magic `REDIS` are understood. Whatever else is met — a type, an
//! opcode, a version, the magic `VALKEY` — is refused by name, because later formats reuse numbers for other layouts.
//!
//! ```
//! use stackkit_redis::rdb::{Event, Reader, Writer};
//!
//! let mut writer = Writer::new(10);
//! writer.select(0).record(0, b"greeting", b"\x05hello");
//! let mut keys = Vec::new();
//! let mut reader = Reader::new();
//! reader.feed(&writer.finish(), &mut |event| {
//!     if let Event::Key(key) = event {
//!         keys.push(key.name.to_vec());
//!     }
//! })?;
//! reader.finish()?;
//! assert_eq!(keys, [b"greeting"]);
//! # Ok::<(), stackkit_redis::rdb::Fault>(())
//! ```
//!
//! Source of every layout: `src/rdb.h` and `src/rdb.c` of Redis 7.0 to 8.0.

mod checksum;
mod fault;
mod input;
mod layout;
mod lzf;
mod reader;
mod scan;
mod writer;

pub use checksum::{Checksum, Header, Seal};
pub use fault::Fault;
pub use layout::{ValueKind, since_version};
pub use reader::{Event, Key, ModuleType, Reader};
pub use scan::{Content, Counts, Scan, Summary, Tally};
pub use writer::{Writer, append_footer};

/// Oldest version read: Redis 2.6. Older files carry no checksum.
pub const MIN_VERSION: u16 = 6;
/// Newest version read: Redis 7.4 to 8.4.
pub const MAX_VERSION: u16 = 12;
/// Longest key, auxiliary field or function library held in memory: the server's own limit for one string
/// (`proto-max-bulk-len`, 512 MiB by default).
pub const MAX_STRING_BYTES: u64 = 512 << 20;
/// Largest value that a restore holds in memory: 1 GiB, the server's `client-query-buffer-limit`, above which it would
/// drop the connection anyway.
pub const MAX_VALUE_BYTES: u64 = 1 << 30;

/// Feeds `data` in uneven chunks to every parser of this module and drops the outcome: the entry for a fuzzer, which
/// looks for panics and runaway memory.
pub fn fuzz(data: &[u8]) {
    let step = usize::from(data.first().copied().unwrap_or(0)) + 1;
    let mut scan = Scan::new();
    if data.chunks(step).try_for_each(|chunk| scan.feed(chunk)).is_ok() {
        let _ = scan.finish();
    }
}
