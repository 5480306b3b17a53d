//! The same binary once for each version of PostgreSQL, one after another: the shared server is one a process.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use stackkit_fixtures::find_postgres;

/// The environment variable by which fixtures take another version than the one that is installed.
const MAJOR: &str = "STACKKIT_POSTGRES_MAJOR";
/// The environment variable that says that this process is to run a version itself.
const CHILD: &str = "STACKKIT_POSTGRES_CHILD";

/// How much of the tests a version runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of them.
    Whole,
    /// The suite of all adapters, health, dump, load, swap and archives: what a build without contrib, TLS, ICU and XML
    /// can show.
    Core,
}

/// The versions beside the one that is installed: what Debian stable ships in full, the others in their core.
const VERSIONS: [(u32, Extent); 3] = [(17, Extent::Whole), (16, Extent::Core), (18, Extent::Core)];

/// Runs the tests: `run` on the installed version, then this binary again on every other. `STACKKIT_POSTGRES_MAJOR=17`
/// runs that version alone, and the whole of it.
pub(crate) fn run(run: impl FnOnce(Extent) -> ExitCode) -> ExitCode {
    if let Ok(extent) = env::var(CHILD) {
        return run(if extent == "core" { Extent::Core } else { Extent::Whole });
    }
    let named = env::var(MAJOR).unwrap_or_default();
    if let Ok(major) = named.parse() {
        return child(major, Extent::Whole);
    }
    let installed = run(Extent::Whole);
    let others: Vec<ExitCode> = VERSIONS.into_iter().map(|(major, extent)| child(major, extent)).collect();
    others.into_iter().chain([installed]).find(|code| *code != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS)
}

/// This binary with the same arguments on another version, whose tools are the first in `PATH`. Where it is not
/// installed, every case is ignored with the reason, or fails if it is required.
fn child(major: u32, extent: Extent) -> ExitCode {
    println!("PostgreSQL {major}, {extent:?}");
    let tools = find_postgres(Some(major)).ok().and_then(|postgres| Some(postgres.parent()?.to_owned()));
    let inherited = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = tools.into_iter().chain(env::split_paths(&inherited)).collect();
    let binary = env::current_exe().expect("the path of this binary");
    #[expect(clippy::disallowed_methods, reason = "a child with this process's own streams; it ends by itself")]
    let mut command = std::process::Command::new(binary);
    command.args(env::args_os().skip(1)).env("PATH", env::join_paths(folders).expect("a list of folders"));
    let extent = format!("{extent:?}").to_lowercase();
    let status = command.env(MAJOR, major.to_string()).env(CHILD, extent).status();
    if status.expect("this binary can be started").success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
