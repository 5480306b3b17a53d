//! The suite, and what only directories have, with GNU tar as the second opinion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed assumption fails the case")]

#[path = "conformance/archive.rs"]
mod archive;
#[path = "conformance/dump.rs"]
mod dump;
#[path = "conformance/edges.rs"]
mod edges;
#[path = "conformance/health.rs"]
mod health;
#[path = "conformance/hostile.rs"]
mod hostile;
#[path = "conformance/memory.rs"]
mod memory;
#[path = "conformance/mounts.rs"]
mod mounts;
#[path = "conformance/restore.rs"]
mod restore;
#[path = "conformance/support.rs"]
mod support;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::OnceLock;

use libtest_mimic::{Completion, Trial};
use stackkit_fixtures::conformance::{main as run, targets};
use tokio::runtime::Runtime;

/// How a case ends: a panic fails it, a reason ignores it.
type Ending = Result<(), Ignored>;

/// Why a case can't run on this machine.
#[derive(Debug)]
struct Ignored(String);

/// One case: its name, and what it does.
type Case = (&'static str, fn() -> Pin<Box<dyn Future<Output = Ending>>>);

/// Makes a case of an async function.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        &[$((concat!(module_path!(), "::", stringify!($case)), || Box::pin($case()))),*]
    };
}
pub(crate) use cases;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

fn main() -> ExitCode {
    let cases =
        [archive::CASES, dump::CASES, restore::CASES, hostile::CASES, edges::CASES, mounts::CASES, health::CASES]
            .concat();
    let trial = |(name, case): Case| {
        Trial::ignorable_test(name.trim_start_matches("conformance::"), move || {
            Ok(match runtime().block_on(case()) {
                Ok(()) => Completion::Completed,
                Err(Ignored(reason)) => Completion::ignored_with(reason),
            })
        })
    };
    run(targets::volume(), cases.into_iter().map(trial).collect())
}
