//! This binary as a child of itself: it starts fixtures and ends in the way that its role says.

use std::future::pending;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use stackkit_core::process::Tool;
use stackkit_fixtures::{PostgresOptions, PostgresServer, RedisFixture, VolumeFixture, postgres_server, redis, volume};

const ROLE: &str = "STACKKIT_FIXTURES_CHILD";

/// What the child does once its fixtures are ready.
pub(crate) const HANG: &str = "hang";
pub(crate) const PANIC: &str = "panic";
pub(crate) const EXIT_WITH_STATIC: &str = "exit";

static HELD: OnceLock<(RedisFixture, PostgresServer, VolumeFixture)> = OnceLock::new();

/// The role of this process, if it is a child.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// This binary in that role, with the directories of its fixtures in `root`.
pub(crate) fn tool(role: &str, root: &Path) -> Tool {
    let binary = std::env::current_exe().expect("the path of this binary");
    Tool::new(binary).env(ROLE, role).env("STACKKIT_FIXTURES_DIR", root)
}

/// Starts a Redis, a PostgreSQL and a volume, says so on standard output, and plays the role.
#[tokio::main]
pub(crate) async fn play(role: &str) -> ExitCode {
    let fixtures = (
        redis().await.expect("a redis"),
        postgres_server(PostgresOptions::new()).await.expect("a postgres"),
        volume().expect("a volume"),
    );
    println!("ready");
    std::io::stdout().flush().expect("standard output");
    match role {
        PANIC => panic!("as told"),
        EXIT_WITH_STATIC => drop(HELD.set(fixtures)),
        _ => pending().await,
    }
    ExitCode::SUCCESS
}
