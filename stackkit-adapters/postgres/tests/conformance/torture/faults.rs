//! What goes wrong while a dump runs: each a typed error, and nothing stays behind on the server.

use std::time::Duration;

use libtest_mimic::Completion;
use stackkit_core::backup::{ArtifactSource, DumpContext, DumpReport};
use stackkit_core::{BackupProvider, Error, ErrorKind, Result};
use stackkit_fixtures::{PoolMode, PostgresOptions, PostgresServer, pgbouncer, postgres_server, wait_until};
use stackkit_postgres::{Engine, Postgres, PostgresConfig, PostgresDump};

use crate::memory::Memory;
use crate::torture::cutter::Cutter;
use crate::torture::gate::{Full, held_up};
use crate::torture::{ENGINES, TOOL_LIMIT, config, service};

/// A database of a few megabytes with something of each kind that a dump reads.
const DATA: &str = "create table large as select g, repeat(md5(g::text), 20) as t from generate_series(1, 8000) g; \
    create table small as select g from generate_series(1, 10) g; create sequence counter; create table \"it's\" (x int); \
    create materialized view seen as select count(*) from small; create view looked as select * from small";

/// How long the server may need to notice that a client is gone.
const GONE: Duration = Duration::from_secs(20);

async fn filled(options: PostgresOptions) -> PostgresServer {
    let server = postgres_server(options).await.expect("a server");
    server.execute_in("postgres", DATA).await.expect("data");
    server
}

async fn dump(service: &Postgres) -> (Result<DumpReport>, Memory) {
    let sink = Memory::default();
    let report = match service.begin(&DumpContext::new()).await {
        Ok(pinned) => pinned.run(&sink).await,
        Err(error) => Err(error),
    };
    (report, sink.sealed())
}

/// No connection stays, and with it no lock and no snapshot.
async fn nothing_stays(server: &PostgresServer, what: &str) {
    let sql = "select string_agg(application_name || ' ' || state || ' ' || query, '; ') from pg_stat_activity \
        where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let mut last = None;
    let gone = async || {
        last = server.query_in("postgres", sql).await.expect("sessions").remove(0).remove(0);
        last.is_none().then_some(())
    };
    let gone = wait_until("every session is gone", GONE, gone).await;
    gone.unwrap_or_else(|error| panic!("{what}: {error}: {last:?}"));
}

/// What says that a dump is whole is not there.
fn is_not_whole(sink: &Memory) {
    let whole = ["contents.json", "database.dump"];
    let there = sink.artifacts().iter().find(|info| whole.contains(&info.name().as_str()));
    assert!(there.is_none(), "{there:?}");
}

fn through(server: &PostgresServer, port: u16, engine: Engine) -> Postgres {
    let config = PostgresConfig::from_url(&server.tcp_url_of("postgres").expect("tcp")).expect("a URL");
    let dump = PostgresDump::new().with_engine(engine).with_jobs(2).with_split_bytes(1 << 20);
    Postgres::new(config.with_port(port).with_dump(dump))
}

pub(super) async fn a_connection_cut_anywhere_fails_a_dump() {
    let server = filled(PostgresOptions::new().with_tcp("a password")).await;
    for engine in ENGINES {
        let whole = Cutter::start(server.port(), u64::MAX).await;
        dump(&through(&server, whole.port(), engine)).await.0.expect("a dump through the proxy");
        let all = whole.answered();
        let early = [0, 1, 60, 600, 6_000];
        let later = [2, 5, 10, 20, 50, 80, 97].map(|percent| all * percent / 100);
        for after in early.into_iter().chain(later) {
            let cutter = Cutter::start(server.port(), after).await;
            let (report, sink) = dump(&through(&server, cutter.port(), engine)).await;
            let what = format!("{engine:?} cut after {after} of {all} bytes");
            let error = match report {
                Err(error) => error,
                // No two dumps are of the same length: the last bytes may never come.
                Ok(_whole) if cutter.answered() <= after => continue,
                Ok(_report) => panic!("{what}: no error"),
            };
            assert!(matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::ToolFailed), "{what}: {error:?}");
            is_not_whole(&sink);
            nothing_stays(&server, &what).await;
        }
    }
}

pub(super) async fn a_crashed_server_fails_a_dump() {
    for engine in ENGINES {
        let mut server = filled(PostgresOptions::new()).await;
        let service = service(&server, "postgres", engine);
        let pinned = service.begin(&DumpContext::new()).await.expect("a snapshot");
        let (report, sink) = held_up(pinned, async || server.restart_immediate().await.expect("a crash")).await;
        let error = report.err().unwrap_or_else(|| panic!("{engine:?}: no error"));
        assert!(matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::ToolFailed), "{engine:?}: {error:?}");
        is_not_whole(&sink);
        nothing_stays(&server, "after a crash").await;
        dump(&service).await.0.expect("the next dump is well");
    }
}

/// Whoever sets such limits for everybody means applications.
pub(super) async fn global_timeouts_do_not_end_a_dump() {
    let server = filled(PostgresOptions::new()).await;
    let mut settings = vec![
        ("statement_timeout", "400"),
        ("idle_in_transaction_session_timeout", "400"),
        ("lock_timeout", "1"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_deferrable", "on"),
    ];
    if server.major() >= 14 {
        settings.push(("idle_session_timeout", "400"));
    }
    if server.major() >= 17 {
        settings.push(("transaction_timeout", "400"));
    }
    let set = |(name, value): (&str, &str)| format!("alter role all set {name} = '{value}'");
    let settings: Vec<String> = settings.into_iter().map(set).collect();
    server.execute_in("postgres", &settings.join("; ")).await.expect("settings");
    let old = "select 1 from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() \
        having bool_and(now() - state_change > '1 s')";
    for engine in ENGINES {
        let pinned = service(&server, "postgres", engine).begin(&DumpContext::new()).await.expect("a snapshot");
        let wait = async || {
            let is_old = async || (!server.query_in("postgres", old).await.expect("sessions").is_empty()).then_some(());
            wait_until("every session was idle for long", GONE, is_old).await.expect("idle sessions");
        };
        let (report, _sink) = held_up(pinned, wait).await;
        let report = report.unwrap_or_else(|error| panic!("{engine:?}: {}", error.chain()));
        assert_eq!(report.census.count("tables.public.large.rows"), 8000, "{engine:?}");
    }
}

pub(super) async fn a_full_storage_fails_a_dump() {
    let server = filled(PostgresOptions::new()).await;
    for engine in ENGINES {
        let service = through_socket(&server, engine);
        for writes in 0.. {
            let sink = Full::after(writes);
            let report = service.begin(&DumpContext::new()).await.expect("a snapshot").run(&sink).await;
            let Err(error) = report else { break };
            assert!(sink.is_full(), "{engine:?}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Io, "{engine:?} after {writes}: {error:?}");
            nothing_stays(&server, "after a full storage").await;
        }
    }
}

fn through_socket(server: &PostgresServer, engine: Engine) -> Postgres {
    let dump = PostgresDump::new().with_engine(engine).with_jobs(2).with_split_bytes(1 << 20);
    Postgres::new(config(server, "postgres", engine).with_dump(dump))
}

pub(super) async fn who_holds_the_lock_is_told() {
    let server = filled(PostgresOptions::new()).await;
    for engine in ENGINES {
        let config = config(&server, "postgres", engine).with_lock_timeout(Duration::from_millis(200));
        let service = Postgres::new(config);
        let hold = "begin; lock table large in access exclusive mode; select pg_sleep(100)";
        let waits = async {
            let held = "select pid from pg_locks where mode = 'AccessExclusiveLock' and granted and relation = 'large'::regclass";
            let pid = async || Some(server.query_in("postgres", held).await.expect("locks").pop()?.remove(0)?);
            let pid = wait_until("the lock is held", GONE, pid).await.expect("a holder");
            let error = dump(&service).await.0.map(drop).expect_err("locked");
            assert_eq!(error.kind(), ErrorKind::Busy, "{engine:?}: {error:?}");
            assert!(
                error.to_string().contains(&pid) && error.to_string().contains("large"),
                "{engine:?}, {pid}: {error}"
            );
            server.execute_in("postgres", &format!("select pg_terminate_backend({pid})")).await.expect("ended");
        };
        let (_ended, ()) = tokio::join!(server.execute_in("postgres", hold), waits);
        nothing_stays(&server, "after a lock").await;
    }
}

/// Dumps as an ordinary role that may read all of `DATA` but what is revoked.
async fn refused(server: &PostgresServer, engine: Engine, what: &str, name: &str) {
    let grant = "drop owned by reader; grant usage on schema public to reader; grant select on all tables in schema public \
        to reader; grant select on all sequences in schema public to reader";
    server.execute_in("postgres", grant).await.expect("rights");
    server.execute_in("postgres", what).await.expect(what);
    let reader = Postgres::new(config(server, "postgres", engine).with_user("reader"));
    let error = dump(&reader).await.0.map(drop).expect_err(what);
    assert!(
        matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ToolFailed),
        "{engine:?}, {what}: {error:?}"
    );
    let shown = error.chain().to_string();
    assert!(shown.contains(name), "{engine:?}, {what}: {shown}");
    nothing_stays(server, what).await;
}

pub(super) async fn what_may_not_be_read_is_named() {
    let server = filled(PostgresOptions::new()).await;
    server.execute_in("postgres", "create role reader login").await.expect("a role");
    for engine in ENGINES {
        refused(&server, engine, "revoke select on \"it's\" from reader", "it's").await;
        refused(&server, engine, "revoke select on counter from reader", "counter").await;
        refused(&server, engine, "create schema shut create table t (x int)", "shut").await;
        server.execute_in("postgres", "drop schema shut cascade; select lo_create(4711)").await.expect("an object");
        refused(&server, engine, "select 1", "4711").await;
        server.execute_in("postgres", "select lo_unlink(4711)").await.expect("no object");
    }
}

pub(super) async fn forced_row_security_is_told() {
    let server = filled(PostgresOptions::new()).await;
    let policy = "create role owner login; alter table small owner to owner; alter table small enable row level security; \
        alter table small force row level security; grant select on all tables in schema public to owner; \
        grant select on all sequences in schema public to owner";
    server.execute_in("postgres", policy).await.expect("a policy");
    for engine in ENGINES {
        let owner = Postgres::new(config(&server, "postgres", engine).with_user("owner"));
        let error = dump(&owner).await.0.map(drop).expect_err("rows would be left out");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{engine:?}: {error:?}");
        assert!(error.chain().to_string().contains("small"), "{engine:?}: {}", error.chain());
        nothing_stays(&server, "after row security").await;
    }
}

pub(super) async fn a_server_without_connections_is_told() {
    let options = PostgresOptions::new().with_setting("max_connections", "6");
    let server = filled(options.with_setting("superuser_reserved_connections", "0")).await;
    let role = "create role reader login; grant select on all tables in schema public to reader; \
        grant select on all sequences in schema public to reader; alter role reader connection limit 4";
    server.execute_in("postgres", role).await.expect("a role");
    for engine in ENGINES {
        let few = config(&server, "postgres", engine).with_user("reader");
        let (report, _sink) = dump(&Postgres::new(few)).await;
        let report = report.unwrap_or_else(|error: Error| panic!("{engine:?}: {}", error.chain()));
        assert_eq!(report.census.count("tables.public.large.rows"), 8000, "{engine:?}");
        nothing_stays(&server, "after few connections").await;
    }
}

/// Through a pooler that hands transactions around, settings and snapshots are another session's.
pub(crate) async fn a_pooler_of_transactions_is_told() -> Completion {
    let server = filled(PostgresOptions::new()).await;
    let pooler = match pgbouncer(&server, PoolMode::Transaction).await {
        Ok(pooler) => pooler,
        Err(error) if error.kind() == ErrorKind::ToolMissing => return Completion::ignored_with(error),
        Err(error) => panic!("{}", error.chain()),
    };
    for engine in ENGINES {
        let config = PostgresConfig::from_url(&pooler.url_of("postgres")).expect("a URL");
        let service = Postgres::new(config.with_dump(PostgresDump::new().with_engine(engine)));
        let dumped = tokio::time::timeout(TOOL_LIMIT, dump(&service)).await.expect("nothing hangs");
        let error = dumped.0.map(drop).expect_err("another session has the snapshot");
        assert!(error.to_string().contains("pooler"), "{engine:?}: {error:?}");
    }
    Completion::Completed
}
