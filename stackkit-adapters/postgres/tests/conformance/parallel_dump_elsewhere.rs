//! Dumps whose `pg_dump` runs somewhere else, and dumps of a standby.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Completion;
use stackkit_core::backup::{ArtifactSource, DumpContext};
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server, wait_until};
use stackkit_postgres::{DockerExec, KubectlExec, Postgres, PostgresDump, ToolRunner};

use crate::memory::Memory;
use crate::parallel_dump::{TOOL, parallel, with};
use crate::standby::{patient_standby, standby};
use crate::torture::gate::held_up;
use crate::vitals::replicating;
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    docker_runs_the_tool_without_the_password_in_an_argument,
    kubectl_runs_the_tool_without_the_password_in_an_argument,
    an_old_tool_elsewhere_is_explained,
];

const PASSWORD: &str = "canary 'x' 8831";

/// A client that notes its arguments, does `script` with them, and has the server's tools in its path.
fn fake(directory: &Path, server: &PostgresServer, script: &str) -> PathBuf {
    let path = directory.join("client");
    let text = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >> {0}/args\ntr '\\0' '\\n' < /proc/$$/cmdline >> {0}/args\n\
         PATH={1}:$PATH\n[ \"$1\" = exec ] || exit 64\nshift\n{script}\n",
        directory.display(),
        server.bin_dir().display()
    );
    std::fs::write(&path, text).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

const DOCKER: &str = "while :; do case \"$1\" in\n\
    --interactive) shift;;\n\
    --env) case \"$2\" in *=*) export \"$2\";; esac; shift 2;;\n\
    *) break;; esac; done\n[ \"$1\" = shop-db ] || exit 65\nshift\nexec \"$@\"";

const KUBECTL: &str = "case \"$*\" in *'--namespace shop db-0 --container postgres --'*) ;; *) exit 65;; esac\n\
    unset PGPASSWORD; while [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"";

/// A server that asks for a password.
async fn server() -> (PostgresServer, Postgres) {
    let server = postgres_server(PostgresOptions::new().with_tcp(PASSWORD)).await.expect("a server");
    server.execute_in("postgres", "create table t as select generate_series(1, 10)").await.expect("rows");
    let service = Postgres::from_url(&server.tcp_url_of("postgres").expect("tcp")).expect("a URL");
    (server, service)
}

async fn dumps_through(service: &Postgres, runner: Arc<dyn ToolRunner>, directory: &Path) {
    let nowhere = tempfile::tempdir().expect("a directory");
    let config = service.config().clone().with_tool_dir(nowhere.path()).with_tool_runner(runner);
    let service = Postgres::new(config);
    let (memory, report) = parallel(&service, PostgresDump::new()).await.expect("a dump");
    assert_eq!(report.census.count("tables.public.t.rows"), 10);
    assert!(memory.artifacts().iter().any(|artifact| artifact.name().as_str() == "toc.dat"));
    let args = std::fs::read_to_string(directory.join("args")).expect("arguments");
    assert!(args.contains("--snapshot=") && !args.contains("canary"), "{args}");
    assert!(!format!("{service:?}").contains("canary"));
}

async fn docker_runs_the_tool_without_the_password_in_an_argument() {
    let (server, service) = server().await;
    let directory = tempfile::tempdir().expect("a directory");
    let runner = DockerExec::new("shop-db").with_client(fake(directory.path(), &server, DOCKER));
    dumps_through(&service, Arc::new(runner.with_server("127.0.0.1", server.port())), directory.path()).await;
}

async fn kubectl_runs_the_tool_without_the_password_in_an_argument() {
    let (server, service) = server().await;
    let directory = tempfile::tempdir().expect("a directory");
    let runner = KubectlExec::new("shop", "db-0").with_container("postgres");
    let runner = runner.with_client(fake(directory.path(), &server, KUBECTL));
    dumps_through(&service, Arc::new(runner.with_server("127.0.0.1", server.port())), directory.path()).await;
}

async fn an_old_tool_elsewhere_is_explained() {
    let (server, service) = server().await;
    let directory = tempfile::tempdir().expect("a directory");
    for (script, expected) in
        [("echo 'pg_dump (PostgreSQL) 9.6.24'", "found=9.6.24"), ("echo nothing", "tells no version")]
    {
        let runner = DockerExec::new("shop-db").with_client(fake(directory.path(), &server, script));
        let service = Postgres::new(service.config().clone().with_tool_runner(Arc::new(runner)));
        let error = parallel(&service, PostgresDump::new()).await.map(|_dump| ()).expect_err("no tool that fits");
        assert_eq!(error.kind(), ErrorKind::ToolMissing);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// A standby is dumped like any server; when it has to replay what removes rows that are read, that is told.
pub(crate) async fn a_standby_is_dumped_or_its_snapshot_is_lost() -> Completion {
    let primary = postgres_server(replicating()).await.expect("a server");
    if !primary.bin_dir().join("pg_basebackup").exists() {
        return Completion::ignored_with("pg_basebackup is not installed");
    }
    // So few that `pg_dump` writes them all into its pipe: stopped in the middle of them, its session would hold up the
    // replay until the dump goes on.
    let make = "create table t as select g, repeat('x', 100) from generate_series(1, 200) g; \
        create unlogged table fast as select 1 as x";
    primary.execute_in("postgres", make).await.expect("rows");
    let standby = standby(&primary).await;
    let service = Postgres::from_url(&standby.url()).expect("a URL");
    let ready = async || service.census().await.ok();
    wait_until("the standby", TOOL, ready).await.expect("a standby");
    let (_, report) = parallel(&service, PostgresDump::new()).await.expect("a dump");
    assert_eq!(report.census.count("tables.public.t.rows"), 200);
    assert_eq!(report.warnings, ["a standby has no rows of unlogged tables: \"public\".\"fast\""]);
    let pinned = with(&service, PostgresDump::new()).begin(&DumpContext::new()).await.expect("a snapshot");
    remove_and_replay(&primary, &standby.url()).await;
    let error = pinned.run(&Memory::default()).await.map(drop).expect_err("the snapshot is lost");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Busy, Some("snapshot_lost")), "{error:?}");
    assert!(error.to_string().contains("hot_standby_feedback"), "{error}");
    Completion::Completed
}

/// How long the replay of the standby waits for a query: long enough to be seen waiting.
const REPLAY_DELAY: Duration = Duration::from_millis(500);

/// The replay ends a `COPY` whose rows are on their way: what it told so far is worth nothing.
pub(crate) async fn a_snapshot_lost_in_the_middle_of_a_copy_is_told() -> Completion {
    let primary = postgres_server(replicating()).await.expect("a server");
    if !primary.bin_dir().join("pg_basebackup").exists() {
        return Completion::ignored_with("pg_basebackup is not installed");
    }
    // More than what buffers hold, so that the copy is under way while the storage holds it up.
    let make = "create table t as select g, repeat(md5(g::text), 20) as x from generate_series(1, 60000) g";
    primary.execute_in("postgres", make).await.expect("rows");
    let standby = patient_standby(&primary, REPLAY_DELAY).await;
    let service = Postgres::from_url(&standby.url()).expect("a URL");
    let ready = async || service.census().await.ok();
    wait_until("the standby", TOOL, ready).await.expect("a standby");
    let pinned = with(&service, PostgresDump::new().with_jobs(1)).begin(&DumpContext::new()).await.expect("a snapshot");
    let session = crate::vitals::session(&standby.url()).await;
    let seen = async |sql: &str| {
        let rows = session.client.simple_query(sql).await.expect("the standby answers");
        rows.iter().any(|row| matches!(row, tokio_postgres::SimpleQueryMessage::Row(_)))
    };
    let conflict = async || {
        let copies = "select 1 from pg_stat_activity where query like 'SAVEPOINT%COPY%' and state = 'active'";
        assert!(seen(copies).await, "the copy is under way");
        removed(&primary).await;
        let waits = "select 1 from pg_stat_activity where backend_type = 'startup' \
            and wait_event = 'RecoveryConflictSnapshot'";
        let begun = async || seen(waits).await.then_some(());
        wait_until("the replay waits for the dump", TOOL, begun).await.expect("a conflict");
        // From then on it ends who is in its way.
        let over = async || (!seen(waits).await).then_some(());
        wait_until("the replay has waited enough", TOOL, over).await.expect("an end");
    };
    let (report, sink) = held_up(pinned, conflict).await;
    let error = report.map(drop).expect_err("the snapshot is lost");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Busy, Some("snapshot_lost")), "{error:?}");
    let chain = error.chain().to_string();
    assert!(chain.contains("table=\"public\".\"t\""), "the copy itself was ended: {chain}");
    let names = sink.names();
    assert!(
        !names.iter().any(|name| name == "contents.json" || name.ends_with(".dat") && name != "toc.dat"),
        "{names:?}"
    );
    Completion::Completed
}

/// Removes rows.
async fn removed(primary: &PostgresServer) {
    for sql in ["delete from t", "vacuum t", "select txid_current(), pg_switch_wal()"] {
        primary.execute_in("postgres", sql).await.expect("rows are removed");
    }
}

/// Removes rows, and waits until the standby has done so too.
async fn remove_and_replay(primary: &PostgresServer, standby: &str) {
    removed(primary).await;
    let at = primary.query_in("postgres", "select pg_current_wal_lsn()").await.expect("a position");
    let at = at[0][0].clone().expect("a position");
    let replayed = async || {
        let session = crate::vitals::session(standby).await;
        let sql = format!("select 1 where pg_last_wal_replay_lsn() >= '{at}'");
        let rows = session.client.simple_query(&sql).await.ok()?;
        rows.iter().any(|row| matches!(row, tokio_postgres::SimpleQueryMessage::Row(_))).then_some(())
    };
    wait_until("the standby to replay", TOOL, replayed).await.expect("it replays");
}
