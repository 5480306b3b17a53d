//! `cargo xtask demo`: the main job on real stores.

use crate::output::{Result, headline};
use crate::servers;
use crate::shell::Run;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Arguments of the demo itself
    #[arg(last = true)]
    demo: Vec<String>,
}

/// Installs the servers, then builds and runs the demo.
///
/// # Errors
/// If a server is missing, or if the demo found a difference.
pub(crate) fn run(args: &Args) -> Result {
    headline("servers");
    servers::run(&servers::Args::default())?;
    headline("demo");
    Run::cargo().args(["run", "--example", "demo", "--"]).args(&args.demo).run()
}
