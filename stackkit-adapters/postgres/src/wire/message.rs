//! The server's messages beside rows of a copy. Sans-IO.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use bytes::{Buf, Bytes, BytesMut};
use stackkit_core::{Error, Phase, Result};

use super::Row;
use crate::error::Reply;

/// A tag and a length.
const HEADER_BYTES: usize = 5;

/// What the server says.
#[derive(Debug)]
pub(crate) enum Message {
    /// A row of a query.
    Row(Row),
    /// A statement ended well; its tag, such as `COPY 5`.
    Complete(String),
    /// A copy begins that the server sends.
    CopyOut,
    /// A copy begins that the server takes.
    CopyIn,
    /// An error; the rest of the statements is not run.
    Error(Reply),
    /// The server waits for the next query.
    Ready,
    /// Nothing that matters here: a notice, a setting, the columns of a query, the end of a copy's rows.
    Other,
}

/// Takes the first message out of `input`, if it is whole.
///
/// # Errors
/// `Unexpected` if the bytes are no message.
pub(crate) fn take(input: &mut BytesMut) -> Result<Option<Message>> {
    let &[tag, a, b, c, d, ..] = &input[..] else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes([a, b, c, d])).ok().filter(|length| *length >= 4);
    let length = length.ok_or_else(unreadable)?;
    if input.len() <= length {
        return Ok(None);
    }
    let mut body = input.split_to(length + 1).freeze();
    body.advance(HEADER_BYTES);
    read(tag, body).map(Some)
}

fn read(tag: u8, body: Bytes) -> Result<Message> {
    Ok(match tag {
        b'D' => Message::Row(row(body).ok_or_else(unreadable)?),
        b'C' => Message::Complete(String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).into_owned()),
        b'H' => Message::CopyOut,
        b'G' => Message::CopyIn,
        b'E' => Message::Error(reply(&body)),
        b'Z' => Message::Ready,
        b'N' | b'S' | b'A' | b'T' | b'I' | b'c' | b'n' => Message::Other,
        _ => return Err(unreadable()),
    })
}

/// The values of a row: a count, and for each a length, -1 for NULL, and its bytes.
fn row(mut body: Bytes) -> Option<Row> {
    let count = usize::from(body.try_get_u16().ok()?);
    let mut row = Vec::with_capacity(count);
    for _column in 0..count {
        let length = body.try_get_i32().ok()?;
        let value = match usize::try_from(length) {
            Ok(length) if length <= body.len() => Some(body.split_to(length)),
            Ok(_too_long) => return None,
            Err(_null) => None,
        };
        row.push(value);
    }
    Some(row)
}

/// The fields of an error: a letter and a text each.
fn reply(body: &[u8]) -> Reply {
    let mut reply = Reply::default();
    for field in body.split(|byte| *byte == 0) {
        let Some((letter, text)) = field.split_first() else { continue };
        let text = || String::from_utf8_lossy(text).into_owned();
        match letter {
            b'C' => reply.code = text(),
            b'M' => reply.message = text(),
            b'D' => reply.detail = text(),
            b'W' => reply.place = text(),
            _ => {}
        }
    }
    reply
}

fn unreadable() -> Error {
    Error::unexpected("the server's answer can't be read").with_phase(Phase::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(tag: u8, body: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(&[tag][..]);
        out.extend(i32::try_from(body.len() + 4).expect("a short body").to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn errors_and_rows_are_read() {
        let mut input = message(b'E', b"SERROR\0C42P01\0Mno such table\0\0");
        input.extend_from_slice(&message(b'D', b"\0\x02\0\0\0\x01x\xff\xff\xff\xff"));
        let Ok(Some(Message::Error(reply))) = take(&mut input) else { panic!("an error") };
        assert_eq!((reply.code.as_str(), reply.message.as_str()), ("42P01", "no such table"));
        let Ok(Some(Message::Row(row))) = take(&mut input) else { panic!("a row") };
        assert_eq!(row, [Some(Bytes::from_static(b"x")), None]);
        assert!(matches!(take(&mut input), Ok(None)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_message)) = take(&mut input) {}
        }
    }
}
