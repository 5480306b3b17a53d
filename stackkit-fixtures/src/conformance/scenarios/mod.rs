//! The table of scenarios.

mod damage;
mod dump;
mod probe;
mod restore;
mod secrecy;

use crate::conformance::runner::Scenario;

/// Every scenario, in the order of the contracts: probe, dump, restore, damage, secrets.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [probe::SCENARIOS, dump::SCENARIOS, restore::SCENARIOS, damage::SCENARIOS, secrecy::SCENARIOS].into_iter().flatten()
}
