//! PostgreSQL servers that can't serve, or not as they should.

use std::path::Path;
use std::sync::Arc;

use stackkit::health::{Report, Status};
use stackkit::postgres::{PostgresConfig, TlsMode};
use stackkit::{ErrorKind, Monitor, Phase, Postgres, Stack};
use stackkit_fixtures::{PostgresOptions, PostgresServer, wait_until};

use crate::health_faults::machine::{EXPIRED, Stopped, VALID, certificate, write_private};
use crate::health_faults::{
    Failure, PASSWORD, PATIENCE, Site, TRIES, assert_in_time, fails, fails_in_time, intervals, ready, run, stack,
    stack_of,
};
use crate::tool::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new("postgres_refuses_the_client", || run(refuses())).needs(&["postgres"]),
    Test::new("postgres_is_starting", || run(starting())).needs(&["postgres"]),
    Test::new("postgres_is_out_of_connections", || run(saturated())).needs(&["postgres"]),
    Test::new("postgres_is_read_only", || run(read_only())).needs(&["postgres"]),
    Test::new("postgres_is_blocked_by_a_lock", || run(locked())).needs(&["postgres"]),
    Test::new("postgres_is_stopped", || run(stopped())).needs(&["postgres"]),
    Test::new("postgres_has_an_expired_certificate", || run(expired())).needs(&["postgres"]),
];

fn server(site: &Site) -> &PostgresServer {
    site.postgres_server()
}

async fn refuses() {
    let site = Site::postgres(PostgresOptions::new()).await;
    let wrong = stack(&site.url().replace(PASSWORD, "another-password-4b1e"));
    let expected = Failure::new(ErrorKind::Unauthenticated, &[Phase::Auth]).code("28P01");
    fails_in_time(&wrong, expected, "postgres, wrong password").await;
    let missing = stack(&format!("{}/nowhere", site.url().strip_suffix("/postgres").unwrap()));
    let expected = Failure::new(ErrorKind::NotFound, &[Phase::Auth]).code("3D000");
    fails_in_time(&missing, expected, "postgres, missing database").await;
    // Neither mends by waiting: who waits is told at once.
    for stack in [wrong, missing] {
        let error = Monitor::start(&stack).wait_ready(PATIENCE).await.unwrap_err();
        assert!(!error.mends_by_waiting() && error.code().is_some(), "{error:?}");
    }
}

/// A standby that may not answer queries is in recovery for as long as it lives.
async fn starting() {
    let options = PostgresOptions::new().with_setting("wal_level", "replica").with_setting("hot_standby", "off");
    let mut site = Site::postgres(options).await;
    let url = site.url();
    site.stop().await;
    write_private(&server(&site).socket_dir().join("data"), "standby.signal", "");
    let check = async {
        let expected = Failure::new(ErrorKind::Starting, &[Phase::Auth]).code("57P03");
        let stack = stack(&url);
        let is_up = async || {
            let report = stack.check_now(&[]).await;
            let failure = report.service("store")?.failure.as_ref()?;
            (failure.code.as_deref() == expected.code).then_some(())
        };
        wait_until("it answers that it is starting", PATIENCE, is_up).await.unwrap();
        fails_in_time(&stack, expected, "postgres, starting").await;
    };
    tokio::select! {
        () = site.restart() => panic!("it was not to become ready"),
        () = check => {}
    }
}

async fn saturated() {
    let options = PostgresOptions::new().with_setting("max_connections", "8");
    let site = Site::postgres(options.with_setting("superuser_reserved_connections", "0")).await;
    let monitor = Monitor::start(&site.stack());
    monitor.wait_ready(PATIENCE).await.unwrap();
    let _others = site.fill().await;
    let expected = Failure::new(ErrorKind::Saturated, &[Phase::Auth]).code("53300");
    fails_in_time(&site.stack(), expected, "postgres, no connection left").await;
    // The connection that the monitor holds still answers, and says what is the matter.
    let found = async || has_finding(&monitor.report(), "pg.connections.exhausted").then(|| monitor.report());
    let report = wait_until("the monitor says that it is full", PATIENCE, found).await.unwrap();
    let service = report.service("store").unwrap();
    assert_eq!(service.failure, None, "{service:?}");
    assert_eq!(service.axes.reach, Status::Healthy, "{service:?}");
}

fn has_finding(report: &Report, code: &str) -> bool {
    report.services.iter().any(|service| service.findings().any(|finding| finding.code == code))
}

async fn read_only() {
    let site = Site::postgres(PostgresOptions::new()).await;
    let sql = "alter system set default_transaction_read_only = on";
    server(&site).execute_in("postgres", sql).await.unwrap();
    server(&site).execute_in("postgres", "select pg_reload_conf()").await.unwrap();
    let is_read_only = async || {
        let rows = server(&site).query_in("postgres", "show transaction_read_only").await.unwrap();
        (rows[0][0].as_deref() == Some("on")).then_some(())
    };
    wait_until("the server is read-only", PATIENCE, is_read_only).await.unwrap();
    let service = |expects_writes: bool| {
        let config = PostgresConfig::from_url(&site.url()).unwrap().with_expect_writable(expects_writes);
        stack_of(Arc::new(Postgres::new(config).with_id("store")), intervals())
    };
    // To whoever only reads it is well.
    let reader = service(false);
    ready(&reader).await;
    let report = reader.check_now(&[]).await;
    let seen = report.service("store").unwrap().observation.clone().unwrap();
    assert_eq!(seen.value("read_only_bool"), Some(1.0), "{report}");
    assert!(!has_finding(&report, "pg.read_only"), "{report}");
    // Whoever writes can't be served by a server that answers.
    let writer = service(true);
    let refused = async || {
        let report = writer.check_now(&[]).await;
        (has_finding(&report, "pg.read_only") && !report.ready).then_some(report)
    };
    let report = wait_until("the writer is told", PATIENCE, refused).await.unwrap();
    let service = report.service("store").unwrap();
    assert_eq!((service.axes.reach, service.axes.ready), (Status::Healthy, Status::Unhealthy), "{report}");
}

/// Runs `held` while somebody holds a lock that every look into the catalogue waits for.
async fn while_locked(server: &PostgresServer, held: impl Future<Output = ()>) {
    let marker = server.socket_dir().join("locked");
    let sql = format!(
        "lock table pg_database in access exclusive mode; copy (select 1) to '{}'; select pg_sleep(3600)",
        marker.display()
    );
    let is_held = async || marker.exists().then_some(());
    tokio::select! {
        ended = server.execute_in("postgres", &sql) => panic!("the lock was not kept: {ended:?}"),
        () = async {
            wait_until("the lock is held", PATIENCE, is_held).await.unwrap();
            held.await;
        } => {}
    }
}

async fn locked() {
    let site = Site::postgres(PostgresOptions::new()).await;
    let mut warm = Vec::new();
    for _ in 0..TRIES {
        warm.push(site.warm_stack().await);
    }
    while_locked(server(&site), async {
        // The server ends the query itself, before the probe's deadline.
        let expected = Failure::new(ErrorKind::Timeout, &[Phase::Query]).code("57014");
        let mut tries = Vec::new();
        for stack in &warm {
            tries.push(fails(stack, expected, "postgres, a lock").await);
        }
        assert_in_time(&tries, "postgres, a lock");
        let expected = Failure::new(ErrorKind::Timeout, &[Phase::Auth]);
        fails_in_time(&site.stack(), expected, "postgres, a lock, without a connection").await;
    })
    .await;
}

async fn stopped() {
    let site = Site::postgres(PostgresOptions::new()).await;
    let stack = site.warm_stack().await;
    let pid = "select pid from pg_stat_activity where application_name = 'stackkit'";
    let rows = server(&site).query_in("postgres", pid).await.unwrap();
    let [row] = rows.as_slice() else { panic!("one connection for one service: {rows:?}") };
    let backend: u32 = row[0].as_ref().unwrap().parse().unwrap();
    {
        let _stopped = Stopped::stop(backend);
        let took = fails(&stack, Failure::new(ErrorKind::Timeout, &[Phase::Query]), "postgres, stopped backend").await;
        assert_in_time(&[took], "postgres, stopped backend");
        // Another backend serves the next probe.
        ready(&stack).await;
    }
    let _stopped = Stopped::stop(server(&site).pid().unwrap());
    // The kernel accepts for a server that does not.
    let expected = Failure::new(ErrorKind::Timeout, &[Phase::Auth]);
    fails_in_time(&site.stack(), expected, "postgres, stopped server").await;
    // The backends of open connections do not need it.
    assert!(stack.check_now(&[]).await.ready);
}

async fn expired() {
    let site = Site::postgres(PostgresOptions::new()).await;
    let data = server(&site).socket_dir().join("data");
    let service = |authority: &Path| {
        let config = PostgresConfig::new("localhost", "postgres").with_port(server(&site).port());
        let config = config.with_password(PASSWORD).with_tls(TlsMode::VerifyFull).with_ca_file(authority);
        stack_of(Arc::new(Postgres::new(config).with_id("store")), intervals())
    };
    for until in [VALID, EXPIRED] {
        let (authority, key) = certificate(until);
        let authority = write_private(&data, "server.crt", &authority);
        write_private(&data, "server.key", &key);
        server(&site).execute_in("postgres", "alter system set ssl = on").await.unwrap();
        server(&site).execute_in("postgres", "select pg_reload_conf()").await.unwrap();
        let stack = service(&authority);
        if until == VALID {
            ready(&stack).await;
        } else {
            let expected = Failure::new(ErrorKind::Config, &[Phase::Tls]);
            let is_seen = async || is_refused(&service(&authority), ErrorKind::Config).await;
            wait_until("the server has the other certificate", PATIENCE, is_seen).await.unwrap();
            fails_in_time(&service(&authority), expected, "postgres, expired certificate").await;
        }
    }
}

async fn is_refused(stack: &Stack, kind: ErrorKind) -> Option<()> {
    let report = stack.check_now(&[]).await;
    let failure = report.service("store")?.failure.as_ref()?;
    (failure.kind == kind).then_some(())
}
