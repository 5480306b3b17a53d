//! Options of columns that a server keeps for itself. Pure.
//!
//! Since the minor versions of November 2026 a server counts the versions of columns in their options, as `pg_attver`. Its own
//! `pg_dump` says nothing of it; one of another minor version says it like any other option, and a server that is older than
//! that refuses it: such an archive would not come back.

use std::borrow::Cow;

use crate::sqltext::scanner::Scanner;

/// The option, as `pg_dump` writes it: its values are numbers, as those of all other options of columns.
const INTERNAL: &str = "pg_attver=";

/// The statements that say it.
const STATEMENTS: [&str; 2] = ["ALTER TABLE ONLY ", "ALTER FOREIGN TABLE ONLY "];

/// The definition of an entry without such options, and without statements that say nothing else.
pub(crate) fn without_internal(definition: &str) -> Cow<'_, str> {
    if !definition.contains(INTERNAL) {
        return Cow::Borrowed(definition);
    }
    let (mut scanner, mut out, mut begin) = (Scanner::default(), String::new(), 0);
    for (at, byte) in definition.bytes().enumerate() {
        match scanner.push(byte) {
            Ok(None) => {}
            Ok(Some(_statement)) => {
                let statement = definition.get(begin..=at).unwrap_or_default();
                out.push_str(&without(statement));
                begin = at + 1;
            }
            // It is not what pg_dump writes; the server may say what it thinks of it.
            Err(_unknown) => return Cow::Borrowed(definition),
        }
    }
    out.push_str(definition.get(begin..).unwrap_or_default());
    Cow::Owned(out)
}

/// One statement, with what stands before it.
fn without(statement: &str) -> Cow<'_, str> {
    let is_such = STATEMENTS.iter().any(|begin| statement.trim_start().starts_with(begin));
    let options = statement.rsplit_once(" SET (").and_then(|(head, tail)| Some((head, tail.strip_suffix(");")?)));
    let Some((head, options)) = options.filter(|_| is_such) else { return Cow::Borrowed(statement) };
    let all = options.split(", ").count();
    let kept: Vec<&str> = options.split(", ").filter(|option| !is_internal(option)).collect();
    match kept.len() {
        0 => Cow::Borrowed(""),
        count if count == all => Cow::Borrowed(statement),
        _ => Cow::Owned(format!("{head} SET ({});", kept.join(", "))),
    }
}

fn is_internal(option: &str) -> bool {
    let value = option.strip_prefix(INTERNAL);
    value.is_some_and(|value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_internal_option_is_left_out() {
        let table = "CREATE TABLE public.t (\n    a integer,\n    b text DEFAULT 'x\n\
            ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=3);\ny'::text\n);\n";
        let noise = "ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=56465800);\n\
            ALTER TABLE ONLY public.t ALTER COLUMN b SET (pg_attver=56465800, n_distinct=-0.5);\n\
            ALTER FOREIGN TABLE ONLY public.\" SET (\" ALTER COLUMN \"c;\" SET (n_distinct=5, pg_attver=1);\n\
            ALTER TABLE ONLY public.t ALTER COLUMN b SET STATISTICS 500;\n\n";
        let kept = "\nALTER TABLE ONLY public.t ALTER COLUMN b SET (n_distinct=-0.5);\n\
            ALTER FOREIGN TABLE ONLY public.\" SET (\" ALTER COLUMN \"c;\" SET (n_distinct=5);\n\
            ALTER TABLE ONLY public.t ALTER COLUMN b SET STATISTICS 500;\n\n";
        let bare = format!("{}{kept}", table.trim_end());
        assert_eq!(without_internal(&format!("{table}{noise}")), bare);
        // What came out says nothing more, and is left as it is.
        assert_eq!(without_internal(&bare), bare);
        assert_eq!(
            without_internal("COMMENT ON TABLE t IS 'pg_attver=1';\n"),
            "COMMENT ON TABLE t IS 'pg_attver=1';\n"
        );
        assert_eq!(without_internal("\\x pg_attver=1"), "\\x pg_attver=1");
    }
}
