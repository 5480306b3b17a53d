//! `cargo xtask bench`: ours and the peers, interleaved, in the release profile.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use crate::output::{Result, headline};
use crate::servers;
use crate::shell::Run;

/// The bench programs of the workspace's root, and what each can measure.
const PROGRAMS: [(&str, &[&str]); 3] = [
    ("stores", &["pipeline", "redis", "volume"]),
    ("engine", &["encrypted", "streams", "restore", "verify"]),
    ("health", &["report", "readyz", "probe", "idle", "peers"]),
];

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only these benches; the default is all
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(names()))]
    names: Vec<String>,
    /// Also write one JSON object per line and case
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds; each runs ours and every peer once
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
}

/// Installs servers and peers, then builds and runs the benches.
///
/// # Errors
/// If something is missing, or a bench fails.
pub(crate) fn run(args: &Args) -> Result {
    headline("servers and peers");
    servers::run(&servers::Args::for_benches())?;
    headline("benches");
    if let Some(file) = args.json.as_ref().filter(|file| file.exists()) {
        // Each program appends to it.
        std::fs::remove_file(file)?;
    }
    for (program, known) in PROGRAMS {
        let chosen: Vec<&String> = args.names.iter().filter(|name| known.contains(&name.as_str())).collect();
        if !args.names.is_empty() && chosen.is_empty() {
            continue;
        }
        let mut bench = Run::cargo().args(["bench", "--bench", program, "--"]);
        bench = bench.args(chosen).arg("--runs").arg(args.runs.to_string());
        if let Some(file) = &args.json {
            // The bench runs in the workspace's root, whatever folder the person is in.
            bench = bench.arg("--json").arg(std::path::absolute(file)?);
        }
        bench.run()?;
    }
    Ok(())
}

fn names() -> Vec<&'static str> {
    PROGRAMS.iter().flat_map(|(_, names)| names.iter().copied()).collect()
}
