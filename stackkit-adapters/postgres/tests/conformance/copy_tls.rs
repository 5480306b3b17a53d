//! Dumps and restores over TLS: every connection of them is encrypted, and none trusts a stranger's certificate.

use libtest_mimic::Completion;
use stackkit_core::backup::{DumpContext, RestoreOptions};
use stackkit_core::{BackupProvider, Error, ErrorKind, Phase};
use stackkit_fixtures::PostgresServer;
use stackkit_postgres::{Postgres, PostgresDump};
use tempfile::TempDir;

use crate::health::{certificate, certificate_of, tls_server};
use crate::memory::{Memory, dump, restore};
use crate::torture::gate::held_up;

/// Rows of each kind: one that is longer than what is read at once, many short ones, a table in parts, large objects.
const ROWS: &str = "create table wide as select repeat('0123456789abcdef', 400000) as t, \
        decode(repeat('00ff5c0a', 500000), 'hex') as b; \
    create table long as select g as id, md5(g::text) as t from generate_series(1, 60000) g; \
    alter table long add primary key (id); select lo_from_bytea(4711, decode(repeat('ab', 700000), 'hex'))";

/// What the server makes of them.
const SUMS: &str = "select (select md5(t) || md5(b) from wide), (select md5(string_agg(t, ',' order by id)) from long), \
    (select md5(lo_get(4711)))";

/// The URL with these options, the server's certificate being the one to trust or another one.
fn service(server: &PostgresServer, options: &str, trusted: &TempDir) -> Postgres {
    let url = server.tcp_url_of("shop").expect("TCP");
    let ca = trusted.path().join("server.pem");
    let service = Postgres::from_url(&format!("{url}?{options}&sslrootcert={}", ca.display())).expect("a URL");
    let ranges = PostgresDump::new().with_jobs(2).with_split_bytes(1 << 20).with_row_hashes(true);
    Postgres::new(service.config().clone().with_dump(ranges))
}

/// The sessions from elsewhere than this server's socket, and how many of them are not encrypted.
const SESSIONS: &str = "select count(*), count(*) filter (where not ssl) from pg_stat_ssl \
    join pg_stat_activity using (pid) where client_addr is not null";

pub(crate) async fn a_dump_and_its_restore_are_encrypted_throughout() -> Completion {
    let files = certificate();
    // Whoever asks without TLS is refused, `pg_dump` too.
    let only_tls = "local all all trust\nhostssl all,replication all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(files.path().join("hba.conf"), only_tls).expect("a file");
    let hba = files.path().join("hba.conf").display().to_string();
    let settings = [("hba_file", hba), ("wal_level", "replica".to_owned()), ("max_wal_senders", "4".to_owned())];
    let server = match tls_server(&files, &settings).await {
        Ok(server) => server,
        Err(reason) => return Completion::ignored_with(reason),
    };
    server.create_database("shop").await.expect("a database");
    server.execute_in("shop", ROWS).await.expect("rows");
    let plain = service(&server, "sslmode=disable", &files);
    let error = dump(&plain).await.map(drop).expect_err("it asks without TLS");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");

    let memory = comes_back(&server, &service(&server, "sslmode=verify-full", &files)).await;
    strangers_are_refused(&server, &memory).await;
    Completion::Completed
}

/// Dumps, restores, and makes a base backup; gives the dump.
async fn comes_back(server: &PostgresServer, service: &Postgres) -> Memory {
    let before = server.query_in("shop", SUMS).await.expect("sums");
    let pinned = service.begin(&DumpContext::new()).await.expect("a snapshot");
    let look = async || {
        let sessions = server.query_in("shop", SESSIONS).await.expect("sessions");
        let [count, open] = [0, 1].map(|at| sessions[0][at].as_deref().and_then(|n| n.parse().ok()).unwrap_or(99));
        assert!(count >= 3 && open == 0, "{count} sessions, {open} not encrypted");
    };
    let (report, memory) = held_up(pinned, look).await;
    let report = report.expect("a dump");
    server
        .execute_in("shop", "drop table wide; update long set t = ''; select lo_unlink(4711)")
        .await
        .expect("changes");
    restore(service, &memory, &report).await.expect("a restore");
    assert_eq!(server.query_in("shop", SUMS).await.expect("sums"), before);
    let base = service.base_backup().begin(&DumpContext::new()).await.expect("a base backup begins");
    base.run(&Memory::default()).await.expect("a base backup");
    memory
}

/// A certificate of nobody that is trusted, and one of another host.
async fn strangers_are_refused(server: &PostgresServer, memory: &Memory) {
    let other = certificate();
    let untrusted = service(server, "sslmode=verify-full", &other);
    let refused = |error: Error| {
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Config, Some(Phase::Tls)), "{error:?}");
    };
    refused(untrusted.begin(&DumpContext::new()).await.map(drop).expect_err("an untrusted certificate"));
    let begun = untrusted.base_backup().begin(&DumpContext::new()).await;
    refused(begun.map(drop).expect_err("an untrusted certificate"));
    let planned = untrusted.plan_restore(memory, &RestoreOptions::new()).await;
    refused(planned.map(drop).expect_err("an untrusted certificate"));
    let trusting = service(server, "sslmode=require", &other);
    dump(&trusting).await.expect("it asks for no name");

    let elsewhere = certificate_of("db.internal");
    let server = tls_server(&elsewhere, &[]).await.expect("a server");
    server.create_database("shop").await.expect("a database");
    let misnamed = service(&server, "sslmode=verify-full", &elsewhere);
    refused(misnamed.begin(&DumpContext::new()).await.map(drop).expect_err("another host's certificate"));
}
