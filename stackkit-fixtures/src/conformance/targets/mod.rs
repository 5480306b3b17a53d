//! The stores of this workspace as targets of the suite.

mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "volume")]
mod volume;

pub use memory::memory;
#[cfg(feature = "postgres")]
pub use postgres::postgres;
#[cfg(feature = "redis")]
pub use redis::redis;
#[cfg(feature = "volume")]
pub use volume::volume;

/// How long a vendor's tool may read an artifact of the suite.
#[cfg(any(feature = "postgres", feature = "redis", feature = "volume"))]
const VENDOR_TOOL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// The size of the largest value that the small seed writes: dumps then take several writes, and pipes fill.
const LARGE_VALUE_BYTES: usize = 256 * 1024;

/// Bytes that repeat late and hold every value, the same each time.
fn pattern(length: usize) -> Vec<u8> {
    // A multiplicative sequence mod a prime above 256 has no short period in its low byte.
    let mut state: u32 = 1;
    std::iter::repeat_with(|| {
        state = state * 48_271 % 65_521;
        state.to_le_bytes()[0]
    })
    .take(length)
    .collect()
}

/// Text from all parts of Unicode: several scripts, a character beyond the basic plane, combining marks, right to
/// left, a control character, quotes of SQL and shells.
const UNICODE: [&str; 6] =
    ["Grüße, Ωmega", "日本語のテキスト", "😀🏳️‍🌈", "e\u{301}", "שלום\u{200f}", "tab\tquote'\"\\$`;--"];
