//! Pages of large objects, as `COPY … (FORMAT binary)` writes them. Sans-IO.
//!
//! A row is a count of columns, and for each a length and its bytes: here the object, the page, and its content.

use bytes::{Buf, Bytes, BytesMut};
use stackkit_core::{Error, Result};

/// What a binary copy begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The flags and the length of what may follow them.
const HEADER_BYTES: usize = 8;

/// A piece of a large object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) object: u32,
    pub(super) number: u64,
    pub(super) content: Bytes,
}

/// Reads pages out of a binary copy.
#[derive(Debug, Default)]
pub(super) struct Pages {
    buffer: BytesMut,
    is_open: bool,
}

impl Pages {
    /// Appends bytes of the copy.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next page, if it is whole.
    ///
    /// # Errors
    /// `Unexpected` if the bytes are no copy of pages.
    pub(super) fn next(&mut self) -> Result<Option<Page>> {
        if !self.is_open && !self.open()? {
            return Ok(None);
        }
        let mut rest = &self.buffer[..];
        let Ok(columns) = rest.try_get_i16() else { return Ok(None) };
        match columns {
            -1 => return Ok(None),
            3 => {}
            _ => return Err(unreadable()),
        }
        let (Some(object), Some(number), Some(length)) = (fixed(&mut rest)?, fixed(&mut rest)?, length(&mut rest)?)
        else {
            return Ok(None);
        };
        if rest.len() < length {
            return Ok(None);
        }
        let before = self.buffer.len() - rest.len();
        self.buffer.advance(before);
        let content = self.buffer.split_to(length).freeze();
        Ok(Some(Page { object, number: number.into(), content }))
    }

    /// Reads what comes before the rows, if all of it is there.
    fn open(&mut self) -> Result<bool> {
        let mut rest = &self.buffer[..];
        if rest.len() < SIGNATURE.len() + HEADER_BYTES {
            return Ok(false);
        }
        if !rest.starts_with(SIGNATURE) {
            return Err(unreadable());
        }
        rest.advance(SIGNATURE.len() + 4);
        let Some(extension) = length(&mut rest)?.filter(|length| *length <= rest.len()) else { return Ok(false) };
        let before = self.buffer.len() - rest.len() + extension;
        self.buffer.advance(before);
        self.is_open = true;
        Ok(true)
    }
}

/// A value of four bytes.
fn fixed(rest: &mut &[u8]) -> Result<Option<u32>> {
    match length(rest)? {
        Some(4) => Ok(rest.try_get_u32().ok()),
        Some(_other) => Err(unreadable()),
        None => Ok(None),
    }
}

fn length(rest: &mut &[u8]) -> Result<Option<usize>> {
    let Ok(length) = rest.try_get_i32() else { return Ok(None) };
    usize::try_from(length).map(Some).map_err(|_null| unreadable())
}

fn unreadable() -> Error {
    Error::unexpected("the server's copy of large objects can't be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn copy(pages: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
        let mut out = [SIGNATURE, &[0; HEADER_BYTES]].concat();
        for (object, number, content) in pages {
            out.extend(3_i16.to_be_bytes());
            for value in [object, number] {
                out.extend(4_i32.to_be_bytes());
                out.extend(value.to_be_bytes());
            }
            out.extend(i32::try_from(content.len()).expect("short").to_be_bytes());
            out.extend(content);
        }
        out.extend((-1_i16).to_be_bytes());
        out
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_pages(
            pages in proptest::collection::vec((any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..10),
            piece in 1usize..70,
        ) {
            let (mut reader, mut read) = (Pages::default(), Vec::new());
            for bytes in copy(&pages).chunks(piece) {
                reader.push(bytes);
                while let Some(page) = reader.next().expect("a copy") {
                    read.push((page.object, u32::try_from(page.number).expect("small"), page.content.to_vec()));
                }
            }
            prop_assert_eq!(read, pages);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut reader = Pages::default();
            reader.push(&copy(&[])[..19]);
            reader.push(&bytes);
            while let Ok(Some(_page)) = reader.next() {}
        }
    }
}
