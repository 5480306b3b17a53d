//! How many keys there are of each prefix, from a sample of them. Pure.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::metrics::float;

/// The most prefixes that are told, over all databases; the rest is `other`. What a table or a chart can show.
const PREFIXES_MAX: usize = 20;
/// The longest prefix that is told whole. Longer ones are cut: they are hardly names that somebody chose.
const PREFIX_BYTES_MAX: usize = 64;
/// Fewer keys of one prefix in a sample are `other`: a prefix of one key is an id rather than a name, and is nobody's
/// business.
const PREFIX_KEYS_MIN: u64 = 2;
/// Standard errors on each side of an estimate that make 95 % confidence.
const Z: f64 = 1.959_964;
/// The label of keys without a separator. No prefix is called so: a prefix ends in a separator or in an ellipsis.
const NONE: &str = "none";
/// The label of the prefixes that are not told one by one.
const OTHER: &str = "other";

/// The keys of one database that were looked at.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    separators: &'a [u8],
    hasher: RandomState,
    /// `SCAN` names a key twice while the server resizes its table; a hash of 64 bits is enough to tell.
    seen: HashSet<u64>,
    /// By prefix, at most so long, and whether it was cut. Bounded by the sample itself.
    prefixes: HashMap<(Box<[u8]>, bool), u64>,
    plain: u64,
}

/// A finished sample.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) database: u64,
    /// Keys that were looked at.
    pub(crate) sampled: u64,
    /// Keys that there are.
    pub(crate) population: u64,
    /// Whether every key was looked at.
    pub(crate) is_whole: bool,
    prefixes: Vec<(String, u64)>,
    plain: u64,
}

/// What is told of one prefix.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) database: u64,
    pub(crate) prefix: String,
    pub(crate) keys: f64,
    /// Half the width of the 95 % confidence interval, rounded up.
    pub(crate) error: f64,
}

impl<'a> Sample<'a> {
    pub(crate) fn new(separators: &'a [u8]) -> Self {
        Self { separators, hasher: RandomState::new(), seen: HashSet::new(), prefixes: HashMap::new(), plain: 0 }
    }

    pub(crate) fn add(&mut self, key: &[u8]) {
        if !self.seen.insert(self.hasher.hash_one(key)) {
            return;
        }
        let Some(end) = key.iter().position(|byte| self.separators.contains(byte)) else {
            self.plain += 1;
            return;
        };
        let prefix = key.get(..=end).unwrap_or_default();
        let kept = prefix.get(..PREFIX_BYTES_MAX).unwrap_or(prefix);
        *self.prefixes.entry((kept.into(), kept.len() < prefix.len())).or_default() += 1;
    }

    pub(crate) fn keys(&self) -> u64 {
        u64::try_from(self.seen.len()).unwrap_or(u64::MAX)
    }

    /// Of the database's keys; `is_whole` if all of them were looked at, which then is how many there are.
    pub(crate) fn finish(self, database: u64, population: u64, is_whole: bool) -> Tally {
        let sampled = self.keys();
        let population = if is_whole { sampled } else { population.max(sampled) };
        let prefixes = self.prefixes.into_iter().map(|((prefix, cut), keys)| (label(&prefix, cut), keys)).collect();
        Tally { database, sampled, population, is_whole, prefixes, plain: self.plain }
    }
}

impl Tally {
    fn line(&self, prefix: &str, keys: u64) -> Line {
        let (keys, error) = estimate(keys, self.sampled, self.population);
        Line { database: self.database, prefix: prefix.to_owned(), keys, error }
    }
}

/// The largest prefixes of all databases, and per database what has no prefix and what is not told.
pub(crate) fn lines(tallies: &[Tally]) -> Vec<Line> {
    let mut candidates: Vec<(usize, Line, u64)> = Vec::new();
    for (position, tally) in tallies.iter().enumerate() {
        let told = tally.prefixes.iter().filter(|(_, keys)| *keys >= PREFIX_KEYS_MIN);
        candidates.extend(told.map(|(prefix, keys)| (position, tally.line(prefix, *keys), *keys)));
    }
    // By name where equal, so that two inventories of the same keys tell the same.
    candidates.sort_by(|(_, one, _), (_, other, _)| {
        other.keys.total_cmp(&one.keys).then_with(|| (one.database, &one.prefix).cmp(&(other.database, &other.prefix)))
    });
    candidates.truncate(PREFIXES_MAX);
    let mut rest: Vec<u64> = tallies.iter().map(|tally| tally.sampled - tally.plain).collect();
    for (position, _, keys) in &candidates {
        if let Some(rest) = rest.get_mut(*position) {
            *rest = rest.saturating_sub(*keys);
        }
    }
    let mut lines: Vec<Line> = candidates.into_iter().map(|(_, line, _)| line).collect();
    for (position, rest) in rest.into_iter().enumerate() {
        let Some(tally) = tallies.get(position) else { continue };
        let remaining = [(NONE, tally.plain), (OTHER, rest)].into_iter().filter(|(_, keys)| *keys > 0);
        lines.extend(remaining.map(|(label, keys)| tally.line(label, keys)));
    }
    lines
}

/// How many of `population` have what `found` of `sampled` had, and the error of that: the further end of Wilson's
/// interval, which holds for rare things too, with the correction for a sample that is a good part of the whole.
fn estimate(found: u64, sampled: u64, population: u64) -> (f64, f64) {
    if sampled >= population {
        return (float(found), 0.0);
    }
    let (n, all) = (float(sampled), float(population));
    let share = float(found) / n;
    let n = n * (all - 1.0) / (all - n);
    let scale = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let error = f64::max(centre + half - share, share - (centre - half));
    ((share * all).round(), (error * all).ceil())
}

/// A prefix as a label: bytes that are no text are escaped.
fn label(prefix: &[u8], cut: bool) -> String {
    let mut label: String = match std::str::from_utf8(prefix) {
        Ok(text) => text.chars().flat_map(escaped).collect(),
        Err(_) => prefix.escape_ascii().to_string(),
    };
    if cut {
        label.push('…');
    }
    label
}

fn escaped(character: char) -> impl Iterator<Item = char> {
    let control = character.is_control().then(|| character.escape_default());
    let plain = (!character.is_control()).then_some(character);
    control.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(keys: impl IntoIterator<Item = Vec<u8>>, population: u64, is_whole: bool) -> Tally {
        let mut sample = Sample::new(b":");
        keys.into_iter().for_each(|key| sample.add(&key));
        sample.finish(0, population, is_whole)
    }

    fn told(tally: Tally) -> Vec<(String, f64, f64)> {
        lines(&[tally]).into_iter().map(|line| (line.prefix, line.keys, line.error)).collect()
    }

    fn keys(prefix: &str, count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|number| format!("{prefix}{number}").into_bytes()).collect()
    }

    #[test]
    fn a_whole_database_is_exact_and_keys_that_come_twice_count_once() {
        let all =
            keys("user:", 30).into_iter().chain(keys("plain", 5)).chain(keys("cart:", 7)).chain(keys("user:", 30));
        let expected = [("user:", 30.0), ("cart:", 7.0), ("none", 5.0)];
        let tally = tally(all, 99, true);
        assert!(tally.is_whole);
        assert_eq!(told(tally), expected.map(|(prefix, keys)| (prefix.to_owned(), keys, 0.0)));
    }

    /// A generator with a fixed seed, so that the test does not hang on chance.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn the_error_covers_the_truth_in_95_of_100_samples() {
        const POPULATION: u64 = 200_000;
        let mut state = 7;
        for (share_percent, sampled) in [(60, 2000), (10, 2000), (1, 2000), (30, 100_000)] {
            let truth = float(POPULATION * share_percent / 100);
            let covered = (0..400)
                .filter(|_| {
                    // Without replacement, as SCAN does: what is left of both kinds.
                    let (mut having, mut left, mut found) = (POPULATION * share_percent / 100, POPULATION, 0);
                    for _ in 0..sampled {
                        if random(&mut state) % left < having {
                            (having, found) = (having - 1, found + 1);
                        }
                        left -= 1;
                    }
                    let (keys, error) = estimate(found, sampled, POPULATION);
                    (keys - truth).abs() <= error
                })
                .count();
            assert!((368..=400).contains(&covered), "{share_percent} %, {sampled}: {covered} of 400");
        }
    }

    #[test]
    fn rare_prefixes_have_an_error_too() {
        let (keys, error) = estimate(0, 1000, 1_000_000);
        assert!(keys == 0.0 && error > 3000.0, "{error}");
        assert_eq!(estimate(5, 10, 10), (5.0, 0.0));
    }

    #[test]
    fn no_more_prefixes_are_told_than_fit_and_none_of_a_single_key() {
        let named = (0..100).flat_map(|number| keys(&format!("prefix{number}:"), 2 + number));
        let told = told(tally(named.chain(keys("", 0)).chain([b"ann@example.org:cart".to_vec()]), 10_000_000, false));
        assert_eq!(told.len(), PREFIXES_MAX + 1);
        assert_eq!((told[0].0.as_str(), told[PREFIXES_MAX].0.as_str()), ("prefix99:", "other"));
        let single = lines(&[tally([b"ann@example.org:cart".to_vec()], 1, true)]);
        assert_eq!((single.len(), single[0].prefix.as_str()), (1, "other"));
    }

    #[test]
    fn labels_hold_neither_whole_keys_nor_bytes_that_are_no_text() {
        let long = [vec![b'x'; 300], b":1".to_vec()].concat();
        let longer = [vec![b'x'; 300], b":2".to_vec()].concat();
        let odd = [[0xff, b':', 1], [0xff, b':', 2], [b'\n', b':', 3], [b'\n', b':', 4]].map(Vec::from);
        let labels: Vec<String> =
            told(tally([long, longer].into_iter().chain(odd), 6, true)).into_iter().map(|l| l.0).collect();
        assert_eq!(labels, ["\\n:".to_owned(), "\\xff:".to_owned(), format!("{}…", "x".repeat(PREFIX_BYTES_MAX))]);
        let whole = told(tally(keys("a-key-without-a-separator-", 3), 3, true));
        assert_eq!(whole, [("none".to_owned(), 3.0, 0.0)]);
    }

    #[test]
    fn databases_are_told_apart() {
        let mut other = tally(keys("user:", 3), 3, true);
        other.database = 5;
        let told = lines(&[tally(keys("user:", 2), 2, true), other]);
        assert_eq!(told.iter().map(|line| (line.database, line.keys)).collect::<Vec<_>>(), [(5, 3.0), (0, 2.0)]);
    }
}
