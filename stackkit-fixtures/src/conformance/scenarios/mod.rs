//! The table of scenarios.

mod damage;
mod dump;
mod metrics;
mod probe;
mod restore;
mod secrecy;

use crate::conformance::runner::Scenario;

/// Every scenario, in the order of the contracts: probe, metrics, dump, restore, damage, secrets.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    let tables = [
        probe::SCENARIOS,
        metrics::SCENARIOS,
        dump::SCENARIOS,
        restore::SCENARIOS,
        damage::SCENARIOS,
        secrecy::SCENARIOS,
    ];
    tables.into_iter().flatten()
}
