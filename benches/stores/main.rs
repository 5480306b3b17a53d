//! The benches: stackkit against the vendors' own and other tools, interleaved in one run.
//!
//! `cargo xtask bench [NAME…] [--json FILE]` installs what is needed and runs them. Ours always runs in a process of its own, as
//! the peer does, so both pay for their start and ours can tell its peak memory.

#[path = "../shared/copy_file.rs"]
mod copy_file;
#[path = "../shared/data.rs"]
mod data;
mod inputs;
mod pipeline;
#[path = "../shared/program.rs"]
mod program;
mod redis;
#[path = "../shared/rounds.rs"]
mod rounds;
#[path = "../shared/run.rs"]
mod run;
mod volume;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;

/// Everything here is told to a person, so any error will do.
type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const BENCHES: &[program::Bench] = &[("pipeline", pipeline::bench), ("redis", redis::bench), ("volume", volume::bench)];

fn main() -> ExitCode {
    program::main(BENCHES, child)
}

/// The half of a bench that runs in a process of its own.
fn child(case: &str, args: &[String]) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cases = runtime.block_on(async {
        match case {
            "pipeline" => pipeline::child(args).await.map(|()| BTreeMap::new()),
            "redis" => redis::child(args).await.map(|()| BTreeMap::new()),
            "volume" => volume::child(args).await.map(|()| BTreeMap::new()),
            _ => Err(format!("there is no child `{case}`").into()),
        }
    })?;
    run::report(&cases)
}
