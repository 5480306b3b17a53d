//! How what comes before the rows is put into batches. Pure.
//!
//! `pg_restore` makes all of it in the order of the table of contents, as not every need of it is written down there. So do
//! we, one batch after the other; but rows wait only for what has to do with their own table.

use super::session::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use crate::archive::Entry;

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
