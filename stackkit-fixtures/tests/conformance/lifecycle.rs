//! However a process ends: no server, no watchdog and no directory stay behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use stackkit_core::process::Child;
use stackkit_fixtures::conformance::{Outcome, check, same, trial};
use stackkit_fixtures::wait_until;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::child;

/// How long the watchdogs may take; they take some 80 ms on an idle machine.
const GONE_DEADLINE: Duration = Duration::from_secs(20);
/// How long a child may take to come to a point of its start.
const MOMENT_DEADLINE: Duration = Duration::from_secs(60);

/// Files by which the moments of a start are known, in the order in which they come up.
const MOMENTS: [&str; 7] = ["", "redis.conf", "pid", "redis.sock", "data", "data/postmaster.pid", ".s.PGSQL.5432"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("lifecycle::killed_when_ready", "postgres", killed_when_ready),
        trial("lifecycle::killed_at_moments_of_the_start", "postgres", killed_while_starting),
        trial("lifecycle::killed_while_initdb_runs", "postgres", killed_while_initdb_runs),
        trial("lifecycle::panicked", "postgres", panicked),
        trial("lifecycle::ended_with_fixtures_in_a_static", "postgres", ended_with_a_static),
        trial("lifecycle::dropped", "postgres", dropped),
    ]
}

/// A directory for the fixtures of a child, open to the servers' users.
pub(crate) fn root() -> TempDir {
    let root = tempfile::Builder::new().prefix("skt").tempdir_in("/tmp").expect("a directory");
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711)).expect("its mode");
    root
}

async fn ready(child: &mut Child) {
    let stdout = child.take_stdout().expect("a pipe");
    let line = BufReader::new(stdout).lines().next_line().await.expect("a line").expect("the child's fixtures");
    assert_eq!(line, "ready");
}

fn kill(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("a running child");
    kill_process(pid, Signal::KILL).expect("the right to kill it");
}

/// Waits until nothing is in `root`, and no process has it among its arguments.
pub(crate) async fn nothing_stays(root: &Path) -> Outcome {
    let nothing = async || {
        let empty = fs::read_dir(root).expect("the root").next().is_none();
        (empty && processes_with(root).is_empty()).then_some(())
    };
    let waited = wait_until("all fixtures are gone", GONE_DEADLINE, nothing).await;
    check(waited.is_ok(), || {
        let files: Vec<_> = fs::read_dir(root).expect("the root").flatten().map(|entry| entry.path()).collect();
        format!("left behind: {files:?} {:?}", processes_with(root))
    })
}

/// The arguments of each process that has `root` among them: servers have their directory there, watchdogs too.
fn processes_with(root: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("a system with /proc").flatten();
    let arguments = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let arguments = arguments.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    arguments.filter(|line| line.contains(&root.display().to_string())).collect()
}

async fn killed_when_ready() -> Outcome {
    let root = root();
    let mut child = child::tool(child::HANG, root.path()).stdout_piped().spawn()?;
    ready(&mut child).await;
    // Redis, PostgreSQL and a volume, each with its watchdog.
    same("directories of a running child", &3, &fs::read_dir(root.path())?.count())?;
    let seen = async || (processes_with(root.path()).len() >= 5).then_some(());
    wait_until("two servers and three watchdogs are seen", MOMENT_DEADLINE, seen).await?;
    kill(&child);
    nothing_stays(root.path()).await
}

/// Whether a fixture in `root` has got as far as to have this file.
fn reached(root: &Path, file: &str) -> Option<()> {
    let mut directories = fs::read_dir(root).expect("the root").flatten();
    directories.any(|directory| directory.path().join(file).exists()).then_some(())
}

async fn killed_while_starting() -> Outcome {
    for moment in MOMENTS {
        let root = root();
        let child = child::tool(child::HANG, root.path()).stdout_piped().spawn()?;
        wait_until("the child comes to the moment", MOMENT_DEADLINE, async || reached(root.path(), moment)).await?;
        kill(&child);
        nothing_stays(root.path()).await?;
    }
    Ok(())
}

async fn killed_while_initdb_runs() -> Outcome {
    let (root, cache) = (root(), tempfile::tempdir()?);
    let child = child::tool(child::HANG, root.path()).env("STACKKIT_FIXTURES_CACHE", cache.path());
    let child = child.stdout_piped().spawn()?;
    wait_until("initdb has begun", MOMENT_DEADLINE, async || reached(root.path(), "data/PG_VERSION")).await?;
    kill(&child);
    nothing_stays(root.path()).await?;
    let names: Vec<_> = fs::read_dir(cache.path())?.flatten().map(|entry| entry.file_name()).collect();
    same("what is in the cache", &vec!["postgresql.lock".into()], &names)
}

async fn panicked() -> Outcome {
    let root = root();
    let mut child = child::tool(child::PANIC, root.path()).stdout_piped().spawn()?;
    ready(&mut child).await;
    check(child.wait().await.is_err(), || "the child did not panic".to_owned())?;
    // A panic drops what is held: nobody needs to wait for a watchdog.
    same("what is left right after the panic", &0, &fs::read_dir(root.path())?.count())?;
    nothing_stays(root.path()).await
}

async fn ended_with_a_static() -> Outcome {
    let root = root();
    let mut child = child::tool(child::EXIT_WITH_STATIC, root.path()).stdout_piped().spawn()?;
    ready(&mut child).await;
    child.wait().await?;
    nothing_stays(root.path()).await
}

async fn dropped() -> Outcome {
    let redis = stackkit_fixtures::redis().await?;
    let postgres = stackkit_fixtures::postgres_server(stackkit_fixtures::PostgresOptions::new()).await?;
    let volume = stackkit_fixtures::volume()?;
    let redis_dir = redis.socket().parent().expect("a directory").to_owned();
    let directories = [redis_dir, postgres.socket_dir().to_owned(), volume.path().parent().expect("one").to_owned()];
    for directory in &directories {
        same("the mode of a fixture's directory", &0o700, &(fs::metadata(directory)?.permissions().mode() & 0o777))?;
    }
    drop((redis, postgres, volume));
    for directory in directories {
        check(!directory.exists(), || format!("{} is still there", directory.display()))?;
        same("processes of a dropped fixture", &Vec::new(), &processes_with(&directory))?;
    }
    Ok(())
}
