//! The 512-byte ustar header block.

use super::{BLOCK_BYTES, Fault};

/// Type flags (POSIX; `L`, `K`, `S`, `M`, `V`, `D`, `N` are GNU's).
pub(super) mod flag {
    pub(in super::super) const FILE: u8 = b'0';
    pub(in super::super) const FILE_V7: u8 = 0;
    pub(in super::super) const HARD_LINK: u8 = b'1';
    pub(in super::super) const SYMLINK: u8 = b'2';
    pub(in super::super) const CHARACTER: u8 = b'3';
    pub(in super::super) const BLOCK: u8 = b'4';
    pub(in super::super) const DIRECTORY: u8 = b'5';
    pub(in super::super) const FIFO: u8 = b'6';
    pub(in super::super) const CONTIGUOUS: u8 = b'7';
    pub(in super::super) const PAX: u8 = b'x';
    pub(in super::super) const PAX_GLOBAL: u8 = b'g';
    pub(in super::super) const GNU_LONG_NAME: u8 = b'L';
    pub(in super::super) const GNU_LONG_LINK: u8 = b'K';
    pub(in super::super) const GNU_SPARSE: u8 = b'S';
}

/// The longest name in the `name` and `linkname` fields, in bytes.
pub(super) const NAME_BYTES: usize = 100;

/// The largest number in a field of eight bytes: seven octal digits.
pub(super) const SMALL_MAX: u64 = 0o777_7777;

/// The largest number in a field of twelve bytes: eleven octal digits.
pub(super) const LARGE_MAX: u64 = 0o777_7777_7777;

const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const DEVICES: [std::ops::Range<usize>; 2] = [329..337, 337..345];
const PREFIX: std::ops::Range<usize> = 345..500;

/// The fields of a header block. Numbers that do not fit are written as 0; a PAX record then carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) flag: u8,
}

impl Header {
    /// Appends the block. Names are cut at 100 bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut block = [0u8; BLOCK_BYTES];
        put_text(&mut block[NAME], &self.name);
        put_text(&mut block[LINK], &self.link);
        put_octal(&mut block[MODE], u64::from(self.mode & 0o7777));
        put_octal(&mut block[UID], self.uid);
        put_octal(&mut block[GID], self.gid);
        put_octal(&mut block[SIZE], self.size);
        put_octal(&mut block[MTIME], u64::try_from(self.mtime).unwrap_or(0));
        block[FLAG] = self.flag;
        block[MAGIC].copy_from_slice(b"ustar\x0000");
        for field in DEVICES {
            put_octal(&mut block[field], 0);
        }
        let sum = checksum(&block);
        put_octal(&mut block[CHECKSUM.start..CHECKSUM.end - 1], sum);
        block[CHECKSUM.end - 1] = b' ';
        out.extend_from_slice(&block);
    }

    /// Reads a block that is not all zeros.
    pub(super) fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, Fault> {
        if number(&block[CHECKSUM]) != Ok(i128::from(checksum(block))) {
            return Err(Fault::Checksum);
        }
        let unsigned = |field| u64::try_from(number(&block[field])?).map_err(|_out_of_range| Fault::Number);
        let mut name = text(&block[NAME]).to_vec();
        // GNU's own magic is "ustar  \0", and its headers use the bytes of `prefix` for other fields.
        let prefix = text(&block[PREFIX]);
        if block[MAGIC].starts_with(b"ustar\0") && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        Ok(Self {
            name,
            link: text(&block[LINK]).to_vec(),
            mode: u32::try_from(unsigned(MODE)? & 0o7777).map_err(|_out_of_range| Fault::Number)?,
            uid: unsigned(UID)?,
            gid: unsigned(GID)?,
            size: unsigned(SIZE)?,
            mtime: i64::try_from(number(&block[MTIME])?).map_err(|_out_of_range| Fault::Number)?,
            flag: block[FLAG],
        })
    }
}

/// The sum of all bytes, those of the checksum itself counted as spaces.
fn checksum(block: &[u8; BLOCK_BYTES]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(block) - sum(&block[CHECKSUM]) + 8 * u64::from(b' ')
}

fn put_text(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Octal digits and a closing NUL; 0 where the number does not fit.
fn put_octal(field: &mut [u8], value: u64) {
    let Some((last, digits)) = field.split_last_mut() else { return };
    *last = 0;
    let fits = 3 * digits.len() >= 64 || value >> (3 * digits.len()) == 0;
    let mut rest = if fits { value } else { 0 };
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest & 7).to_le_bytes()[0];
        rest >>= 3;
    }
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// Octal digits between spaces and NULs, or GNU's base 256: first bit set, big-endian two's complement.
fn number(field: &[u8]) -> Result<i128, Fault> {
    let first = *field.first().ok_or(Fault::Number)?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start = if negative { -1 } else { i128::from(first & 0x3f) };
        return Ok(field[1..].iter().fold(start, |value, byte| (value << 8) | i128::from(*byte)));
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = field[start..].split(blank).next().unwrap_or_default();
    digits.iter().try_fold(0i128, |value, digit| match digit {
        b'0'..=b'7' => Ok(value * 8 + i128::from(digit - b'0')),
        _ => Err(Fault::Number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            name: b"./a".to_vec(),
            link: Vec::new(),
            mode: 0o4755,
            uid: 1000,
            gid: SMALL_MAX,
            size: LARGE_MAX,
            mtime: 1,
            flag: flag::FILE,
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut out = Vec::new();
        header().encode(&mut out);
        let block = <[u8; BLOCK_BYTES]>::try_from(out.as_slice()).unwrap();
        assert_eq!(Header::decode(&block).unwrap(), header());
    }

    #[test]
    fn a_flipped_bit_breaks_the_checksum() {
        let mut out = Vec::new();
        header().encode(&mut out);
        let mut block = <[u8; BLOCK_BYTES]>::try_from(out.as_slice()).unwrap();
        block[3] ^= 1;
        assert_eq!(Header::decode(&block), Err(Fault::Checksum));
    }

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]), Ok(0x0200_0000));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert_eq!(number(b"12x\0"), Err(Fault::Number));
    }
}
