//! The frames of a `COPY … TO STDOUT`. Sans-IO: bytes in, rows out.
//!
//! The server sends one `CopyData` message a row: `d`, a 32-bit length that counts itself, and the row's text with its
//! newline. Here the rows are put one behind the other; nothing is allocated for one of them.

use bytes::BytesMut;
use stackkit_core::{Error, Phase, Result};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The tag of a message that holds a row.
const COPY_DATA: u8 = b'd';

/// A tag and a length.
const HEADER_BYTES: usize = 5;

/// What the bytes come to behind the rows that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// More bytes are needed.
    Bytes,
    /// A message that is no row begins.
    Message,
}

/// Reads rows out of what the server sends.
#[derive(Default)]
pub(crate) struct Frames {
    /// How much of the row under way is still to come.
    left: usize,
    rows: u64,
    hash: Option<RowHash>,
}

/// The sum of the hashes of all rows.
#[derive(Default)]
struct RowHash {
    sum: u64,
    /// The hash of the row under way, if it came in pieces.
    open: Option<Box<Xxh3>>,
}

impl Frames {
    /// Begins before the first row; with `hash` each row is hashed.
    pub(crate) fn new(hash: bool) -> Self {
        Self { left: 0, rows: 0, hash: hash.then(RowHash::default) }
    }

    /// How many rows came.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The sum of the xxh3-64 of each row's bytes, modulo 2^64; it does not depend on their order.
    pub(crate) fn hash(&self) -> Option<u64> {
        self.hash.as_ref().map(|hash| hash.sum)
    }

    /// Appends the rows in `input` to `rows`. Gives how many bytes of `input` it took; those that are left come first the
    /// next time.
    ///
    /// # Errors
    /// `Unexpected` for a length that no message has.
    pub(crate) fn feed(&mut self, input: &[u8], rows: &mut BytesMut) -> Result<(usize, Next)> {
        let mut rest = self.finish_row(input, rows);
        while self.left == 0 {
            let Some((header, body)) = rest.split_at_checked(HEADER_BYTES) else { break };
            let (tag, length) = read_header(header)?;
            if tag != COPY_DATA {
                return Ok((input.len() - rest.len(), Next::Message));
            }
            self.rows += 1;
            match body.split_at_checked(length) {
                Some((row, behind)) => {
                    rows.extend_from_slice(row);
                    if let Some(hash) = &mut self.hash {
                        hash.sum = hash.sum.wrapping_add(xxh3_64(row));
                    }
                    rest = behind;
                }
                None => {
                    self.left = length;
                    rest = self.finish_row(body, rows);
                }
            }
        }
        Ok((input.len() - rest.len(), Next::Bytes))
    }

    /// Takes what `input` has of the row under way, and gives the rest.
    fn finish_row<'a>(&mut self, input: &'a [u8], rows: &mut BytesMut) -> &'a [u8] {
        if self.left == 0 {
            return input;
        }
        let (row, rest) = input.split_at(self.left.min(input.len()));
        rows.extend_from_slice(row);
        self.left -= row.len();
        if let Some(hash) = &mut self.hash {
            hash.open.get_or_insert_with(Box::default).update(row);
            if self.left == 0 {
                let whole = hash.open.take().map_or(0, |open| open.digest());
                hash.sum = hash.sum.wrapping_add(whole);
            }
        }
        rest
    }
}

/// The tag and the length of the body.
fn read_header(header: &[u8]) -> Result<(u8, usize)> {
    let &[tag, a, b, c, d] = header else { return Err(unreadable()) };
    let length = u32::from_be_bytes([a, b, c, d]);
    let body = length.checked_sub(4).filter(|_| i32::try_from(length).is_ok());
    Ok((tag, body.and_then(|body| usize::try_from(body).ok()).ok_or_else(unreadable)?))
}

fn unreadable() -> Error {
    Error::unexpected("the server's answer can't be read").with_phase(Phase::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The messages of these rows, and `c` behind them.
    fn messages(rows: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for row in rows {
            out.push(COPY_DATA);
            out.extend(u32::try_from(row.len() + 4).expect("a short row").to_be_bytes());
            out.extend(row);
        }
        out.extend(b"c\0\0\0\x04");
        out
    }

    /// Feeds `bytes` in pieces of these lengths, over and over.
    fn fed(bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, u64, Option<u64>, Vec<u8>) {
        let (mut frames, mut rows, mut input) = (Frames::new(true), BytesMut::new(), Vec::new());
        let (mut rest, mut next) = (bytes, Next::Bytes);
        for piece in pieces.iter().cycle() {
            let (head, behind) = rest.split_at((*piece).min(rest.len()));
            input.extend_from_slice(head);
            rest = behind;
            let (used, then) = frames.feed(&input, &mut rows).expect("good frames");
            input.drain(..used);
            next = then;
            if next == Next::Message || rest.is_empty() {
                break;
            }
        }
        assert_eq!(next, Next::Message);
        input.extend_from_slice(rest);
        (rows.to_vec(), frames.rows(), frames.hash(), input)
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for bytes in [b"d\0\0\0\x03", b"d\xff\xff\xff\xff"] {
            assert!(Frames::new(false).feed(bytes, &mut BytesMut::new()).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            pieces in proptest::collection::vec(1usize..400, 1..20),
        ) {
            let bytes = messages(&rows);
            let sum = rows.iter().fold(0_u64, |sum, row| sum.wrapping_add(xxh3_64(row)));
            let expected = (rows.concat(), rows.len() as u64, Some(sum), b"c\0\0\0\x04".to_vec());
            let (text, count, hash, mut behind) = fed(&bytes, &pieces);
            behind.truncate(5);
            prop_assert_eq!((text, count, hash, behind), expected);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _fed = Frames::new(true).feed(&bytes, &mut BytesMut::new());
        }
    }
}
