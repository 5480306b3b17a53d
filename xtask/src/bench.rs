//! `cargo xtask bench`: ours and the peers, interleaved, in the release profile.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use crate::output::{Result, headline};
use crate::servers;
use crate::shell::Run;

/// The bench programs of the workspace's root, and what each can measure.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("stores", &["pipeline", "redis", "volume"]),
    ("engine", &["encrypted", "streams", "restore", "verify"]),
    ("health", &["report", "readyz", "probe", "idle", "peers"]),
    ("postgres", &["dump", "load", "table"]),
];

/// The program whose server syncs what it writes, and a directory that is no memory: FHS has it survive a reboot.
const ON_DISK: (&str, &str) = ("postgres", "/var/tmp");

/// Where the fixtures put their servers' directories.
const FIXTURES_DIR: &str = "STACKKIT_FIXTURES_DIR";

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only these benches, or all of these programs; the default is all
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
        let Some(chosen) = chosen(program, known, &args.names) else { continue };
        let mut bench = Run::cargo().args(["bench", "--bench", program, "--"]);
        if program == ON_DISK.0 && std::env::var_os(FIXTURES_DIR).is_none() {
            bench = bench.env(FIXTURES_DIR, ON_DISK.1);
        }
        bench = bench.args(chosen).arg("--runs").arg(args.runs.to_string());
        if let Some(file) = &args.json {
            // The bench runs in the workspace's root, whatever folder the person is in.
            bench = bench.arg("--json").arg(std::path::absolute(file)?);
        }
        bench.run()?;
    }
    Ok(())
}

/// The benches of a program that are asked for, all if there are none; `None` if it has nothing to do.
fn chosen<'a>(program: &str, known: &[&str], names: &'a [String]) -> Option<Vec<&'a String>> {
    if names.is_empty() || names.iter().any(|name| name == program) {
        return Some(Vec::new());
    }
    let chosen: Vec<&String> = names.iter().filter(|name| known.contains(&name.as_str())).collect();
    (!chosen.is_empty()).then_some(chosen)
}

/// The programs, and what each can measure.
fn names() -> Vec<&'static str> {
    PROGRAMS.iter().flat_map(|(program, names)| std::iter::once(*program).chain(names.iter().copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_stands_for_all_its_benches() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let known = ["dump", "load"];
        assert_eq!(chosen("postgres", &known, &names(&[])), Some(Vec::new()));
        assert_eq!(chosen("postgres", &known, &names(&["postgres"])), Some(Vec::new()));
        assert_eq!(chosen("postgres", &known, &names(&["idle"])), None);
        assert_eq!(chosen("postgres", &known, &names(&["idle", "load"])), Some(vec![&"load".to_owned()]));
    }
}
