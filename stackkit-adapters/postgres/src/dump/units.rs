//! What is read in one go: a table, or a range of the pages of a large one. The longest come first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::catalog::Facts;
use super::table::DataEntry;
use crate::tools::Version;

/// The first version that reads a range of pages without the pages before it.
const RANGES_SINCE: Version = Version(140_000);

/// The most parts of one table: the name of a part has three digits, and more would not spread the work better.
const PARTS_MAX: u64 = 500;

/// Pages of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: u64,
    /// The first page behind it; nothing for the last range, as a table may have grown.
    pub(super) to: Option<u64>,
}

/// Something to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// Which of the data entries.
    pub(super) entry: usize,
    /// Which part of it; 0 if there is only one.
    pub(super) part: usize,
    pub(super) range: Option<Range>,
    /// What it weighs in the server's files.
    pub(super) bytes: u64,
}

/// How tables are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) split_bytes: u64,
    pub(super) jobs: usize,
    pub(super) server: Version,
}

/// The units of `entries`, longest first.
pub(super) fn units(entries: &[DataEntry], facts: &BTreeMap<u32, Facts>, cut: Cut) -> Vec<Unit> {
    let unknown = Facts::default();
    let of = |(entry, data): (usize, &DataEntry)| parts(entry, facts.get(&data.oid).unwrap_or(&unknown), cut);
    let mut units: Vec<Unit> = entries.iter().enumerate().flat_map(of).collect();
    units.sort_by_key(|unit| (Reverse(unit.bytes), unit.entry, unit.part));
    units
}

fn parts(entry: usize, facts: &Facts, cut: Cut) -> Vec<Unit> {
    let can_split = facts.is_heap && facts.condition.is_none() && cut.server >= RANGES_SINCE && cut.jobs > 1;
    let wanted = facts.bytes / cut.split_bytes.max(1) + 1;
    let count = if can_split && facts.bytes >= cut.split_bytes { wanted.min(PARTS_MAX).min(facts.pages) } else { 1 };
    if count < 2 {
        return vec![Unit { entry, part: 0, range: None, bytes: facts.bytes }];
    }
    let step = facts.pages.div_ceil(count);
    let starts = (0..facts.pages).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    let unit = |(part, from): (usize, u64)| {
        let to = Some(from + step).filter(|to| *to < facts.pages);
        Unit { entry, part, range: Some(Range { from, to }), bytes: facts.bytes / count }
    };
    starts.enumerate().map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(split_bytes: u64) -> Cut {
        Cut { split_bytes, jobs: 2, server: RANGES_SINCE }
    }

    fn heap(pages: u64, bytes: u64) -> Facts {
        Facts { pages, bytes, is_heap: true, condition: None }
    }

    #[test]
    fn what_cannot_be_read_in_ranges_is_whole() {
        let large = heap(1000, 1 << 30);
        assert!(parts(0, &large, cut(1 << 20)).len() > 1);
        for whole in [
            parts(0, &Facts { is_heap: false, ..large.clone() }, cut(1 << 20)),
            parts(0, &Facts { condition: Some("WHERE true".into()), ..large.clone() }, cut(1 << 20)),
            parts(0, &large, Cut { server: Version(130_000), ..cut(1 << 20) }),
            parts(0, &large, Cut { jobs: 1, ..cut(1 << 20) }),
            parts(0, &heap(1000, 100), cut(1 << 20)),
        ] {
            assert!(whole.len() == 1 && whole[0].range.is_none(), "{whole:?}");
        }
    }

    proptest! {
        #[test]
        fn ranges_cover_every_page_once(pages in 1u64..5000, bytes in 0u64..1 << 36, split in 1u64..1 << 30) {
            let units = parts(0, &heap(pages, bytes), cut(split));
            let mut next = 0;
            for (at, unit) in units.iter().enumerate() {
                prop_assert_eq!(unit.part, at);
                let Some(range) = unit.range else { prop_assert_eq!(units.len(), 1); continue };
                prop_assert_eq!(range.from, next);
                prop_assert_eq!(range.to.is_none(), at + 1 == units.len());
                next = range.to.unwrap_or(pages);
                prop_assert!(next > range.from);
            }
            prop_assert!(units.len() <= 500);
        }
    }
}
