//! The benches of the health engine: what a report, an endpoint, a probe and ten thousand checks at rest cost.
//!
//! `cargo xtask bench report readyz probe idle peers` runs them.

mod idle;
mod noop;
mod peers;
mod probe;
#[path = "../shared/program.rs"]
mod program;
mod readyz;
mod report;
#[path = "../shared/rounds.rs"]
mod rounds;
#[allow(dead_code, reason = "each program uses a part of it")]
#[path = "../shared/run.rs"]
mod run;
mod wrk;

use std::error::Error;
use std::process::ExitCode;

/// Everything here is told to a person, so any error will do.
type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const BENCHES: &[program::Bench] = &[
    ("report", report::bench),
    ("readyz", readyz::bench),
    ("probe", probe::bench),
    ("idle", idle::bench),
    ("peers", peers::bench),
];

fn main() -> ExitCode {
    program::main(BENCHES, child)
}

/// The half of a bench that runs in a process of its own.
fn child(case: &str, args: &[String]) -> Result {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if case == "readyz" || case == "peers" {
        // The load is for one core; the generator has the other.
        builder.worker_threads(1);
    }
    let cases = builder.enable_all().build()?.block_on(async {
        match case {
            "report" => report::child(args).await,
            "readyz" => readyz::child(args).await,
            "probe" => probe::child(args).await,
            "idle" => idle::child(args).await,
            "peers" => peers::child(args).await,
            _ => Err(format!("there is no child `{case}`").into()),
        }
    })?;
    run::report(&cases)
}
