//! Positions in the WAL, and the names of the files that hold them.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// The smallest and the largest segment that `initdb --wal-segsize` allows: 1 MiB and 1 GiB.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// A position in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub(crate) u64);

impl Lsn {
    /// Reads `16/B374D848`: two hexadecimal halves of 32 bits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
        Some(Self(half(high)? << 32 | half(low)?))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a position in the WAL"))
    }
}

/// Whether a server can have segments of this size.
pub(crate) fn is_segment_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes)
}

/// Whether `name` is that of a segment: timeline and number in 24 hexadecimal digits.
pub(crate) fn is_segment(name: &[u8]) -> bool {
    name.len() == 24 && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

/// The names of the segments that hold the bytes from `start` up to `end`; nothing if there are none.
/// `XLogFileName` in `access/xlog_internal.h`.
pub(crate) fn segments(timeline: u32, start: Lsn, end: Lsn, segment_bytes: u64) -> impl Iterator<Item = String> {
    let a_file_id = (1 << 32) / segment_bytes;
    let numbers = start.0 / segment_bytes..end.0.div_ceil(segment_bytes);
    numbers.map(move |number| format!("{timeline:08X}{:08X}{:08X}", number / a_file_id, number % a_file_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_print() {
        for text in ["0/2000028", "16/B374D848", "0/0"] {
            assert_eq!(Lsn::parse(text).expect(text).to_string(), text);
        }
        assert_eq!((Lsn::parse("0"), Lsn::parse("g/0"), Lsn::parse("0/123456789")), (None, None, None));
    }

    #[test]
    fn segments_cover_the_range() {
        let names = |start, end| {
            let lsn = |text| Lsn::parse(text).expect("a position");
            segments(1, lsn(start), lsn(end), 16 << 20).collect::<Vec<_>>()
        };
        assert_eq!(names("0/2000028", "0/2000100"), ["000000010000000000000002"]);
        assert_eq!(names("0/2000028", "0/3000000"), ["000000010000000000000002"], "the end is not part of it");
        let over = ["0000000100000000000000FF", "000000010000000100000000"];
        assert_eq!(names("0/FF000028", "1/28"), over);
        assert!(is_segment(over[0].as_bytes()) && !is_segment(b"00000002.history"));
    }
}
