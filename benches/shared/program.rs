//! The command line of a bench program, and the loop over its benches.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::Result;
use crate::rounds::{self, Rounds, Row};

/// A bench by its name: it prepares its input and plays its rounds.
pub(crate) type Bench = (&'static str, fn(&Rounds) -> Result<Vec<Row>>);

#[derive(Debug, Parser)]
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

/// Runs what the command line asks for: `benches`, or with `--child` the half of one that has a process of its own.
pub(crate) fn main(benches: &[Bench], child: fn(&str, &[String]) -> Result) -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.child {
        Some(case) => child(case, &cli.names),
        None => parent(&cli, benches),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            rounds::say_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn parent(cli: &Cli, benches: &[Bench]) -> Result {
    let known = |name: &&String| benches.iter().any(|(bench, _)| bench == name);
    if let Some(name) = cli.names.iter().find(|name| !known(name)) {
        return Err(format!("there is no bench `{name}`").into());
    }
    let append = |path: &PathBuf| OpenOptions::new().create(true).append(true).open(path);
    let mut json = cli.json.as_ref().map(append).transpose()?;
    for (name, bench) in benches.iter().filter(|(name, _)| cli.names.is_empty() || cli.names.iter().any(|n| n == name))
    {
        let rows = bench(&Rounds { bench: name, runs: cli.runs.max(1) })?;
        rounds::print(&rows);
        if let Some(json) = &mut json {
            rounds::write_json(&rows, json)?;
        }
    }
    Ok(())
}
