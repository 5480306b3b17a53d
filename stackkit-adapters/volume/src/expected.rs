//! The next large write, that an application knows of.

use std::fmt;
use std::sync::Arc;

use stackkit_core::Observation;

use crate::metrics::number;

/// Tells how many bytes the next large write takes, if the application said how to ask.
#[derive(Clone, Default)]
pub(crate) struct ExpectedWrite(Option<Arc<dyn Fn() -> Option<u64> + Send + Sync>>);

impl fmt::Debug for ExpectedWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ExpectedWrite(…)" } else { "ExpectedWrite(none)" })
    }
}

impl ExpectedWrite {
    pub(crate) fn new(ask: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }

    /// Compares it with the space; adds nothing where nobody expects a write.
    pub(crate) fn observe(&self, observation: Observation, available_bytes: u64) -> Observation {
        let Some(ask) = &self.0 else { return observation };
        match ask() {
            // Of nothing that is left, every write takes more than all.
            Some(bytes) => observation
                .gauge("expected_write_bytes", number(bytes))
                .gauge("expected_write_ratio", number(bytes) / number(available_bytes.max(1))),
            None => ["expected_write_bytes", "expected_write_ratio"]
                .into_iter()
                .fold(observation, |seen, name| seen.unavailable(name, "the application does not know it yet")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_write_is_compared_with_the_space() {
        let ratio = |bytes, available| {
            ExpectedWrite::new(move || bytes).observe(Observation::new(), available).value("expected_write_ratio")
        };
        assert_eq!(ratio(Some(50), 100), Some(0.5));
        assert_eq!(ratio(Some(50), 0), Some(50.0));
        assert_eq!(ratio(None, 100), None);
        assert_eq!(ExpectedWrite::default().observe(Observation::new(), 1), Observation::new());
    }
}
