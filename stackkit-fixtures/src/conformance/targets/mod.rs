//! The stores of this workspace as targets of the suite.

mod memory;

pub use memory::memory;

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
