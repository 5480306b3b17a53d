//! Headers of tar files: those of `pg_dump --format=tar` are read, those of small tables and large objects are written.
//!
//! POSIX ustar; a size of 8 GiB or more is a binary number, as GNU tar and the vendor write it.

use std::collections::HashMap;

use stackkit_core::{Error, Result};

use super::input::{Input, cut};

/// A header, and what every member is filled up to.
pub(crate) const BLOCK_BYTES: usize = 512;

/// Where the fields of a header are.
const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const MAGIC: std::ops::Range<usize> = 257..263;
const KIND: usize = 156;

/// The largest size that eleven octal digits hold.
const OCTAL_MAX: u64 = 0o777_7777_7777;

/// How many members are believed: more than tables and large objects that anybody keeps in a tar file.
const MEMBERS_MAX: usize = 50_000_000;

/// The header of a plain file.
///
/// # Errors
/// `Unexpected` if the name is longer than the field for it.
pub(crate) fn header(name: &str, bytes: u64) -> Result<[u8; BLOCK_BYTES]> {
    if name.len() > NAME.len() {
        return Err(Error::unexpected("the name of a file in an archive is too long").with_context("file", name));
    }
    let mut out = [0; BLOCK_BYTES];
    let mut put = |at: usize, value: &[u8]| {
        for (slot, byte) in out.iter_mut().skip(at).zip(value) {
            *slot = *byte;
        }
    };
    put(NAME.start, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    match bytes {
        ..=OCTAL_MAX => put(SIZE.start, format!("{bytes:011o}\0").as_bytes()),
        _ => {
            put(SIZE.start, &[0x80]);
            put(SIZE.end - 8, &bytes.to_be_bytes());
        }
    }
    put(136, b"00000000000\0");
    put(CHECKSUM.start, b"        ");
    put(KIND, b"0");
    put(MAGIC.start, b"ustar\x0000");
    let sum: u32 = out.iter().map(|byte| u32::from(*byte)).sum();
    for (slot, byte) in out.iter_mut().skip(CHECKSUM.start).zip(format!("{sum:06o}\0 ").bytes()) {
        *slot = byte;
    }
    Ok(out)
}

/// How many bytes fill a member of `bytes` up.
pub(crate) fn padding(bytes: u64) -> usize {
    let over = usize::try_from(bytes % BLOCK_BYTES as u64).unwrap_or_default();
    (BLOCK_BYTES - over) % BLOCK_BYTES
}

/// Whether the bytes begin a tar file.
pub(crate) fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(MAGIC).is_some_and(|magic| magic.starts_with(b"ustar"))
}

/// Name and size that a header tells; nothing if it is the mark of the end.
///
/// # Errors
/// `Integrity` if it is no header.
pub(crate) fn parse(block: &[u8]) -> Result<Option<(String, u64)>> {
    let bad = || Error::integrity("a header of the tar file is damaged");
    if block.len() != BLOCK_BYTES {
        return Err(bad());
    }
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let sum = (0..).zip(block).map(|(at, byte)| if CHECKSUM.contains(&at) { 32 } else { u64::from(*byte) }).sum();
    if number(&block[CHECKSUM]) != Some(sum) {
        return Err(bad());
    }
    let name = block[NAME].split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_not_utf8| bad())?;
    Ok(Some((name.to_owned(), number(&block[SIZE]).ok_or_else(bad)?)))
}

fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, rest)) = field.split_first() {
        let (high, low) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
        let is_small = high.iter().all(|byte| *byte == 0);
        return is_small.then(|| low.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

/// The longest extended header that is believed: it holds a size and a name.
const EXTENDED_BYTES_MAX: u64 = 64 * 1024;

/// The next file: its name, and how many bytes follow; nothing at the end. What an extended header of pax says of it
/// goes first.
///
/// # Errors
/// `Integrity` if there is no header.
pub(crate) async fn member(input: &mut Input) -> Result<Option<(String, u64)>> {
    let (mut long_name, mut long_size) = (None, None);
    loop {
        let block = input.exact(BLOCK_BYTES).await?;
        let Some((name, bytes)) = parse(&block)? else { return Ok(None) };
        if block.get(KIND) != Some(&b'x') {
            return Ok(Some((long_name.unwrap_or(name), long_size.unwrap_or(bytes))));
        }
        let length = usize::try_from(bytes.min(EXTENDED_BYTES_MAX)).unwrap_or_default();
        let records = input.exact(length + padding(bytes)).await?;
        let records = String::from_utf8_lossy(&records);
        let value = |key: &str| {
            let find =
                |line: &str| line.split_once(' ').and_then(|(_, pair)| pair.strip_prefix(key)).map(str::to_owned);
            records.lines().find_map(find)
        };
        long_name = value("path=").or(long_name);
        long_size = value("size=").and_then(|size| size.parse().ok()).or(long_size);
    }
}

/// Where each member is: name, place of its bytes, how many.
///
/// # Errors
/// `Integrity` if the file is damaged, or ends inside of a member.
pub(super) async fn index(mut input: Input) -> Result<HashMap<String, (u64, u64)>> {
    let mut members = HashMap::new();
    loop {
        let block = input.exact(BLOCK_BYTES).await?;
        let Some((name, bytes)) = parse(&block)? else { return Ok(members) };
        if members.len() >= MEMBERS_MAX {
            return Err(Error::integrity("the tar file has impossibly many members"));
        }
        members.insert(name, (input.position(), bytes));
        let mut left = bytes.checked_add(padding(bytes) as u64).ok_or_else(cut)?;
        while left > 0 {
            left -= input.piece(left).await?.ok_or_else(cut)?.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_what_tar_writes() {
        let block = header("7.dat", 1234).expect("a header");
        assert_eq!(&block[..6], b"7.dat\0");
        assert_eq!(&block[SIZE], b"00000002322\0");
        assert_eq!(&block[257..265], b"ustar\x0000");
        let sum: u32 = (0..).zip(&block).map(|(at, b)| if CHECKSUM.contains(&at) { 32 } else { u32::from(*b) }).sum();
        assert_eq!(&block[CHECKSUM], format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(header("1.dat", 1 << 40).expect("a header")[SIZE.start], 0x80);
        assert!(header(&"x".repeat(101), 0).is_err());
    }

    proptest! {
        #[test]
        fn headers_are_read_as_written(oid in any::<u32>(), bytes in any::<u64>()) {
            let name = format!("blob_{oid}.dat");
            let block = header(&name, bytes).expect("a header");
            prop_assert!(is_tar(&block));
            prop_assert_eq!(parse(&block).expect("a header"), Some((name, bytes)));
        }

        #[test]
        fn damage_is_told(at in 0..BLOCK_BYTES, by in 1u8..255) {
            let mut block = header("blob_1.dat", 7).expect("a header");
            block[at] = block[at].wrapping_add(by);
            let is_checksum = CHECKSUM.contains(&at);
            prop_assert!(is_checksum || parse(&block).is_err());
        }

        #[test]
        fn members_fill_blocks(bytes in any::<u64>()) {
            prop_assert_eq!((u128::from(bytes) + padding(bytes) as u128) % 512, 0);
        }
    }
}
