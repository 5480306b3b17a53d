//! The suite against the store in memory, and the fixtures' own tests.

use std::process::ExitCode;

use stackkit_fixtures::conformance;

fn main() -> ExitCode {
    conformance::main(conformance::targets::memory(), Vec::new())
}
