//! How what comes before the rows is put into batches. Pure.
//!
//! `pg_restore` makes all of it in the order of the table of contents, as not every need of it is written down there. So do
//! we, one batch after the other; but rows wait only for what has to do with their own table.

use super::session::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use crate::archive::Entry;

/// What makes the server run functions of the database on each row that it takes. They may call what no need tells of.
const CHECKS: [&str; 2] = ["CHECK", "GENERATED ALWAYS AS ("];

/// Whether a table takes rows without a look at anything but itself: no check, no computed column, and no need of anything
/// that may have a check of its own, such as a domain or a table that it inherits from. Partitions have the checks of their
/// table above, and are found by what attaches them.
pub(super) fn is_plain(table: &Entry, needs: &[&Entry]) -> bool {
    let is_simple = |need: &&Entry| match need.kind.as_str() {
        "SCHEMA" | "EXTENSION" => true,
        "TYPE" => need.definition.contains(" AS ENUM "),
        _ => false,
    };
    !CHECKS.iter().any(|check| table.definition.contains(check)) && needs.iter().all(is_simple)
}

/// The entries in their order, as many in one batch as share a round trip.
pub(super) fn batches(entries: &[Entry], first: &[usize]) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut bytes = 0;
    for index in first {
        let size = entries.get(*index).map_or(0, |entry| entry.definition.len());
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_ENTRIES_MAX && bytes + size <= BATCH_BYTES_MAX => batch.push(*index),
            _ => {
                batches.push(vec![*index]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::samples::entry;

    #[test]
    fn rows_that_run_functions_are_told_apart() {
        let table = |definition: &str| Entry { definition: definition.to_owned(), ..entry(1, "TABLE") };
        let (plain, kind) = (table("CREATE TABLE t (\n    a integer\n);\n"), |kind| entry(2, kind));
        assert!(is_plain(&plain, &[]) && is_plain(&plain, &[&kind("SCHEMA"), &kind("EXTENSION")]));
        assert!(!is_plain(&table("CREATE TABLE t (\n    a integer,\n    CONSTRAINT c CHECK (f(a))\n);\n"), &[]));
        assert!(!is_plain(&table("CREATE TABLE t (\n    b integer GENERATED ALWAYS AS (f(a)) STORED\n);\n"), &[]));
        for kind in ["DOMAIN", "TABLE", "FUNCTION", "TYPE"].map(kind) {
            assert!(!is_plain(&plain, &[&kind]), "{}", kind.kind);
        }
        let colors = Entry { definition: "CREATE TYPE c AS ENUM (\n    'red'\n);\n".to_owned(), ..kind("TYPE") };
        assert!(is_plain(&plain, &[&colors]));
    }

    #[test]
    fn batches_are_bounded_by_number_and_by_size() {
        let mut entries = vec![entry(1, "TABLE"); 200];
        let all: Vec<usize> = (0..entries.len()).collect();
        let lengths = |entries: &[Entry]| batches(entries, &all).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(&entries), [64, 64, 64, 8]);
        entries[3].definition = "x".repeat(BATCH_BYTES_MAX + 1);
        assert_eq!(lengths(&entries)[..3], [3, 1, 64]);
        assert_eq!(batches(&entries, &all).concat(), all);
        assert!(batches(&entries, &[]).is_empty());
    }
}
