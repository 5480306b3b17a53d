//! The adapter against real servers.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a failed expectation fails the case")]

#[path = "conformance/backup.rs"]
mod backup;
#[path = "conformance/faults.rs"]
mod faults;
#[path = "conformance/health.rs"]
mod health;
#[path = "conformance/memory.rs"]
mod memory;
#[path = "conformance/restore.rs"]
mod restore;

use std::process::ExitCode;
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Trial};
use stackkit_core::ErrorKind;
use tokio::runtime::Runtime;

/// One case: its name, and what it does.
type Case = (&'static str, fn() -> futures_util::future::LocalBoxFuture<'static, ()>);

/// Makes a case of an async function.
macro_rules! cases {
    ($($case:path),* $(,)?) => { &[$((stringify!($case), || Box::pin($case()))),*] };
}
pub(crate) use cases;

/// One runtime for all cases: the shared server's tasks live on it.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

fn main() -> ExitCode {
    let missing = runtime().block_on(stackkit_fixtures::postgres()).err();
    let required = std::env::var("STACKKIT_REQUIRE").is_ok_and(|list| list.split(',').any(|name| name == "postgres"));
    if let Some(error) = &missing {
        eprintln!("no server: {}", error.chain());
    }
    let ignored = missing.is_some_and(|error| error.kind() == ErrorKind::ToolMissing) && !required;
    let cases = [health::CASES, backup::CASES, restore::CASES, faults::CASES].concat();
    let trial = |(name, run): Case| {
        let test = move || {
            runtime().block_on(run());
            Ok(())
        };
        Trial::test(name, test).with_ignored_flag(ignored)
    };
    libtest_mimic::run(&Arguments::from_args(), cases.into_iter().map(trial).collect()).exit_code()
}
