//! `cargo xtask test`: what decides whether a change lands.

use std::time::Duration;

use crate::deps;
use crate::fuzz;
use crate::output::{Result, headline, line, took};
use crate::servers;
use crate::shell::{self, Run};

/// The stores and tools whose absence fails the tests instead of skipping them.
const REQUIRED: &str = "postgres,postgres16,postgres17,postgres18,pgbouncer,redis,volume,minio,age,promtool,chromium";

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Leave out the installation of servers and the documentation; a missing server skips its tests
    #[arg(long)]
    quick: bool,
}

/// A named step.
type Step = (&'static str, fn() -> Result);

/// Cheap steps first. Nothing builds the workspace before the tests do: another selection of packages has other features, and
/// would compile the dependencies once more.
const STEPS: &[Step] = &[("fmt", fmt), ("deps", deps), ("clippy", clippy), ("each member alone", alone)];

/// Runs every step and stops at the first failure. The tests come last, so the runner's own summary ends the output.
///
/// # Errors
/// If a step fails.
pub(crate) fn run(args: &Args) -> Result {
    let mut steps: Vec<Step> = STEPS.to_vec();
    if !args.quick {
        steps.insert(0, ("servers", || servers::run(&servers::Args::default())));
        steps.push(("docs", docs));
        steps.push(("fuzz", || fuzz::run(&fuzz::Args::for_tests())));
    }
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, step) in steps {
        headline(name);
        let (done, wall) = shell::timed(step);
        took(name, wall);
        done?;
        times.push((name, wall));
    }
    for (name, wall) in times {
        line(&format!("{name:<20}{:>8.1} s", wall.as_secs_f64()));
    }
    headline("tests");
    // Tests that make a panic on purpose would bury what failed under their backtraces.
    let tests =
        Run::cargo().args(["test", "--workspace", "--all-features", "--no-fail-fast"]).env("RUST_BACKTRACE", "0");
    if args.quick { tests.run() } else { tests.env("STACKKIT_REQUIRE", REQUIRED).run() }
}

fn fmt() -> Result {
    Run::cargo().args(["fmt", "--all", "--check"]).run()
}

fn deps() -> Result {
    deps::run(&deps::Args {})
}

fn clippy() -> Result {
    Run::cargo().args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]).run()
}

/// A member that compiles only because another one turns a feature on fails here, and so does a feature of the facade that
/// needs another one.
fn alone() -> Result {
    let check = |name: &str| Run::cargo().args(["check", "--quiet", "--package", name]);
    deps::members().try_for_each(|name| check(name).run())?;
    let features = deps::facade_features()?;
    features.iter().try_for_each(|feature| check(deps::FACADE).args(["--features", feature]).run())
}

fn docs() -> Result {
    let doc = Run::cargo().args(["doc", "--workspace", "--all-features", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings").run()
}
