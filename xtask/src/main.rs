//! Project chores behind `cargo xtask`: install the test servers, run the test command, the dependency gate, the demo and the benches.
//!
//! It runs on a machine that has Rust and a C compiler and nothing else, so it knows no crate of the workspace.

mod bench;
mod demo;
mod deps;
mod fuzz;
mod output;
mod servers;
mod shell;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Project chores of stackkit", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install the servers and tools that the tests use; does nothing where they are there
    Servers(servers::Args),
    /// Run everything that decides whether a change lands
    Test(test::Args),
    /// Check licences, banned packages, TLS providers, the direction of dependencies and packages per crate
    Deps(deps::Args),
    /// Run the main job on real stores: health, backup, wipe, restore
    Demo(demo::Args),
    /// Run the fuzz targets for a while
    Fuzz(fuzz::Args),
    /// Measure against the vendors' and other tools, interleaved
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Servers(args) => servers::run(&args),
        Chore::Test(args) => test::run(&args),
        Chore::Deps(args) => deps::run(&args),
        Chore::Demo(args) => demo::run(&args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
