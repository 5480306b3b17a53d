//! SQL text, as `pg_dump` writes it without a format: run statement by statement into a new database.

mod scanner;

use std::io;

use bytes::Bytes;
use futures_util::stream;
use stackkit_core::backup::OldData;
use stackkit_core::{Clock, Error, ErrorKind, Result};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::archive::Input;
use crate::plan::{OLD_MARK, STAGING_MARK, STAMP};
use crate::service::Postgres;
use crate::sql::suffixed;
use crate::swap::Swap;
use crate::target;
use crate::wire::Wire;
use scanner::{Scanner, Statement};

/// The line that ends rows.
const END: [&[u8]; 2] = [b"\\.\n", b"\\.\r\n"];

/// How the new database is created: without what somebody put into the usual template.
const OPTIONS: &str = " WITH TEMPLATE = template0";

/// Says that the caller knows who wrote the text: all of it is run with the rights of the role that imports, and a
/// superuser's SQL can run programs on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedSql;

/// What a run of SQL text came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SqlReport {
    /// The database that was made.
    pub database: String,
    /// How many statements were run.
    pub statements: u64,
    /// How many rows were copied.
    pub rows: u64,
}

impl Postgres {
    /// Runs SQL text into the configured database, which must not exist: it is filled under another name, and gets its
    /// own only when every statement succeeded. What else happened to the server, roles that the text makes for one, stays.
    ///
    /// Nothing of `psql` is understood: `\restrict` and `\unrestrict` are passed over, every other backslash command
    /// is refused. One statement is in memory at a time, and of rows a few KiB.
    ///
    /// ```no_run
    /// # async fn example(file: tokio::fs::File) -> stackkit_core::Result<()> {
    /// use stackkit_postgres::{Postgres, TrustedSql};
    /// let report = Postgres::from_url("postgres://admin@localhost/new_shop")?.import_sql(file, TrustedSql).await?;
    /// println!("{} statements", report.statements);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `AlreadyExists` if there is a database of that name; `Unsupported` for a backslash command and for a statement of
    /// more than 64 MiB; `Integrity` for text that ends inside of a statement; the server's, with the line on which the
    /// statement begins. On every error the new database is dropped.
    ///
    /// # Cancel safety
    /// A dropped future leaves the database under its other name, which `recover` drops.
    pub async fn import_sql(
        &self,
        text: impl AsyncRead + Send + Unpin + 'static,
        _trusted: TrustedSql,
    ) -> Result<SqlReport> {
        let named = self.named("import");
        self.import_text(Text::new(Input::new(Box::new(text), 0))).await.map_err(&named)
    }

    async fn import_text(&self, mut text: Text) -> Result<SqlReport> {
        let database = self.config().database.as_str();
        let admin = target::open_admin(self.config()).await?;
        if target::find(&admin, database).await?.is_some() {
            let error = Error::new(ErrorKind::AlreadyExists, "SQL text is only run into a new database");
            return Err(error.with_context("database", database));
        }
        let stamp = Clock::system().now().strftime(STAMP).to_string();
        let staging = suffixed(database, &format!("{STAGING_MARK}{stamp}"));
        let kept_as = suffixed(database, &format!("{OLD_MARK}{stamp}"));
        let (staging, kept_as, old_data) = (staging.as_str(), kept_as.as_str(), OldData::Keep);
        let swap = Swap { service: self, admin: &admin, database, staging, kept_as, old_data };
        swap.create(OPTIONS).await?;
        let run = async {
            let report = self.run_text(&mut text, staging).await?;
            swap.rename_staging().await?;
            Ok(report)
        };
        match run.await {
            Ok(report) => Ok(report),
            Err(error) => Err(swap.discard(error).await),
        }
    }

    async fn run_text(&self, text: &mut Text, staging: &str) -> Result<SqlReport> {
        let mut wire = Wire::open(self.config(), staging).await?;
        // Text written by hand relies on the usual path; that of pg_dump sets its own.
        wire.execute(b"RESET search_path").await?;
        let mut report = SqlReport { database: self.config().database.clone(), statements: 0, rows: 0 };
        while let Some(statement) = text.statement().await? {
            let line = statement.line;
            let at_line = |error: Error| error.with_context("line", line);
            if statement.has_rows {
                text.end_line().await?;
                report.rows += wire.copy_in(&statement.sql, &mut text.reader()).await.map_err(at_line)?;
            } else {
                wire.execute(&statement.sql).await.map_err(at_line)?;
            }
            report.statements += 1;
        }
        wire.execute(b"RESET ALL").await?;
        wire.execute(b"ANALYZE").await?;
        Ok(report)
    }
}

/// SQL text with rows in it.
struct Text {
    input: Input,
    scanner: Scanner,
    /// Whether the next byte of rows begins a line, and whether they ended.
    at_line: bool,
    is_ended: bool,
}

impl Text {
    fn new(input: Input) -> Self {
        Self { input, scanner: Scanner::default(), at_line: true, is_ended: false }
    }

    /// The next statement; nothing at the end of the text.
    async fn statement(&mut self) -> Result<Option<Statement>> {
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

    /// Goes to the line on which rows begin.
    async fn end_line(&mut self) -> Result<()> {
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
    fn reader(&mut self) -> impl AsyncRead + Send + Unpin + '_ {
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
