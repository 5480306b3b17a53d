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
mod read;
#[path = "../shared/rounds.rs"]
mod rounds;
#[path = "../shared/run.rs"]
#[expect(dead_code, reason = "only the other program reads what a peer says")]
mod run;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use rounds::Rounds;

/// Everything here is told to a person, so any error will do.
type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A bench: it prepares its input and plays its rounds.
type Bench = fn(&Rounds) -> Result<Vec<rounds::Row>>;

const BENCHES: [(&str, Bench); 5] = [
    ("encrypted", backup::one_stream),
    ("streams", backup::eight_streams),
    ("restore", read::restore),
    ("verify", read::verify),
    ("listing", listing::listing),
];

#[derive(Debug, Parser)]
#[command(name = "engine")]
struct Cli {
    /// Only these benches; the default is all
    names: Vec<String>,
    /// Also append one JSON object per line and case
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds; each runs ours and every peer once
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: u32,
    /// Run one of ours in this process and report on standard output; the other arguments belong to it
    #[arg(long, hide = true, value_name = "CASE")]
    child: Option<String>,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.child {
        Some(case) => child(case, &cli.names),
        None => parent(&cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            rounds::say_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn parent(cli: &Cli) -> Result {
    let known = |name: &&String| BENCHES.iter().any(|(bench, _)| bench == name);
    if let Some(name) = cli.names.iter().find(|name| !known(name)) {
        return Err(format!("there is no bench `{name}`").into());
    }
    let append = |path: &PathBuf| OpenOptions::new().create(true).append(true).open(path);
    let mut json = cli.json.as_ref().map(append).transpose()?;
    for (name, bench) in BENCHES.iter().filter(|(name, _)| cli.names.is_empty() || cli.names.iter().any(|n| n == name))
    {
        let rows = bench(&Rounds { bench: name, runs: cli.runs.max(1) })?;
        rounds::print(&rows);
        if let Some(json) = &mut json {
            rounds::write_json(&rows, json)?;
        }
    }
    Ok(())
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
