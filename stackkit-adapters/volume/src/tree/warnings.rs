//! Warnings of a run, bounded.

use crate::error::PathText;

/// The most warnings that are kept word for word; the others are counted. A report stays readable, and small.
const WARNINGS_MAX: usize = 100;

/// What a report tells beside its result.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    kept: Vec<String>,
    dropped: u64,
}

impl Warnings {
    /// Says `what` of the entry at `path`.
    pub(crate) fn push(&mut self, path: &[u8], what: &str) {
        match self.kept.len() < WARNINGS_MAX {
            true => self.kept.push(format!("{}: {what}", PathText::new(path))),
            false => self.dropped += 1,
        }
    }

    /// Takes over those of another run.
    pub(crate) fn append(&mut self, other: Self) {
        let room = WARNINGS_MAX - self.kept.len();
        let beyond = other.kept.len().saturating_sub(room);
        self.kept.extend(other.kept.into_iter().take(room));
        self.dropped += other.dropped + beyond as u64;
    }

    /// All of them, the last line being the count of those that were dropped.
    pub(crate) fn into_lines(mut self) -> Vec<String> {
        if self.dropped > 0 {
            self.kept.push(format!("{} more warnings of this kind", self.dropped));
        }
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_warnings_stay_small() {
        let mut warnings = Warnings::default();
        for _ in 0..1_000_000 {
            warnings.push(b"socket", "skipped");
        }
        let lines = warnings.into_lines();
        assert_eq!(lines.len(), WARNINGS_MAX + 1);
        assert!(lines[WARNINGS_MAX].starts_with("999900 more"));
    }
}
