//! The suite, and what only Redis has, against real servers.
#![expect(clippy::expect_used, reason = "a test that can not be set up fails")]

#[path = "conformance/connect.rs"]
mod connect;
#[path = "conformance/data.rs"]
mod data;
#[path = "conformance/dump.rs"]
mod dump;
#[path = "conformance/faults.rs"]
mod faults;
#[path = "conformance/health.rs"]
mod health;
#[path = "conformance/restore.rs"]
mod restore;

use std::process::ExitCode;

use stackkit_fixtures::conformance::{main as run, targets};

fn main() -> ExitCode {
    let trials = [connect::trials(), dump::trials(), faults::trials(), health::trials(), restore::trials()];
    run(targets::redis(), trials.into_iter().flatten().collect())
}
