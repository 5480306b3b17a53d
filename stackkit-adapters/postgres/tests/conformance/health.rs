//! Probes.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use libtest_mimic::Completion;
use stackkit_core::health::{Axis, Thresholds, Tier};
use stackkit_core::process::{find_user, is_root};
use stackkit_core::{Clock, Error, ErrorKind, HealthCheck, Observation, Phase, ProbeContext};
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::{Postgres, PostgresConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::memory::dump;
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    up_tells_vitals,
    inventory_adds_sizes,
    the_connection_stays_warm_and_reset_drops_it,
    wrong_password_is_unauthenticated,
    missing_database_is_not_found,
    nothing_listening_names_host_and_port,
    missing_socket_is_unreachable,
    black_hole_meets_the_deadline,
    the_server_ends_a_query_at_the_deadline,
    saturated_is_told_apart_from_down,
    tls_that_the_server_lacks_is_a_fault,
    a_restarted_server_is_found_again,
];

pub(crate) async fn probe(service: &Postgres, tier: Tier, within: Duration) -> Result<Observation, Error> {
    service.probe(&ProbeContext::new(tier, Clock::system().instant() + within)).await
}

pub(crate) const LONG: Duration = Duration::from_secs(20);

async fn up_tells_vitals() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    let seen = probe(&service, Tier::Vitals, LONG).await.expect("an observation");
    assert!(seen.info["version"].starts_with(|c: char| c.is_ascii_digit()), "{:?}", seen.info);
    assert_eq!(seen.value("in_recovery_bool"), Some(0.0));
    assert_eq!(seen.value("connections_max_count"), Some(197.0));
    assert!(seen.value("connections_used_count").expect("a number") >= 1.0);
    assert_eq!((seen.info["role"].as_str(), seen.info["writable"].as_str()), ("primary", "yes"));
    assert_eq!(seen.findings, []);
    probe(&service, Tier::Ping, LONG).await.expect("a ping");
}

async fn inventory_adds_sizes() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    postgres.execute("create table big as select g from generate_series(1, 9999) g; analyze").await.expect("a table");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an observation");
    assert!(seen.value("database_size_bytes").expect("a size") > 1e6);
    let table = seen.measurements.iter().find(|m| m.name == "table_size_bytes").expect("a table");
    assert_eq!(table.labels["table"], "public.big");
    assert!(table.number().expect("a size") > 300e3);
    assert_eq!(seen.value("xid_age_count"), None, "vitals are of another tier");
}

async fn the_connection_stays_warm_and_reset_drops_it() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    let pids = async || {
        let sql = format!(
            "select string_agg(pid::text, ',') from pg_stat_activity \
             where datname = '{}' and application_name = 'stackkit'",
            postgres.database()
        );
        postgres.query(&sql).await.expect("pids")[0][0].clone()
    };
    probe(&service, Tier::Ping, LONG).await.expect("a ping");
    let first = pids().await.expect("a warm connection");
    probe(&service, Tier::Vitals, LONG).await.expect("vitals");
    assert_eq!(pids().await, Some(first));
    service.reset().await;
    let gone = async {
        while pids().await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("the connection goes");
}

async fn wrong_password_is_unauthenticated() {
    let server = postgres_server(PostgresOptions::new().with_tcp("right-canary-word")).await.expect("a server");
    let url = server.tcp_url_of("postgres").expect("tcp");
    let right = Postgres::from_url(&url).expect("a URL");
    probe(&right, Tier::Vitals, LONG).await.expect("the right password works");
    let wrong = Postgres::from_url(&url.replace("right-canary", "wrong-canary")).expect("a URL");
    let begin = Clock::system().instant();
    let error = probe(&wrong, Tier::Vitals, LONG).await.expect_err("a wrong password");
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(
        (error.kind(), error.code(), error.phase()),
        (ErrorKind::Unauthenticated, Some("28P01"), Some(Phase::Auth))
    );
    assert!(!error.mends_by_waiting());
    assert!(!format!("{error:?} {error} {wrong:?}").contains("canary"), "{error:?}");
    let none = Postgres::from_url(&url.replace(":right-canary-word", "")).expect("a URL");
    let error = probe(&none, Tier::Vitals, LONG).await.expect_err("no password");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
}

async fn missing_database_is_not_found() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let service = Postgres::from_url(&postgres.server().url_of("no such")).expect("a URL");
    let error = probe(&service, Tier::Ping, LONG).await.expect_err("no database");
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, Some("3D000")));
}

async fn nothing_listening_names_host_and_port() {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let service = Postgres::new(PostgresConfig::new("127.0.0.1", "shop").with_port(port));
    let error = probe(&service, Tier::Vitals, LONG).await.expect_err("nothing listens");
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Unreachable, Some(Phase::Connect)));
    let text = error.to_string();
    assert!(text.contains("host=127.0.0.1") && text.contains(&format!("port={port}")), "{text}");
}

async fn missing_socket_is_unreachable() {
    let service = Postgres::from_url("postgres://u@/db?host=/no/such/dir").expect("a URL");
    let error = probe(&service, Tier::Vitals, LONG).await.expect_err("no socket");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("/no/such/dir/.s.PGSQL.5432"), "{error}");
}

async fn black_hole_meets_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let service = Postgres::new(PostgresConfig::new("127.0.0.1", "shop").with_port(port));
    for _probe in 0..2 {
        let begin = Clock::system().instant();
        let within = Duration::from_millis(200);
        let (outcome, accepted) = tokio::join!(probe(&service, Tier::Vitals, within), listener.accept());
        assert_eq!(outcome.expect_err("no answer").kind(), ErrorKind::Timeout);
        assert!(begin.elapsed() >= within && begin.elapsed() < within * 5);
        accepted.expect("each probe comes by a connection of its own");
    }
}

async fn the_server_ends_a_query_at_the_deadline() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    // A view of the system's name in this one database makes the vitals query slow.
    let setup = "set allow_system_table_mods = on; alter view pg_catalog.pg_stat_archiver rename to archiver; \
        create view pg_catalog.pg_stat_archiver as select 0::bigint archived_count, 0::bigint failed_count, \
        null::timestamptz last_failed_time, null::timestamptz last_archived_time from pg_sleep(30)";
    postgres.execute(setup).await.expect("a slow view");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    let begin = Clock::system().instant();
    let error = probe(&service, Tier::Vitals, Duration::from_secs(1)).await.expect_err("too slow");
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!((error.kind(), error.code()), (ErrorKind::Timeout, Some("57014")), "{error:?}");
}

async fn saturated_is_told_apart_from_down() {
    let options = PostgresOptions::new()
        .with_setting("max_connections", "5")
        .with_setting("superuser_reserved_connections", "1")
        .with_setting("autovacuum_max_workers", "1");
    let server = postgres_server(options).await.expect("a server");
    server.execute_in("postgres", "create role app login; grant pg_monitor to app").await.expect("a role");
    let url = server.url().replace("postgres@", "app@");
    let warm = Postgres::from_url(&url).expect("a URL");
    probe(&warm, Tier::Ping, LONG).await.expect("a ping");
    let mut others = Vec::new();
    let refused = loop {
        let other = Postgres::from_url(&url).expect("a URL");
        match probe(&other, Tier::Ping, LONG).await {
            Ok(_) => others.push(other),
            Err(error) => break error,
        }
    };
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Saturated, Some("53300")));
    let seen = probe(&warm, Tier::Vitals, LONG).await.expect("the warm connection still answers");
    let verdict = Thresholds::new().verdict(&warm.rules(), &seen);
    let finding = verdict.findings.iter().find(|finding| finding.axis == Axis::Ready).expect("a finding");
    assert_eq!(finding.code, "pg.connections.exhausted");
}

async fn tls_that_the_server_lacks_is_a_fault() {
    let server = postgres_server(PostgresOptions::new().with_tcp("correct-horse")).await.expect("a server");
    let url = server.tcp_url_of("postgres").expect("tcp");
    let service = Postgres::from_url(&format!("{url}?sslmode=require")).expect("a URL");
    let error = probe(&service, Tier::Ping, LONG).await.expect_err("no TLS");
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Config, Some(Phase::Tls)), "{error:?}");
}

async fn a_restarted_server_is_found_again() {
    let mut server = postgres_server(PostgresOptions::new()).await.expect("a server");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    probe(&service, Tier::Vitals, LONG).await.expect("up");
    server.stop().await.expect("stopped");
    let error = probe(&service, Tier::Vitals, LONG).await.expect_err("down");
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    server.start().await.expect("started");
    probe(&service, Tier::Vitals, LONG).await.expect("up again");
}

/// A certificate for 127.0.0.1 and its key, readable by the server and by the tools.
pub(crate) fn certificate() -> TempDir {
    certificate_of("127.0.0.1")
}

/// The same for another host.
pub(crate) fn certificate_of(host: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
    let (certificate, key) = (directory.path().join("server.pem"), directory.path().join("server.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    let mode = std::fs::Permissions::from_mode;
    std::fs::set_permissions(directory.path(), mode(0o755)).expect("a mode");
    std::fs::set_permissions(&key, mode(0o600)).expect("a mode");
    if is_root() {
        let user = find_user(&["postgres", "nobody"]).expect("a user");
        std::os::unix::fs::chown(&key, Some(user.uid), Some(user.gid)).expect("an owner");
    }
    directory
}

/// A server with that certificate and these settings; or why there is none.
pub(crate) async fn tls_server(files: &TempDir, settings: &[(&str, String)]) -> Result<PostgresServer, &'static str> {
    let path = |name: &str| files.path().join(name).display().to_string();
    let options = PostgresOptions::new()
        .with_tcp("correct-horse")
        .with_setting("ssl", "on")
        .with_setting("ssl_cert_file", path("server.pem"))
        .with_setting("ssl_key_file", path("server.key"));
    let with = |options: PostgresOptions, (name, value): &(&str, String)| options.with_setting(*name, value);
    match postgres_server(settings.iter().fold(options, with)).await {
        Err(error) if error.chain().to_string().contains("SSL is not supported by this build") => {
            Err("the server was built without TLS")
        }
        server => Ok(server.expect("a server")),
    }
}

pub(crate) async fn tls_encrypts_and_verifies() -> Completion {
    let files = certificate();
    match tls_server(&files, &[]).await {
        Err(reason) => Completion::ignored_with(reason),
        Ok(server) => {
            each_mode_does_what_it_says(&server, &files.path().join("server.pem").display().to_string()).await;
            Completion::Completed
        }
    }
}

async fn each_mode_does_what_it_says(server: &PostgresServer, ca_file: &str) {
    let url = server.tcp_url_of("postgres").expect("tcp");
    let encrypted = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) \
        where ssl and application_name = 'stackkit'";
    for (options, expected) in [("sslmode=disable", "0"), ("sslmode=prefer", "1"), ("sslmode=require", "1")] {
        let service = Postgres::from_url(&format!("{url}?{options}")).expect("a URL");
        probe(&service, Tier::Vitals, LONG).await.expect(options);
        let rows = server.query_in("postgres", encrypted).await.expect("a count");
        assert_eq!(rows[0][0].as_deref(), Some(expected), "{options}");
        drop(service);
        let gone = async {
            while server.query_in("postgres", encrypted).await.expect("a count")[0][0].as_deref() != Some("0") {}
        };
        tokio::time::timeout(LONG, gone).await.expect("the connection goes");
    }
    let verified = format!("{url}?sslmode=verify-full&sslrootcert={ca_file}");
    let service = Postgres::from_url(&verified).expect("a URL");
    probe(&service, Tier::Vitals, LONG).await.expect("a trusted certificate");
    dump(&service).await.expect("the tool trusts it too");
    let other = certificate();
    let untrusted = format!("{url}?sslmode=verify-full&sslrootcert={}", other.path().join("server.pem").display());
    let service = Postgres::from_url(&untrusted).expect("a URL");
    let error = probe(&service, Tier::Vitals, LONG).await.expect_err("an untrusted certificate");
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Config, Some(Phase::Tls)), "{error:?}");
}
