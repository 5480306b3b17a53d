//! The suite against the store in memory, and the fixtures' own tests. Each adapter runs the suite against its store.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a failed expectation fails the trial")]

#[path = "conformance/child.rs"]
mod child;
#[path = "conformance/lifecycle.rs"]
mod lifecycle;
#[path = "conformance/postgres.rs"]
mod postgres;
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
    let own = [servers::trials(), postgres::trials(), lifecycle::trials(), suite::trials()];
    conformance::main(targets::memory(), own.into_iter().flatten().collect())
}
