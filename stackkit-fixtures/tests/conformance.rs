//! The suite against the store in memory, and the fixtures' own tests.

use std::process::ExitCode;

use stackkit_fixtures::conformance::{self, targets};

fn main() -> ExitCode {
    let mut trials = conformance::trials(targets::volume());
    trials.extend(conformance::trials(targets::redis()));
    trials.extend(conformance::trials(targets::postgres()));
    conformance::main(targets::memory(), trials)
}
