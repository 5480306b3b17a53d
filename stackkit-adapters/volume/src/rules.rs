//! From which values on a volume needs somebody.

use stackkit_core::health::Rule;

/// From this share of used space or inodes on, somebody should look.
const USED_RATIO_WARNING: f64 = 0.85;
/// From this share on, it is about to fail.
const USED_RATIO_CRITICAL: f64 = 0.95;

/// Full within a day, at the rate of the last hours: time to look in working hours. Both limits are those of the alerts
/// that Prometheus' node exporter comes with.
const TIME_TO_FULL_WARNING_SECONDS: f64 = 24.0 * 3600.0;
/// Full within four hours: somebody has to get up.
const TIME_TO_FULL_CRITICAL_SECONDS: f64 = 4.0 * 3600.0;

/// The next backup would take half of what is left: the one after it no longer fits.
const EXPECTED_WRITE_RATIO_WARNING: f64 = 0.5;
/// The next backup does not fit.
const EXPECTED_WRITE_RATIO_CRITICAL: f64 = 1.0;

/// A flush takes 4 ms to 8 ms on a disk that works; one that takes a second holds up every commit.
const SYNC_PROBE_WARNING_MS: f64 = 1000.0;

/// The rules of a volume that is written to. One that is only read may be full: a read-only image always is.
pub(crate) fn rules(is_read_only: bool) -> Vec<Rule> {
    if is_read_only {
        return Vec::new();
    }
    vec![
        Rule::above("used_ratio", "volume.space.low")
            .warning(USED_RATIO_WARNING)
            .critical(USED_RATIO_CRITICAL)
            .saying("most of the space is used", "make room, or enlarge the file system"),
        Rule::above("inodes_used_ratio", "volume.inodes.low")
            .warning(USED_RATIO_WARNING)
            .critical(USED_RATIO_CRITICAL)
            .saying("most of the inodes are used", "remove small files, or make a file system with more inodes"),
        Rule::below("time_to_full_seconds", "volume.space.filling")
            .warning(TIME_TO_FULL_WARNING_SECONDS)
            .critical(TIME_TO_FULL_CRITICAL_SECONDS)
            .saying("the space is filling up", "find what writes so much, and make room before it is full"),
        Rule::above("expected_write_ratio", "volume.space.short")
            .warning(EXPECTED_WRITE_RATIO_WARNING)
            .critical(EXPECTED_WRITE_RATIO_CRITICAL)
            .saying("there is hardly room for the next large write", "make room, or enlarge the file system"),
        Rule::above("sync_probe_ms", "volume.sync.slow")
            .warning(SYNC_PROBE_WARNING_MS)
            .saying("it takes long until a write is on the disk", "look at the disk's load and at the kernel's log"),
    ]
}

#[cfg(test)]
mod tests {
    use stackkit_core::Observation;
    use stackkit_core::health::{Severity, Status, Thresholds};

    use super::*;

    fn found(name: &'static str, value: f64) -> Vec<(String, Severity)> {
        let verdict = Thresholds::new().verdict(&rules(false), &Observation::new().gauge(name, value));
        assert_eq!(verdict.ready, Status::Healthy, "a filling disk is a risk");
        verdict.findings.into_iter().map(|finding| (finding.code.into_owned(), finding.severity)).collect()
    }

    #[test]
    fn a_filling_disk_is_a_risk() {
        let warns = |code: &str| vec![(code.to_owned(), Severity::Warning)];
        let fails = |code: &str| vec![(code.to_owned(), Severity::Critical)];
        assert_eq!(found("used_ratio", 0.84), []);
        assert_eq!(found("used_ratio", 0.85), warns("volume.space.low"));
        assert_eq!(found("used_ratio", 0.95), fails("volume.space.low"));
        assert_eq!(found("inodes_used_ratio", 0.98), fails("volume.inodes.low"));
        assert_eq!(found("time_to_full_seconds", 25.0 * 3600.0), []);
        assert_eq!(found("time_to_full_seconds", 5.0 * 3600.0), warns("volume.space.filling"));
        assert_eq!(found("time_to_full_seconds", 60.0), fails("volume.space.filling"));
        assert_eq!(found("expected_write_ratio", 0.5), warns("volume.space.short"));
        assert_eq!(found("expected_write_ratio", 1.0), fails("volume.space.short"));
        assert_eq!(found("sync_probe_ms", 1500.0), warns("volume.sync.slow"));
    }

    #[test]
    fn a_read_only_image_may_be_full() {
        assert_eq!(rules(true), []);
    }
}
