//! PostgreSQL: dumps and restores against the vendor's tools, interleaved in one run, with the CPU of client and server beside.
//!
//! `cargo xtask bench postgres [--json FILE]` installs what is needed and runs them. Ours always runs in a process of its own, as
//! the peer does, so both pay for their start and ours can tell its peak memory.

#[path = "../shared/data.rs"]
#[expect(dead_code, reason = "its inputs are files, and here it is a server")]
mod data;
mod dump;
mod limit;
mod load;
mod meter;
#[path = "../shared/program.rs"]
mod program;
#[path = "../shared/rounds.rs"]
mod rounds;
#[path = "../shared/run.rs"]
#[expect(dead_code, reason = "the tools come with the server, and only other programs read what a peer says")]
mod run;
mod server;
mod sink;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;

/// Everything here is told to a person, so any error will do.
type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const BENCHES: &[program::Bench] = &[("dump", dump::bench), ("load", load::whole), ("table", load::one_table)];

fn main() -> ExitCode {
    program::main(BENCHES, child)
}

/// The half of a bench that runs in a process of its own.
fn child(case: &str, args: &[String]) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match case {
            "dump" => dump::child(args).await,
            "dropped" => dump::dropped_child(args).await,
            "limit" => limit::child(args),
            "load" => load::child(args).await,
            _ => Err(format!("there is no child `{case}`").into()),
        }
    })?;
    run::report(&BTreeMap::new())
}
