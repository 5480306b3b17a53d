//! The suite, and what only Redis has, against real servers.
#![expect(clippy::expect_used, reason = "a test that can not be set up fails")]

#[path = "conformance/connect.rs"]
mod connect;
#[path = "conformance/dump.rs"]
mod dump;
#[path = "conformance/restore.rs"]
mod restore;
#[path = "conformance/target.rs"]
mod target;

use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = [connect::trials(), dump::trials(), restore::trials()];
    stackkit_fixtures::conformance::main(target::RedisTarget, trials.into_iter().flatten().collect())
}
