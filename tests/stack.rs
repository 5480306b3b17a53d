//! The whole-stack tests, with every feature on: a table of tests, so that one whose server is missing is ignored with
//! a reason, or fails where `STACKKIT_REQUIRE` names it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod base_backup;
mod browser;
mod buckets;
mod catalogue;
mod chromium;
mod command_line;
mod drill;
mod faults;
mod freshness;
mod health_faults;
mod keys;
mod maintain;
mod operator;
mod programs;
mod prune;
mod secrets;
mod site;
mod strangers;
mod tls;
mod tool;
mod vendor;
mod watch;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Ok(store) = std::env::var(health_faults::soak::CHILD) {
        health_faults::soak::child(&store);
        return ExitCode::SUCCESS;
    }
    let modules = [
        ("base_backup", base_backup::TESTS),
        ("browser", browser::TESTS),
        ("buckets", buckets::TESTS),
        ("catalogue", catalogue::TESTS),
        ("command_line", command_line::TESTS),
        ("drill", drill::TESTS),
        ("faults", faults::TESTS),
        ("freshness", freshness::TESTS),
        ("keys", keys::TESTS),
        ("maintain", maintain::TESTS),
        ("operator", operator::TESTS),
        ("programs", programs::TESTS),
        ("prune", prune::TESTS),
        ("secrets", secrets::TESTS),
        ("strangers", strangers::TESTS),
        ("vendor", vendor::TESTS),
        ("tls", tls::TESTS),
        ("watch", watch::TESTS),
    ];
    let mut trials: Vec<Trial> =
        modules.iter().flat_map(|(module, tests)| tests.iter().map(move |test| test.trial(module))).collect();
    trials.extend(health_faults::tests().map(|test| test.trial("health_faults")));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
