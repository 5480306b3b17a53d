//! Primary keys and unique constraints in two steps: the index, which several connections can build at once on one
//! table, and the constraint over it, which is made at once.

use crate::archive::Entry;

/// What a constraint's statement begins with, as `pg_dump` writes it.
const HEAD: &str = "ALTER TABLE ONLY ";
/// What stands between the table and the constraint's name.
const ADD: &str = "\n    ADD CONSTRAINT ";

/// The two steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Builds the index.
    pub(crate) build: String,
    /// Makes the constraint of it, with everything that follows in the entry.
    pub(crate) attach: String,
}

/// The steps of an entry of kind `CONSTRAINT`, if it has the form that `pg_dump` writes for a primary key or unique
/// constraint with a b-tree. Everything else is for its own statement: exclusion constraints, `WITHOUT OVERLAPS`.
pub(crate) fn split(entry: &Entry) -> Option<Key> {
    let (statement, rest) = statement_end(&entry.definition)?;
    let text = statement.trim_start().strip_prefix(HEAD)?;
    let (table, text) = text.split_once(ADD)?;
    let (name, text) = word(text)?;
    let (kind, text) = match (text.strip_prefix(" PRIMARY KEY"), text.strip_prefix(" UNIQUE")) {
        (Some(text), _) => ("PRIMARY KEY", text),
        (_, Some(text)) => ("UNIQUE", text),
        _ => return None,
    };
    let (nulls, text) = optional(text, " NULLS NOT DISTINCT");
    let (columns, text) = list(text.strip_prefix(' ')?)?;
    let (include, text) = match text.strip_prefix(" INCLUDE ") {
        Some(text) => list(text)?,
        None => ("", text),
    };
    let (storage, text) = match text.strip_prefix(" WITH ") {
        Some(text) => list(text)?,
        None => ("", text),
    };
    if !matches!(text, "" | " DEFERRABLE" | " DEFERRABLE INITIALLY DEFERRED") || columns.contains("WITHOUT OVERLAPS") {
        return None;
    }
    let clause = |word: &str, list: &str| if list.is_empty() { String::new() } else { format!(" {word} {list}") };
    let (include, storage) = (clause("INCLUDE", include), clause("WITH", storage));
    let build = format!("CREATE UNIQUE INDEX {name} ON {table} USING btree {columns}{include}{nulls}{storage};");
    let attach = format!("{HEAD}{table}{ADD}{name} {kind} USING INDEX {name}{text};{rest}");
    Some(Key { build, attach })
}

/// Whether the text so far stands inside of quotes.
#[derive(Default)]
struct Quotes(Option<char>);

impl Quotes {
    /// Takes the next character; whether it stands outside of quotes and is none itself.
    fn is_outside(&mut self, character: char) -> bool {
        match self.0 {
            Some(open) if open == character => self.0 = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'') => self.0 = Some(character),
            None => return true,
        }
        false
    }
}

/// The first statement without its semicolon, and what follows.
fn statement_end(sql: &str) -> Option<(&str, &str)> {
    let mut quotes = Quotes::default();
    let at = sql.find(|character| quotes.is_outside(character) && character == ';')?;
    Some((&sql[..at], &sql[at + 1..]))
}

/// An identifier, and what follows.
fn word(text: &str) -> Option<(&str, &str)> {
    let mut quotes = Quotes::default();
    let end = text.find(|character: char| quotes.is_outside(character) && character.is_whitespace())?;
    (end > 0).then(|| text.split_at(end))
}

fn optional<'a>(text: &'a str, word: &'a str) -> (&'a str, &'a str) {
    match text.strip_prefix(word) {
        Some(rest) => (word, rest),
        None => ("", text),
    }
}

/// A list in parentheses, and what follows.
fn list(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('(')?;
    let mut quotes = Quotes::default();
    let end = inner.find(|character| quotes.is_outside(character) && matches!(character, '(' | ')'))?;
    inner[end..].starts_with(')').then(|| text.split_at(end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::samples::entry;

    fn of(sql: &str) -> Option<Key> {
        let mut entry = entry(1, "CONSTRAINT");
        entry.definition = sql.to_owned();
        split(&entry)
    }

    #[test]
    fn every_clause_finds_its_place() {
        let sql = "ALTER TABLE ONLY public.\"a;b\"\n    ADD CONSTRAINT \"x y\" UNIQUE NULLS NOT DISTINCT (a, \"b)\") \
            INCLUDE (c) WITH (fillfactor='70') DEFERRABLE INITIALLY DEFERRED;\n";
        let sql = sql.to_owned() + "\nALTER TABLE public.\"a;b\" CLUSTER ON \"x y\";\n";
        let key = of(&sql).expect("a key");
        assert_eq!(
            key.build,
            "CREATE UNIQUE INDEX \"x y\" ON public.\"a;b\" USING btree (a, \"b)\") INCLUDE (c) NULLS NOT DISTINCT \
             WITH (fillfactor='70');"
        );
        assert_eq!(
            key.attach,
            "ALTER TABLE ONLY public.\"a;b\"\n    ADD CONSTRAINT \"x y\" UNIQUE USING INDEX \"x y\" DEFERRABLE \
             INITIALLY DEFERRED;\n\nALTER TABLE public.\"a;b\" CLUSTER ON \"x y\";\n"
        );
    }

    #[test]
    fn other_forms_are_left_alone() {
        for sql in [
            "ALTER TABLE ONLY t\n    ADD CONSTRAINT x EXCLUDE USING gist (r WITH &&);\n",
            "ALTER TABLE ONLY t\n    ADD CONSTRAINT x CHECK ((a > 0));\n",
            "ALTER TABLE ONLY t\n    ADD CONSTRAINT x FOREIGN KEY (a) REFERENCES b(a);\n",
            "ALTER TABLE ONLY t\n    ADD CONSTRAINT x PRIMARY KEY (a, r WITHOUT OVERLAPS);\n",
            "ALTER TABLE ONLY t\n    ADD CONSTRAINT x PRIMARY KEY (a) NOT VALID;\n",
            "",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
    }
}
