//! The engine's benches: encrypted backups, restores, verifies and listings, against the vendors' tools and restic, interleaved in one
//! run.
//!
//! `cargo xtask bench [NAME…] [--json FILE]` installs what is needed and runs them. Ours always runs in a process of its
//! own, as the peer does, so both pay for their start and ours can tell its peak memory.

mod backup;
#[path = "../shared/copy_file.rs"]
mod copy_file;
#[path = "../shared/data.rs"]
mod data;
mod listing;
#[path = "../shared/program.rs"]
mod program;
mod read;
#[path = "../shared/rounds.rs"]
mod rounds;
#[path = "../shared/run.rs"]
#[expect(dead_code, reason = "only the other program reads what a peer says")]
mod run;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;

/// Everything here is told to a person, so any error will do.
type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const BENCHES: &[program::Bench] = &[
    ("encrypted", backup::one_stream),
    ("streams", backup::eight_streams),
    ("restore", read::restore),
    ("verify", read::verify),
    ("listing", listing::listing),
];

fn main() -> ExitCode {
    program::main(BENCHES, child)
}

/// The half of a bench that runs in a process of its own.
fn child(case: &str, args: &[String]) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match case {
            "backup" => backup::child(args).await,
            "restore" => read::restore_child(args).await,
            "listing" => listing::child(args).await,
            "verify" => read::verify_child(args).await,
            _ => Err(format!("there is no child `{case}`").into()),
        }
    })?;
    run::report(&BTreeMap::new())
}
