//! Which large tables are loaded by one connection although their rows are in several parts. Pure.
//!
//! Several connections that fill one table stand in each other's way at its end: measured, two of them did in 2.9 s of wall
//! time and two cores what one did in 2.1 s of one. One stream can also be frozen. So the parts of a table are only spread
//! where the way through this table is what everything else waits for.

use std::collections::BTreeSet;

/// How much of a connection's speed is left where several fill one table: 7 tenths (2.1 s / 2.9 s).
const SHARED_SPEED: u64 = 7;
const WHOLE_SPEED: u64 = 10;

/// A table in several parts, and what it takes at least: the weights of its rows, and of the longest thing behind them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// The index of the data file.
    pub(super) file: usize,
    pub(super) load: u64,
    pub(super) after: u64,
}

/// The files that are loaded as one stream by one of `jobs` connections; `all` is the weight of the whole restore.
pub(super) fn choose(ways: Vec<Way>, all: u64, jobs: usize) -> BTreeSet<usize> {
    let jobs = u64::try_from(jobs).unwrap_or(u64::MAX).max(1);
    ways.into_iter().filter(|way| is_better_whole(way, all, jobs)).map(|way| way.file).collect()
}

/// Compares when the restore could end: not before its longest way, and not before all work is shared out.
fn is_better_whole(way: &Way, all: u64, jobs: u64) -> bool {
    let spread = way.load.saturating_mul(WHOLE_SPEED) / SHARED_SPEED;
    let whole_end = (way.load + way.after).max(all / jobs);
    let spread_end = (spread / jobs + way.after).max((all + spread - way.load) / jobs);
    jobs == 1 || whole_end <= spread_end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(load: u64, after: u64, all: u64, jobs: usize) -> bool {
        choose(vec![Way { file: 3, load, after }], all, jobs).contains(&3)
    }

    #[test]
    fn a_table_is_spread_only_where_all_else_waits_for_it() {
        assert!(is_whole(5_000, 2_000, 15_000, 2), "the others have enough to do meanwhile");
        assert!(!is_whole(5_000, 2_000, 8_000, 2), "nothing else is left to do");
        assert!(!is_whole(5_000, 2_000, 15_000, 8), "more connections end the others earlier");
        assert!(is_whole(5_000, 0, 5_000, 1), "one connection has nobody to share with");
    }
}
