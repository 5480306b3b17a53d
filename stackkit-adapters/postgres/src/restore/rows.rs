//! The rows of a table on their way from an artifact to the server: what ends them is taken off.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use stackkit_core::{Error, Result};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// The line that ends the rows of a data file.
const END: &[u8] = b"\\.";

/// How much of the end is held back to find it: a line break, the end mark, and the empty lines that `pg_dump` writes
/// after it, with room for those of other writers.
const TAIL_BYTES: usize = 16;

/// How much is read at a time: as much as a message to the server holds.
const READ_BYTES: usize = 256 * 1024;

/// Finds the end mark in pieces of a data file. Sans-IO.
#[derive(Debug)]
pub(crate) struct Rows {
    /// What may belong to the end mark.
    held: BytesMut,
    /// Whether this piece of the file is one that ends with it.
    has_end: bool,
    /// Whether what is held begins a line.
    at_line: bool,
}

impl Rows {
    /// The rows of a piece of a data file; `has_end` for the last piece.
    pub(crate) fn new(has_end: bool) -> Self {
        Self { held: BytesMut::new(), has_end, at_line: true }
    }

    /// Takes the next bytes, gives those that are surely rows.
    pub(crate) fn push(&mut self, bytes: Bytes) -> [Bytes; 2] {
        if !self.has_end {
            return [bytes, Bytes::new()];
        }
        if bytes.len() < TAIL_BYTES {
            self.held.extend_from_slice(&bytes);
            let keep = self.held.len().min(TAIL_BYTES);
            let first = self.held.split_to(self.held.len() - keep).freeze();
            self.note(&first);
            return [first, Bytes::new()];
        }
        let first = self.held.split().freeze();
        let mut second = bytes;
        self.held.extend_from_slice(&second.split_off(second.len() - TAIL_BYTES));
        self.note(&first);
        self.note(&second);
        [first, second]
    }

    /// Ends the file: gives its last rows.
    ///
    /// # Errors
    /// `Integrity` without an end mark: the file was cut.
    pub(crate) fn finish(self) -> Result<Bytes> {
        if !self.has_end {
            return Ok(Bytes::new());
        }
        let mut rows = self.held.freeze();
        let end = rows.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
        rows.truncate(end);
        let start = rows.len().checked_sub(END.len()).filter(|start| rows[*start..] == *END);
        match start {
            Some(0) if self.at_line => Ok(Bytes::new()),
            Some(start) if start > 0 && rows[start - 1] == b'\n' => {
                rows.truncate(start);
                Ok(rows)
            }
            _ => Err(Error::integrity("the data of a table does not end with its end mark")),
        }
    }

    fn note(&mut self, passed: &Bytes) {
        if let Some(last) = passed.last() {
            self.at_line = *last == b'\n';
        }
    }
}

/// Reads the rows of a piece of a data file.
pub(crate) struct RowReader<R> {
    inner: R,
    rows: Option<Rows>,
    /// What was read and not yet handed on.
    ready: [Bytes; 2],
}

impl<R> RowReader<R> {
    /// The rows of the piece that `inner` gives; `has_end` for the last piece of the file.
    pub(crate) fn new(inner: R, has_end: bool) -> Self {
        Self { inner, rows: Some(Rows::new(has_end)), ready: Default::default() }
    }

    /// What the rows were read from.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for RowReader<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(piece) = self.ready.iter_mut().find(|piece| !piece.is_empty()) {
                let piece = piece.split_to(piece.len().min(out.remaining()));
                out.put_slice(&piece);
                return Poll::Ready(Ok(()));
            }
            if self.rows.is_none() {
                return Poll::Ready(Ok(()));
            }
            let mut chunk = BytesMut::with_capacity(READ_BYTES);
            match std::task::ready!(poll_read_buf(Pin::new(&mut self.inner), cx, &mut chunk))? {
                0 => {
                    let last = self.rows.take().map(Rows::finish).transpose().map_err(io::Error::other)?;
                    self.ready[0] = last.unwrap_or_default();
                }
                _some => {
                    let ready = self.rows.as_mut().map(|rows| rows.push(chunk.freeze()));
                    self.ready = ready.unwrap_or_default();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows_of(file: &[u8], piece: usize) -> Result<Vec<u8>> {
        let (mut rows, mut out) = (Rows::new(true), Vec::new());
        for piece in file.chunks(piece) {
            rows.push(Bytes::copy_from_slice(piece)).iter().for_each(|piece| out.extend_from_slice(piece));
        }
        out.extend_from_slice(&rows.finish()?);
        Ok(out)
    }

    #[test]
    fn a_file_without_its_end_is_refused() {
        for file in ["", "1\n", "1\n\\", "1\\.\n\n\n", "1\n\\.x\n"] {
            assert!(rows_of(file.as_bytes(), 7).is_err(), "{file:?}");
        }
        assert_eq!(rows_of(b"\\.\n\n\n", 3).expect("no rows"), b"");
        assert_eq!(rows_of(b"\n\n\\.\n\n\n", 1).expect("two empty rows"), b"\n\n");
    }

    proptest! {
        #[test]
        fn rows_come_out_whole(lines in proptest::collection::vec("[a-z\t\\\\N.]{0,40}", 0..30), piece in 1usize..200) {
            let lines: Vec<&String> = lines.iter().filter(|line| *line != "\\.").collect();
            let rows: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let file = format!("{rows}\\.\n\n\n");
            prop_assert_eq!(rows_of(file.as_bytes(), piece).expect("an end"), rows.as_bytes());
        }
    }
}
