//! SQL text as a stream of statements, and rows between them.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use stackkit_core::{Error, Result};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::scanner::{Scanner, Statement};
use crate::archive::Input;

/// The line that ends rows.
const END: [&[u8]; 2] = [b"\\.\n", b"\\.\r\n"];

/// SQL text with rows in it.
pub(crate) struct Text {
    input: Input,
    scanner: Scanner,
    /// Whether the next byte of rows begins a line, and whether they ended.
    at_line: bool,
    is_ended: bool,
}

impl Text {
    pub(super) fn of(text: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::new(Input::new(Box::new(text), 0))
    }

    pub(crate) fn new(input: Input) -> Self {
        Self { input, scanner: Scanner::default(), at_line: true, is_ended: false }
    }

    /// The next statement; nothing at the end of the text.
    pub(crate) async fn statement(&mut self) -> Result<Option<Statement>> {
        loop {
            let (mut used, mut found) = (0, None);
            for byte in self.input.buffered() {
                used += 1;
                found = self.scanner.push(*byte)?;
                if found.is_some() {
                    break;
                }
            }
            self.input.consume(used);
            if found.is_some() {
                return Ok(found);
            }
            if !self.input.more().await? {
                self.scanner.finish()?;
                return Ok(None);
            }
        }
    }

    /// Reads all of it, and tells how many statements it has.
    ///
    /// # Errors
    /// What `import_sql` would refuse without having asked the server.
    pub(crate) async fn check(mut self) -> Result<u64> {
        let mut statements = 0;
        while let Some(statement) = self.statement().await? {
            statements += 1;
            if statement.has_rows {
                self.end_line().await?;
                while self.rows().await?.is_some() {}
            }
        }
        match statements {
            0 => Err(Error::integrity("the text has no statement")),
            _ => Ok(statements),
        }
    }

    /// Goes to the line on which rows begin.
    pub(super) async fn end_line(&mut self) -> Result<()> {
        loop {
            match self.input.byte().await? {
                Some(b'\n') => break,
                Some(byte) if byte.is_ascii_whitespace() => {}
                _ => return Err(self.bad("rows must begin on a line of their own")),
            }
        }
        self.scanner.pass_lines(1);
        (self.at_line, self.is_ended) = (true, false);
        Ok(())
    }

    fn bad(&self, message: &str) -> Error {
        Error::integrity(message).with_context("line", self.scanner.line())
    }

    /// The rows up to the line that ends them.
    pub(super) fn reader(&mut self) -> impl AsyncRead + Send + Unpin + '_ {
        let rows = stream::try_unfold(self, |text| async move {
            let piece = text.rows().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(piece.map(|piece| (piece, text)))
        });
        StreamReader::new(Box::pin(rows))
    }

    /// The next whole or partial rows; nothing behind the last.
    async fn rows(&mut self) -> Result<Option<Bytes>> {
        while !self.is_ended {
            let (rows, end) = split(self.input.buffered(), self.at_line);
            if rows > 0 {
                let piece = self.input.exact(rows).await?;
                self.pass(&piece);
                return Ok(Some(piece));
            }
            if let Some(end) = end {
                let end = self.input.exact(end).await?;
                self.pass(&end);
                self.is_ended = true;
            } else if !self.input.more().await? {
                return Err(self.bad("the text ends inside of rows"));
            }
        }
        Ok(None)
    }

    fn pass(&mut self, piece: &[u8]) {
        self.at_line = piece.last() == Some(&b'\n');
        let lines = piece.iter().fold(0, |lines, byte| lines + u64::from(*byte == b'\n'));
        self.scanner.pass_lines(lines);
    }
}

/// How many bytes of rows there are, and how many the line that ends them has, if it follows them.
fn split(bytes: &[u8], mut at_line: bool) -> (usize, Option<usize>) {
    let mut rows = 0;
    while rows < bytes.len() {
        let rest = &bytes[rows..];
        if at_line {
            if let Some(end) = END.iter().find(|end| rest.starts_with(end)) {
                return (rows, Some(end.len()));
            }
            if END.iter().any(|end| end.starts_with(rest)) {
                break;
            }
        }
        let line = rest.iter().position(|byte| *byte == b'\n');
        rows += line.map_or(rest.len(), |at| at + 1);
        at_line = line.is_some();
    }
    (rows, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_end_at_their_own_line_only() {
        assert_eq!(split(b"a\n\\.\nselect", true), (2, Some(3)));
        assert_eq!(split(b"\\.\r\n", true), (0, Some(4)));
        assert_eq!(split(b"\\.\n", false), (3, None));
        assert_eq!(split(b"a\n\\.", true), (2, None));
        assert_eq!(split(b"a\\.\n\\.x\n", true), (8, None));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(rows in "([a-z\\\\.]{0,5}\n){0,6}", piece in 1usize..7) {
            prop_assume!(!rows.lines().any(|line| line == "\\."));
            let text = format!("COPY t FROM stdin;\n{rows}\\.\nselect 1;");
            let pieces: Vec<_> = text.as_bytes().chunks(piece).map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece))).collect();
            let input = Input::new(Box::new(StreamReader::new(stream::iter(pieces))), 0);
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let read = runtime.block_on(async {
                let mut text = Text::new(input);
                let copy = text.statement().await.expect("SQL").expect("a copy");
                assert!(copy.has_rows);
                text.end_line().await.expect("a line");
                let mut read = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut text.reader(), &mut read).await.expect("rows");
                let last = text.statement().await.expect("SQL").expect("a statement");
                (read, last)
            });
            prop_assert_eq!(read.0, rows.as_bytes());
            prop_assert_eq!(read.1.line, 3 + rows.lines().count() as u64);
        }
    }
}
