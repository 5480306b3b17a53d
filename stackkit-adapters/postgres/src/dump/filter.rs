//! Which tables to lock, as `pg_dump` reads the patterns of a dump.
//!
//! `pg_dump` decides what is dumped; what is locked here is the same, so that a table which is left out may be locked by
//! others. <https://www.postgresql.org/docs/current/app-psql.html#APP-PSQL-PATTERNS>

use stackkit_core::Result;

use super::catalog;
use crate::options::PostgresDump;
use crate::sql::literal;
use crate::wire::Wire;

/// Tables that are found by their name alone on the role's own path. Every name is qualified, as that path may lead
/// elsewhere.
const VISIBLE: &str = "RESET search_path; \
    SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog.\"char\"[]) \
        AND pg_catalog.pg_table_is_visible(c.oid); \
    SET search_path = pg_catalog";

/// The condition on `n.nspname`, `c.relname` and `c.oid` that tables of the dump fulfil; nothing if all do.
pub(super) async fn condition(wire: &mut Wire, dump: &PostgresDump) -> Result<Option<String>> {
    if !dump.is_filtered() {
        return Ok(None);
    }
    let tables = dump.tables.iter().chain(&dump.exclude_tables);
    let visible = match tables.map(|pattern| parts(pattern)).any(|parts| parts.len() == 1) {
        true => {
            let rows = wire.rows(VISIBLE).await?;
            let numbers: Vec<u32> = rows.iter().map(|row| catalog::number(row, 0)).collect::<Result<_>>()?;
            numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        }
        false => String::new(),
    };
    let schema = |pattern: &String| matches("n.nspname", parts(pattern).last());
    let table = |pattern: &String| match &parts(pattern)[..] {
        [.., schema, table] => {
            format!("({} AND {})", matches("n.nspname", Some(schema)), matches("c.relname", Some(table)))
        }
        [table] => format!("({} AND c.oid = ANY ('{{{visible}}}'::oid[]))", matches("c.relname", Some(table))),
        [] => "false".to_owned(),
    };
    let any = |conditions: Vec<String>| format!("({})", conditions.join(" OR "));
    let mut all = Vec::new();
    // Tables that are named are dumped whatever their schema.
    match (dump.tables.is_empty(), dump.schemas.is_empty()) {
        (false, _) => all.push(any(dump.tables.iter().map(table).collect())),
        (true, false) => all.push(any(dump.schemas.iter().map(schema).collect())),
        (true, true) => {}
    }
    if dump.tables.is_empty() && !dump.exclude_schemas.is_empty() {
        all.push(format!("NOT {}", any(dump.exclude_schemas.iter().map(schema).collect())));
    }
    if !dump.exclude_tables.is_empty() {
        all.push(format!("NOT {}", any(dump.exclude_tables.iter().map(table).collect())));
    }
    Ok(Some(all.join(" AND ")))
}

fn matches(column: &str, pattern: Option<&String>) -> String {
    let expression = format!("^({})$", pattern.map_or("", String::as_str));
    format!("{column} OPERATOR(pg_catalog.~) {} COLLATE pg_catalog.default", literal(&expression))
}

/// A pattern as regular expressions, one for each name that dots part.
fn parts(pattern: &str) -> Vec<String> {
    let (mut parts, mut part, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if is_quoted && rest.peek() == Some(&'"') => {
                rest.next();
                part.push('"');
            }
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(std::mem::take(&mut part)),
            '*' if !is_quoted => part.push_str(".*"),
            '?' if !is_quoted => part.push('.'),
            '$' => part.push_str("\\$"),
            '|' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '.' | '^' | '\\' if is_quoted => {
                part.push('\\');
                part.push(c);
            }
            // `int[]` is a name, and no class of characters.
            '[' if rest.peek() == Some(&']') => part.push_str("\\["),
            _ if is_quoted => part.push(c),
            _ => part.extend(c.to_lowercase()),
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_the_vendor_does() {
        for (pattern, expected) in [
            ("Audit_Log", vec!["audit_log"]),
            ("public.log*", vec!["public", "log.*"]),
            ("\"My.Schema\".t?", vec!["My\\.Schema", "t."]),
            ("\"a\"\"b$\"", vec!["a\"b\\$"]),
            ("db.s.t", vec!["db", "s", "t"]),
            ("t[0-9]", vec!["t[0-9]"]),
        ] {
            assert_eq!(parts(pattern), expected, "{pattern}");
        }
    }
}
