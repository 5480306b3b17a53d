//! `cargo xtask bench`: ours and the peers, interleaved, in the release profile.

use std::path::PathBuf;

use crate::output::{Result, headline};
use crate::servers;
use crate::shell::Run;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only these benches; the default is all
    #[arg(value_name = "NAME", value_parser = ["pipeline", "redis", "volume", "probe", "health"])]
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
    let mut bench = Run::cargo().args(["bench", "--bench", "stores", "--"]);
    bench = bench.args(&args.names).arg("--runs").arg(args.runs.to_string());
    if let Some(file) = &args.json {
        // The bench runs in the workspace's root, whatever folder the person is in.
        bench = bench.arg("--json").arg(std::path::absolute(file)?);
    }
    bench.run()
}
