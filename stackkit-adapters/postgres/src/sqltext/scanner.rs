//! Finds statements in SQL text. Sans-IO: a byte in, perhaps a statement out.
//!
//! The rules are those of `psqlscan.l`: quotes, dollar quotes, nested comments, parentheses, and bodies of routines
//! between `BEGIN ATOMIC` and `END`, in which a semicolon ends nothing.

use stackkit_core::{Error, ErrorKind, Result};

/// The longest statement that is kept in memory until it is whole.
const STATEMENT_BYTES_MAX: usize = 64 << 20;

/// The longest word that means something here: `standard_conforming_strings`.
const WORD_BYTES_MAX: usize = 32;

/// The longest tag of a dollar quote, and the longest backslash command that is read before it is refused.
const TAG_BYTES_MAX: usize = 256;

/// The backslash commands that `pg_dump` writes around its text since 2025; they mean nothing here.
const HARMLESS: [&str; 2] = ["restrict", "unrestrict"];

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// With its semicolon.
    pub(crate) sql: Vec<u8>,
    /// The line on which it begins, from 1.
    pub(crate) line: u64,
    /// Whether rows follow it on the next line.
    pub(crate) has_rows: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Normal,
    LineComment,
    BlockComment {
        depth: u32,
    },
    Single {
        escapes: bool,
        is_escaped: bool,
    },
    /// Behind a quote that may be the first of two.
    Quote {
        escapes: bool,
    },
    Double,
    DollarTag {
        start: usize,
    },
    Dollar {
        tag: Vec<u8>,
        start: usize,
    },
    Command(Vec<u8>),
}

/// Reads text byte by byte.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    sql: Vec<u8>,
    /// The line of the next byte, and that of the statement's first.
    line: u64,
    begun_line: u64,
    previous: u8,
    word: Vec<u8>,
    /// The first words of the statement.
    words: Vec<Vec<u8>>,
    last_word: Vec<u8>,
    parentheses: u32,
    blocks: u32,
    has_rows: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Normal,
            sql: Vec::new(),
            line: 1,
            begun_line: 1,
            previous: b'\n',
            word: Vec::new(),
            words: Vec::new(),
            last_word: Vec::new(),
            parentheses: 0,
            blocks: 0,
            has_rows: false,
        }
    }
}

impl Scanner {
    /// The line of the next byte.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Counts lines that somebody else read.
    pub(crate) fn pass_lines(&mut self, lines: u64) {
        self.line += lines;
    }

    /// Takes the next byte. Gives the statement that it ends.
    ///
    /// # Errors
    /// `Unsupported` for a backslash command, or a statement that is too long.
    pub(crate) fn push(&mut self, byte: u8) -> Result<Option<Statement>> {
        if self.sql.len() >= STATEMENT_BYTES_MAX {
            return Err(self.refused("a statement is longer than 64 MiB"));
        }
        let ended = self.step(byte)?;
        self.previous = byte;
        if byte == b'\n' {
            self.line += 1;
        }
        Ok(ended)
    }

    /// Says whether the text may end here.
    ///
    /// # Errors
    /// `Integrity` inside of a statement.
    pub(crate) fn finish(&self) -> Result<()> {
        let is_between = matches!(self.state, State::Normal | State::LineComment) && self.sql.is_empty();
        match is_between {
            true => Ok(()),
            false => Err(Error::integrity("the text ends inside of a statement").with_context("line", self.begun_line)),
        }
    }

    fn refused(&self, message: &str) -> Error {
        Error::new(ErrorKind::Unsupported, message).with_context("line", self.line)
    }

    fn step(&mut self, byte: u8) -> Result<Option<Statement>> {
        match &mut self.state {
            State::Normal => return self.normal(byte),
            State::LineComment if byte == b'\n' => self.state = State::Normal,
            State::LineComment => return Ok(None),
            State::BlockComment { depth } => {
                match (self.previous, byte) {
                    (b'/', b'*') => *depth += 1,
                    (b'*', b'/') => *depth -= 1,
                    _ => {}
                }
                if *depth == 0 {
                    self.state = State::Normal;
                    // The slash begins no other comment.
                    self.keep(b' ');
                    return Ok(None);
                }
                return Ok(None);
            }
            State::Single { escapes, is_escaped } => {
                let escapes = *escapes;
                if *is_escaped {
                    *is_escaped = false;
                } else if escapes && byte == b'\\' {
                    *is_escaped = true;
                } else if byte == b'\'' {
                    self.state = State::Quote { escapes };
                }
            }
            State::Quote { escapes } if byte == b'\'' => {
                self.state = State::Single { escapes: *escapes, is_escaped: false };
            }
            State::Quote { .. } => {
                self.state = State::Normal;
                return self.normal(byte);
            }
            State::Double if byte == b'"' => self.state = State::Normal,
            State::Double => {}
            State::DollarTag { start } => {
                let start = *start;
                return self.dollar_tag(byte, start);
            }
            State::Dollar { tag, start } => {
                let is_long = self.sql.len() + 1 >= *start + tag.len();
                if byte == b'$' && is_long && self.sql.ends_with(&tag[..tag.len() - 1]) {
                    self.state = State::Normal;
                }
            }
            State::Command(_) => return self.command(byte),
        }
        self.keep(byte);
        Ok(None)
    }

    /// Appends to the statement; blank space before it is not part of it.
    fn keep(&mut self, byte: u8) {
        if self.sql.is_empty() {
            if byte.is_ascii_whitespace() {
                return;
            }
            self.begun_line = self.line;
        }
        self.sql.push(byte);
    }

    fn normal(&mut self, byte: u8) -> Result<Option<Statement>> {
        let is_word =
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | 0x80..) || (byte == b'$' && !self.word.is_empty());
        if is_word {
            if self.word.len() < WORD_BYTES_MAX {
                self.word.push(byte.to_ascii_lowercase());
            }
            self.keep(byte);
            return Ok(None);
        }
        let is_escape_string = byte == b'\'' && self.word == b"e";
        self.end_word();
        match (self.previous, byte) {
            (b'-', b'-') => {
                self.sql.pop();
                self.state = State::LineComment;
                return Ok(None);
            }
            (b'/', b'*') => {
                self.sql.pop();
                self.state = State::BlockComment { depth: 1 };
                self.previous = b' ';
                return Ok(None);
            }
            (_, b'\\') if self.sql.is_empty() => {
                self.state = State::Command(Vec::new());
                return Ok(None);
            }
            (_, b'\\') => return Err(self.refused("a backslash command inside of a statement")),
            (_, b'\'') => self.state = State::Single { escapes: is_escape_string, is_escaped: false },
            (_, b'"') => self.state = State::Double,
            (_, b'$') => self.state = State::DollarTag { start: self.sql.len() },
            (_, b'(') => self.parentheses += 1,
            (_, b')') => self.parentheses = self.parentheses.saturating_sub(1),
            (_, b';') if self.parentheses == 0 && self.blocks == 0 => return self.end_statement(),
            _ => {}
        }
        self.keep(byte);
        Ok(None)
    }

    fn dollar_tag(&mut self, byte: u8, start: usize) -> Result<Option<Statement>> {
        let is_first = self.sql.len() == start + 1;
        let is_tag =
            byte.is_ascii_alphabetic() || matches!(byte, b'_' | 0x80..) || (!is_first && byte.is_ascii_digit());
        if byte == b'$' {
            self.keep(byte);
            let tag = self.sql[start..].to_vec();
            self.state = State::Dollar { start: self.sql.len(), tag };
            return Ok(None);
        }
        if !is_tag || self.sql.len() - start > TAG_BYTES_MAX {
            self.state = State::Normal;
            return self.normal(byte);
        }
        self.keep(byte);
        Ok(None)
    }

    fn command(&mut self, byte: u8) -> Result<Option<Statement>> {
        let State::Command(text) = &mut self.state else { return Ok(None) };
        if byte != b'\n' && text.len() < TAG_BYTES_MAX {
            text.push(byte);
            return Ok(None);
        }
        let name = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if byte == b'\n' && HARMLESS.iter().any(|harmless| harmless.as_bytes() == name) {
            self.state = State::Normal;
            return Ok(None);
        }
        Err(self.refused("a backslash command of psql; only SQL is run"))
    }

    /// Notes a word at the end of it.
    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let word = std::mem::take(&mut self.word);
        if self.words.len() < 4 {
            self.words.push(word.clone());
        }
        if self.parentheses == 0 {
            match word.as_slice() {
                b"begin" if self.is_routine() => self.blocks += 1,
                b"case" if self.blocks > 0 => self.blocks += 1,
                b"end" => self.blocks = self.blocks.saturating_sub(1),
                b"stdin" if self.last_word == b"from" => {
                    self.has_rows = self.words.first().is_some_and(|w| w == b"copy")
                }
                _ => {}
            }
        }
        self.last_word = word;
    }

    fn is_routine(&self) -> bool {
        let words: Vec<&[u8]> = self.words.iter().map(Vec::as_slice).collect();
        matches!(
            words.as_slice(),
            [b"create", b"function" | b"procedure", ..] | [b"create", b"or", b"replace", b"function" | b"procedure"]
        )
    }

    fn end_statement(&mut self) -> Result<Option<Statement>> {
        let is_empty = self.sql.is_empty();
        self.keep(b';');
        let statement = Statement {
            sql: std::mem::take(&mut self.sql),
            line: self.begun_line,
            has_rows: std::mem::take(&mut self.has_rows),
        };
        // Without it quotes would end elsewhere than they do here.
        let of_strings = self.words.iter().any(|word| word == b"standard_conforming_strings");
        let is_off = of_strings && self.last_word == b"off";
        self.words.clear();
        self.last_word.clear();
        match is_off {
            true => Err(self.refused("text with backslashes in plain strings, as servers before 9.1 wrote it")),
            false => Ok((!is_empty).then_some(statement)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statements(text: &str) -> Result<Vec<(String, u64, bool)>> {
        let mut scanner = Scanner::default();
        let mut all = Vec::new();
        for byte in text.bytes() {
            if let Some(one) = scanner.push(byte)? {
                all.push((String::from_utf8(one.sql).expect("text"), one.line, one.has_rows));
            }
        }
        scanner.finish()?;
        Ok(all)
    }

    #[test]
    fn semicolons_end_statements_and_nothing_else() {
        for text in [
            "select ';';",
            "select 'it''s; ' ;",
            r"select E'a\';b';",
            r"select 'a\';",
            r#"create table "a;""b" ();"#,
            "select $$;$$;",
            "select $a$ ; $$ ; $b$ $a$;",
            "select $1;",
            "create rule r as on insert to t do (select 1; select 2);",
            "create or replace function f() returns int begin atomic select case when true then 1 else 2 end; select 2; end;",
            "create procedure p() begin atomic select 1; end;",
            "begin;",
        ] {
            assert_eq!(statements(text).expect(text), vec![(text.to_owned(), 1, false)], "{text}");
        }
        let two = "-- it's;\n/* a /* nested; ' */ */ select 1;\n\n;select\n2;";
        let found = statements(two).expect("two");
        assert_eq!(found.iter().map(|one| one.1).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn rows_follow_a_copy_from_stdin() {
        let found = statements("COPY public.\"from stdin\" (a) FROM stdin;").expect("a copy");
        assert!(found[0].2);
        let other = statements("COPY t FROM '/x'; COPY t (stdin) TO stdout; select 1 from stdin;").expect("no rows");
        assert!(other.iter().all(|one| !one.2));
    }

    #[test]
    fn commands_are_refused_with_their_line() {
        assert_eq!(statements("\\restrict abc\nselect 1;\n\\unrestrict abc\n").expect("harmless").len(), 1);
        for text in ["select 1;\n\\! rm x\n", "\n\\connect x\n", "\nselect 1 \\gexec\n", "\n\\restricted\n"] {
            let error = statements(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("line=2"), "{error}");
        }
    }

    #[test]
    fn a_cut_text_is_told() {
        for text in ["select 1", "select 'a;", "select $$a;", "/* a", "select \"a;"] {
            assert_eq!(statements(text).expect_err(text).kind(), ErrorKind::Integrity, "{text}");
        }
        assert!(statements("set standard_conforming_strings = off;").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-;'\"$a-e\\\\*/() \n]{0,200}") {
            drop(statements(&text));
        }
    }
}
