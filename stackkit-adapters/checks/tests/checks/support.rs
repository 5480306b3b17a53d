//! What the tests share.

use std::time::Duration;

use stackkit_checks as _;
use stackkit_core::health::{Status, Thresholds, Tier, Verdict};
use stackkit_core::{Clock, Error, HealthCheck, Observation, ProbeContext};
use tokio::time::Instant;

/// The deadline of probes that are to meet it.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(300);
/// How much later than its deadline a probe may end here. The library's own measure is 50 ms; other tests share the processor.
pub(crate) const SLACK: Duration = Duration::from_millis(500);
/// The deadline of probes that are not to meet it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn within(timeout: Duration, tier: Tier) -> ProbeContext {
    ProbeContext::new(tier, Clock::system().deadline(timeout))
}

/// Probes the only tier of a check, and holds what it tells against its catalogue.
pub(crate) async fn probe(check: &dyn HealthCheck) -> Result<Observation, Error> {
    let [tier] = check.tiers() else { panic!("a check of one tier, not {:?}", check.tiers()) };
    let observation = check.probe(&within(PATIENCE, *tier)).await?;
    assert_catalogued(check, &observation);
    Ok(observation)
}

/// Probes with a deadline that passes, and says how long that took.
pub(crate) async fn probe_in_vain(check: &dyn HealthCheck) -> (Error, Duration) {
    let start: Instant = Clock::system().instant();
    let cx = within(TIMEOUT, check.tiers()[0]);
    let error = tokio::time::timeout(PATIENCE, check.probe(&cx)).await.expect("the probe ends").unwrap_err();
    let took = start.elapsed();
    assert!(took <= TIMEOUT + SLACK, "the probe took {took:?}");
    (error, took)
}

pub(crate) fn assert_catalogued(check: &dyn HealthCheck, observation: &Observation) {
    for measured in &observation.measurements {
        let entry = check.metrics().iter().find(|metric| metric.name == measured.name);
        let entry = entry.unwrap_or_else(|| panic!("{} is not in the catalogue", measured.name));
        assert!(measured.number().is_none() || entry.kind == measured.kind, "{}", measured.name);
        assert!(check.tiers().contains(&entry.tier), "{} is of another tier", measured.name);
    }
}

pub(crate) fn verdict(check: &dyn HealthCheck, observation: &Observation) -> Verdict {
    Thresholds::new().verdict(&check.rules(), observation)
}

pub(crate) fn is_ready(check: &dyn HealthCheck, observation: &Observation) -> bool {
    verdict(check, observation).ready == Status::Healthy
}

/// The codes of the observation's own findings.
pub(crate) fn codes(observation: &Observation) -> Vec<&str> {
    observation.findings.iter().map(|finding| finding.code.as_ref()).collect()
}

/// How many files this process has open.
pub(crate) fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
