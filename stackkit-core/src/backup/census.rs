//! Counts and hashes of what a store holds, taken to be compared.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a store holds, in numbers: counts by object kind, and content hashes where the store has a stable one.
///
/// Names are paths from big to small: `tables.public.orders.rows`, `keys.0`, `files`. A restore is right if the
/// census of the new data equals the census of the dump.
///
/// ```
/// use stackkit_core::Census;
/// let dumped = Census::new().with_count("keys.0", 3).with_digest("content", "ab12");
/// let restored = Census::new().with_count("keys.0", 2).with_digest("content", "ab12");
/// let differences = dumped.diff(&restored);
/// assert_eq!(differences[0].to_string(), "keys.0: expected 3, found 2");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// How many there are of each kind of object.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    /// Hashes over content, as hex digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
}

impl Census {
    /// A census of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a count.
    #[must_use]
    pub fn with_count(mut self, name: impl Into<String>, count: u64) -> Self {
        self.counts.insert(name.into(), count);
        self
    }

    /// Sets a hash.
    #[must_use]
    pub fn with_digest(mut self, name: impl Into<String>, digest: impl Into<String>) -> Self {
        self.digests.insert(name.into(), digest.into());
        self
    }

    /// Adds to a count, which starts at 0.
    pub fn add(&mut self, name: &str, count: u64) {
        match self.counts.get_mut(name) {
            Some(known) => *known = known.saturating_add(count),
            None => {
                self.counts.insert(name.to_owned(), count);
            }
        }
    }

    /// The count of that name; 0 if there is none.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Each name on which `self`, the expected, and `found` do not agree. A missing count is 0; a hash counts only
    /// where both sides have it.
    #[must_use]
    pub fn diff(&self, found: &Self) -> Vec<CensusDifference> {
        let mut names: Vec<&String> = self.counts.keys().chain(found.counts.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let counts = names.into_iter().filter_map(|name| {
            let (expected, found) = (self.count(name), found.count(name));
            (expected != found).then(|| CensusDifference::new(name, expected, found))
        });
        let digests = self.digests.iter().filter_map(|(name, expected)| {
            let found = found.digests.get(name)?;
            (expected != found).then(|| CensusDifference::new(name, expected, found))
        });
        counts.chain(digests).collect()
    }
}

/// One name on which two censuses differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CensusDifference {
    /// The name.
    pub name: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl CensusDifference {
    fn new(name: &str, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { name: name.to_owned(), expected: expected.to_string(), found: found.to_string() }
    }
}

impl fmt::Display for CensusDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.name, self.expected, self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_count_is_zero() {
        let empty_table = Census::new().with_count("tables.a.rows", 0);
        assert!(empty_table.diff(&Census::new()).is_empty());
        assert_eq!(Census::new().diff(&Census::new().with_count("keys.0", 1)).len(), 1);
    }

    #[test]
    fn a_digest_counts_only_where_both_have_it() {
        let with = Census::new().with_digest("content", "a");
        assert!(with.diff(&Census::new()).is_empty());
        assert_eq!(with.diff(&Census::new().with_digest("content", "b")).len(), 1);
    }
}
