//! Tools that are missing, old, or fail; sinks that fail; secrets.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use stackkit_core::backup::{ArtifactReceipt, ArtifactSink, ArtifactSpec, ArtifactWriter, DumpContext};
use stackkit_core::{BackupProvider, Error, ErrorKind, Result, async_trait};
use stackkit_fixtures::{PostgresOptions, postgres_server};
use stackkit_postgres::{Engine, Postgres, PostgresDump};
use tempfile::TempDir;

use crate::backup::filled;
use crate::memory::Memory;
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_missing_tool_says_where_it_was_looked_for,
    an_old_tool_is_explained,
    a_tool_that_fails_after_the_last_byte_fails_the_artifact,
    a_killed_tool_fails_the_artifact,
    a_failing_sink_ends_the_tool,
    a_dropped_run_ends_the_tool,
    a_lost_snapshot_fails_the_artifact,
    secrets_reach_the_tool_by_its_environment_only,
];

/// A directory with a `pg_dump` that tells `version` and then runs `script`.
fn fake_pg_dump(version: &str, script: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pg_dump");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'pg_dump (PostgreSQL) {version}'; exit; fi\n{script}\n"
    );
    std::fs::write(&path, text).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    directory
}

fn with_tools(service: &Postgres, directory: &Path) -> Postgres {
    Postgres::new(service.config().clone().with_tool_dir(directory))
}

/// The same, with `pg_dump` as the one that reads the rows.
fn passing_through(service: &Postgres, directory: &Path) -> Postgres {
    let dump = PostgresDump::new().with_engine(Engine::PgDump);
    Postgres::new(with_tools(service, directory).config().clone().with_dump(dump))
}

async fn run(service: &Postgres, sink: &dyn ArtifactSink) -> Result<()> {
    service.begin(&DumpContext::new()).await?.run(sink).await.map(|_report| ())
}

async fn a_missing_tool_says_where_it_was_looked_for() {
    let (_postgres, service) = filled().await;
    let empty = tempfile::tempdir().expect("a directory");
    let error = service_error(&with_tools(&service, empty.path())).await;
    assert_eq!(error.kind(), ErrorKind::ToolMissing);
    let text = error.to_string();
    assert!(text.contains(empty.path().to_str().expect("UTF-8")) && text.contains("no pg_dump is installed"), "{text}");
}

async fn an_old_tool_is_explained() {
    let (_postgres, service) = filled().await;
    let old = fake_pg_dump("9.6.24", "exit 1");
    let error = service_error(&with_tools(&service, old.path())).await;
    assert_eq!(error.kind(), ErrorKind::ToolMissing);
    let text = error.to_string();
    assert!(text.contains("pg_dump (9.6.24)") && text.contains("or newer is needed"), "{text}");
}

async fn service_error(service: &Postgres) -> Error {
    service.begin(&DumpContext::new()).await.map(|_dump| ()).expect_err("no tool fits")
}

async fn a_tool_that_fails_after_the_last_byte_fails_the_artifact() {
    let (_postgres, service) = filled().await;
    let fake = fake_pg_dump("99.1", "head -c 600000 /dev/zero; echo 'pg_dump: error: cut off' >&2; exit 3");
    let sink = Memory::default();
    let error = run(&passing_through(&service, fake.path()), &sink).await.expect_err("a failed tool");
    assert_eq!(error.kind(), ErrorKind::ToolFailed);
    assert!(error.to_string().contains("status=exit 3"), "{error}");
    assert!(error.chain().to_string().contains("pg_dump: error: cut off"));
    assert_eq!(sink.count(), 0);
}

async fn a_killed_tool_fails_the_artifact() {
    let (_postgres, service) = filled().await;
    let fake = fake_pg_dump("99.1", "head -c 300000 /dev/zero; kill -9 $$");
    let sink = Memory::default();
    let error = run(&passing_through(&service, fake.path()), &sink).await.expect_err("a killed tool");
    assert_eq!(error.kind(), ErrorKind::ToolFailed);
    assert!(error.to_string().contains("status=signal 9"), "{error}");
    assert_eq!(sink.count(), 0);
}

struct FullDisk;

#[async_trait]
impl ArtifactSink for FullDisk {
    async fn create(&self, _spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        Ok(Box::new(FullDisk))
    }
}

#[async_trait]
impl ArtifactWriter for FullDisk {
    async fn write(&mut self, _chunk: Bytes) -> Result<()> {
        Err(Error::io("write", std::io::ErrorKind::StorageFull.into()))
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        Err(Error::unexpected("a writer that failed was finished"))
    }
}

async fn a_failing_sink_ends_the_tool() {
    let (_postgres, service) = filled().await;
    let pid_file = tempfile::NamedTempFile::new().expect("a file");
    let fake = fake_pg_dump("99.1", &format!("echo $$ > {}; exec cat /dev/zero", pid_file.path().display()));
    let error = run(&passing_through(&service, fake.path()), &FullDisk).await.expect_err("a full disk");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(!is_alive(pid_file.path()), "the tool was ended");
}

async fn a_dropped_run_ends_the_tool() {
    let (_postgres, service) = filled().await;
    let pid_file = tempfile::NamedTempFile::new().expect("a file");
    let fake = fake_pg_dump("99.1", &format!("echo $$ > {}; exec cat /dev/zero", pid_file.path().display()));
    let service = passing_through(&service, fake.path());
    let started = async {
        while std::fs::read_to_string(pid_file.path()).is_ok_and(|text| !text.ends_with('\n')) {
            tokio::task::yield_now().await;
        }
    };
    let sink = Memory::default();
    tokio::select! {
        outcome = run(&service, &sink) => panic!("an endless tool ended: {outcome:?}"),
        started = tokio::time::timeout(Duration::from_secs(20), started) => started.expect("the tool starts"),
    }
    assert!(!is_alive(pid_file.path()), "the tool was ended");
    assert_eq!(sink.count(), 0);
}

/// With the session go its locks: from then on a `TRUNCATE` may empty a table that the tool has not reached yet.
async fn a_lost_snapshot_fails_the_artifact() {
    let (postgres, service) = filled().await;
    let directory = tempfile::tempdir().expect("a directory");
    let go_on = directory.path().join("go-on");
    let fake = fake_pg_dump("99.1", &format!("echo bytes; until [ -e {} ]; do sleep 0.01; done", go_on.display()));
    let service = passing_through(&service, fake.path());
    let sink = Memory::default();
    let end = async {
        // Idle again with the count done, which would fail by itself.
        let lost = format!(
            "select 1 / count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where datname = '{}' \
             and application_name = 'stackkit' and state = 'idle in transaction' and query like 'WITH own%'",
            postgres.database()
        );
        while postgres.execute(&lost).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let end = async {
        let ended = tokio::time::timeout(Duration::from_secs(20), end).await;
        std::fs::write(&go_on, "").expect("a file");
        ended.expect("the session is found");
    };
    let (ran, ()) = tokio::join!(run(&service, &sink), end);
    assert_eq!(ran.expect_err("the snapshot is lost").kind(), ErrorKind::Unreachable);
    assert_eq!(sink.count(), 0);
}

/// Whether the process whose id is in the file exists.
fn is_alive(pid_file: &Path) -> bool {
    let text = std::fs::read_to_string(pid_file).expect("a file");
    let pid = rustix::process::Pid::from_raw(text.trim().parse().expect("a process id")).expect("a process id");
    rustix::process::test_kill_process(pid).is_ok()
}

async fn secrets_reach_the_tool_by_its_environment_only() {
    let server = postgres_server(PostgresOptions::new().with_tcp("canary-7391-word")).await.expect("a server");
    let url = server.tcp_url_of("postgres").expect("tcp");
    let out = tempfile::tempdir().expect("a directory");
    let script = format!(
        "tr '\\0' '\\n' < /proc/$$/cmdline > {out}/argv; env > {out}/env\n\
         echo \"login $PGPASSWORD refused\" >&2; exit 1",
        out = out.path().display()
    );
    let fake = fake_pg_dump("99.1", &script);
    let service = with_tools(&Postgres::from_url(&url).expect("a URL"), fake.path());
    let error = run(&service, &Memory::default()).await.expect_err("the fake fails");
    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).expect(name);
    assert!(!read("argv").contains("canary-7391"), "{}", read("argv"));
    assert!(read("argv").contains("--snapshot="));
    assert!(read("env").contains("PGPASSWORD=canary-7391-word"));
    let shown = format!("{service:?} {error} {error:?} {}", error.chain());
    assert!(shown.contains("login *** refused") && !shown.contains("canary-7391"), "{shown}");
}
