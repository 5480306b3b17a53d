//! The suite against every store of this workspace and the one in memory, and the fixtures' own tests.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a failed expectation fails the trial")]

#[path = "conformance/child.rs"]
mod child;
#[path = "conformance/lifecycle.rs"]
mod lifecycle;
#[path = "conformance/servers.rs"]
mod servers;
#[path = "conformance/suite.rs"]
mod suite;

use std::process::ExitCode;

use stackkit_fixtures::conformance::{self, targets};

fn main() -> ExitCode {
    if let Some(role) = child::role() {
        return child::play(&role);
    }
    let mut trials = conformance::trials(targets::volume());
    trials.extend(conformance::trials(targets::redis()));
    trials.extend(conformance::trials(targets::postgres()));
    trials.extend(servers::trials());
    trials.extend(lifecycle::trials());
    trials.extend(suite::trials());
    conformance::main(targets::memory(), trials)
}
