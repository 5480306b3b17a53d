//! The `COPY` of a table's rows.

use super::units::Range;
use crate::archive::text::encode;
use crate::sql::identifier;

/// What the archive says of a table's data: `COPY public.orders (id, note) FROM stdin;`.
const COPY: &str = "COPY ";
const FROM: &str = " FROM stdin;";

/// Gives back what [`Source::locked`] locked, after an error too.
pub(super) const GIVE_BACK: &str = "ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s";

/// The table and the columns of an entry's data, in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) table: String,
    /// With its parentheses; empty for a table without columns.
    columns: String,
}

impl Source {
    /// Reads the statement of an entry of `table`. It may name another one: rows of some partitions are loaded through
    /// their root, but read where they are.
    pub(super) fn parse(table: String, statement: &str) -> Option<Self> {
        let text = statement.trim_end().strip_suffix(FROM)?.strip_prefix(COPY)?;
        let mut is_quoted = false;
        let list = text.find(|c: char| {
            is_quoted ^= c == '"';
            c == '(' && !is_quoted
        });
        Some(Self { table, columns: text.get(list.unwrap_or(text.len())..)?.trim_end().to_owned() })
    }

    /// The statement that writes the rows: all, those that fulfil `condition`, or those of a range of pages.
    pub(super) fn statement(&self, condition: Option<&str>, range: Option<Range>) -> String {
        let Self { table, columns } = self;
        if condition.is_none() && range.is_none() {
            return format!("COPY {table} {columns} TO STDOUT");
        }
        let columns = columns.strip_prefix('(').and_then(|list| list.strip_suffix(')')).unwrap_or_default();
        let filter = match (condition, range) {
            (Some(condition), _) => condition.to_owned(),
            (None, Some(Range { from, to: Some(to) })) => {
                format!("WHERE ctid >= '({from},0)'::pg_catalog.tid AND ctid < '({to},0)'::pg_catalog.tid")
            }
            (None, Some(Range { from, to: None })) => format!("WHERE ctid >= '({from},0)'::pg_catalog.tid"),
            (None, None) => String::new(),
        };
        format!("COPY (SELECT {columns} FROM ONLY {table} {filter}) TO STDOUT")
    }

    /// The statements that write the rows of a table that this session has not locked yet, or fail at once if somebody
    /// waits to change it.
    ///
    /// At the end they give all locks back. A range is read by a query, whose plan locks the table's indexes, and a `REINDEX`
    /// that waits for one of these sessions to end would be waited for by the others. The snapshot's own session has the
    /// table's lock.
    pub(super) fn locked(&self, copy: &str) -> String {
        let table = &self.table;
        format!("SAVEPOINT s; LOCK TABLE ONLY {table} IN ACCESS SHARE MODE NOWAIT; {copy}; {GIVE_BACK}")
    }
}

/// A statement that writes the rows of a table.
pub(crate) struct CopyOutOf {
    pub(crate) sql: Vec<u8>,
    /// The columns in their order, as SQL.
    pub(crate) columns: String,
}

/// The statement that writes all rows of a table as the archive's statement `copy` takes them in.
pub(crate) fn copy_out_of(schema: &str, table: &str, copy: &str) -> Option<CopyOutOf> {
    let table = format!("{}.{}", identifier(schema), identifier(table));
    let source = Source::parse(table, copy)?;
    let sql = encode(&source.statement(None, None)).into_owned();
    Some(CopyOutOf { sql, columns: source.columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read_and_turned_around() {
        let table = || "public.\"a (b\"".to_owned();
        let source = Source::parse(table(), "COPY public.root (id, \"x\"\")\") FROM stdin;\n").expect("a statement");
        assert_eq!(source.statement(None, None), "COPY public.\"a (b\" (id, \"x\"\")\") TO STDOUT");
        let quoted = Source::parse(table(), "COPY public.\"a (b\" (id) FROM stdin;\n").expect("a statement");
        assert_eq!(quoted.columns, "(id)");
        let range = Range { from: 8, to: Some(16) };
        assert_eq!(
            source.statement(None, Some(range)),
            "COPY (SELECT id, \"x\"\")\" FROM ONLY public.\"a (b\" WHERE ctid >= '(8,0)'::pg_catalog.tid \
             AND ctid < '(16,0)'::pg_catalog.tid) TO STDOUT"
        );
        let condition = source.statement(Some("WHERE id > 7"), None);
        assert!(condition.ends_with("FROM ONLY public.\"a (b\" WHERE id > 7) TO STDOUT"), "{condition}");
        let bare = Source::parse("public.nothing".into(), "COPY public.nothing  FROM stdin;\n").expect("a statement");
        assert_eq!(bare.statement(None, None), "COPY public.nothing  TO STDOUT");
        assert_eq!(Source::parse(String::new(), "INSERT INTO x"), None);
    }
}
