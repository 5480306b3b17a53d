//! What the vitals tell of a server in each state.

use std::sync::Arc;
use std::time::Duration;

use stackkit_core::health::{Measurement, MeasurementValue, Thresholds, Tier};
use stackkit_core::{Clock, ErrorKind, HealthCheck, Observation, Phase, ProbeContext};

use stackkit_fixtures::{PostgresFixture, PostgresOptions, PostgresServer, postgres_server, wait_until};
use stackkit_postgres::Postgres;
use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;

use crate::health::{LONG, probe};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    every_metric_of_the_catalogue_is_told_and_no_other,
    vitals_are_one_round_trip_of_planned_statements,
    a_plain_role_is_told_the_grant_and_sees_with_it,
    sessions_are_counted_by_state_and_blockers_by_root,
    rates_need_a_previous_probe,
    an_abandoned_slot_is_told_by_name,
    a_failing_archiver_is_told,
    a_standby_is_read_only_and_says_so,
    a_paused_standby_is_told,
    a_dropped_probe_does_not_delay_the_next,
    a_session_that_an_operator_ends_is_unreachable,
    probes_hold_one_connection_however_they_end,
];

/// A connection that the test talks over.
pub(crate) struct Session {
    pub(crate) client: Client,
    _driver: AbortOnDropHandle<()>,
}

pub(crate) async fn session(url: &str) -> Session {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    let driver = tokio::spawn(async move {
        // A broken connection shows in the next statement.
        let _ = connection.await;
    });
    Session { client, _driver: AbortOnDropHandle::new(driver) }
}

pub(crate) fn reason(seen: &Observation, name: &str) -> String {
    let found = seen.measurements.iter().find(|measurement| measurement.name == name);
    match &found.unwrap_or_else(|| panic!("{name} is not told")).value {
        MeasurementValue::Unavailable(reason) => reason.clone(),
        MeasurementValue::Value(value) => panic!("{name} is {value}"),
    }
}

pub(crate) fn labelled(seen: &Observation, name: &str, label: &str) -> Option<f64> {
    let is_it = |m: &&Measurement| m.name == name && m.labels.values().any(|value| value == label);
    seen.measurements.iter().find(is_it).and_then(Measurement::number)
}

pub(crate) fn codes(service: &Postgres, seen: &Observation) -> Vec<String> {
    let verdict = Thresholds::new().verdict(&service.rules(), seen);
    verdict.findings.iter().chain(&seen.findings).map(|finding| finding.code.to_string()).collect()
}

async fn fixture() -> (PostgresFixture, Postgres) {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    (postgres, service)
}

async fn every_metric_of_the_catalogue_is_told_and_no_other() {
    let (_postgres, service) = fixture().await;
    for tier in [Tier::Vitals, Tier::Inventory] {
        let seen = probe(&service, tier, LONG).await.expect("an observation");
        for metric in service.metrics().iter().filter(|metric| metric.tier == tier) {
            let told: Vec<_> = seen.measurements.iter().filter(|told| told.name == metric.name).collect();
            assert!(!told.is_empty(), "{} is missing", metric.name);
            assert!(told.iter().all(|told| told.kind == metric.kind), "{} is of another kind", metric.name);
        }
        for told in &seen.measurements {
            let known = service.metrics().iter().any(|metric| metric.name == told.name && metric.tier == tier);
            assert!(known, "{} is not in the catalogue of {tier}", told.name);
            if let MeasurementValue::Unavailable(reason) = &told.value {
                assert!(!reason.contains("tells none") && !reason.contains("permission"), "{}: {reason}", told.name);
            }
        }
    }
}

async fn vitals_are_one_round_trip_of_planned_statements() {
    let (postgres, service) = fixture().await;
    probe(&service, Tier::Vitals, LONG).await.expect("vitals");
    let last = format!(
        "select query from pg_stat_activity where datname = '{}' and application_name = 'stackkit'",
        postgres.database()
    );
    let query = async || postgres.query(&last).await.expect("a query")[0][0].clone().expect("a text");
    assert!(query().await.contains("PREPARE stackkit_"));
    probe(&service, Tier::Vitals, LONG).await.expect("vitals");
    let warm = query().await;
    assert!(warm.starts_with("SET LOCAL statement_timeout") && warm.contains("EXECUTE stackkit_"), "{warm}");
    assert!(!warm.contains("SELECT"), "nothing is planned anew: {warm}");
}

async fn a_plain_role_is_told_the_grant_and_sees_with_it() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let role = format!("plain_{}", postgres.database());
    postgres.execute(&format!("create role {role} login")).await.expect("a role");
    let service = Postgres::from_url(&postgres.url().replace("postgres@", &format!("{role}@"))).expect("a URL");
    let monitored = |tier| {
        let needs = move |metric: &&stackkit_core::health::Metric| metric.tier == tier && metric.grant.is_some();
        service.metrics().iter().filter(needs)
    };
    for tier in [Tier::Vitals, Tier::Inventory] {
        let seen = probe(&service, tier, LONG).await.expect("an observation");
        for metric in monitored(tier) {
            let grant = metric.grant.expect("a grant");
            assert_eq!(reason(&seen, metric.name), format!("permission: {grant}"), "{}", metric.name);
        }
        for told in seen.measurements.iter().filter(|told| told.number().is_none()) {
            let MeasurementValue::Unavailable(reason) = &told.value else { continue };
            let metric = service.metrics().iter().find(|metric| metric.name == told.name).expect("a metric");
            assert!(metric.grant.is_some() || !reason.contains("permission"), "{} names its grant", told.name);
        }
    }
    let grants = format!("grant pg_monitor to {role}; grant execute on function pg_hba_file_rules() to {role}");
    postgres.execute(&grants).await.expect("grants");
    for tier in [Tier::Vitals, Tier::Inventory] {
        let seen = probe(&service, tier, LONG).await.expect("an observation");
        for metric in monitored(tier) {
            let permitted = seen.measurements.iter().filter(|told| told.name == metric.name).all(
                |told| !matches!(&told.value, MeasurementValue::Unavailable(reason) if reason.contains("permission")),
            );
            assert!(permitted, "{} is seen with {:?}", metric.name, metric.grant);
        }
    }
}

async fn sessions_are_counted_by_state_and_blockers_by_root() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    server.execute_in("postgres", "create table t (id int)").await.expect("a table");
    let holder = session(&server.url()).await;
    holder.client.batch_execute("begin; lock table t in access exclusive mode").await.expect("a lock");
    let (second, third) = (session(&server.url()).await, session(&server.url()).await);
    let blocked = async {
        let lock = "select pg_sleep(1); begin; lock table t in access exclusive mode; rollback";
        tokio::join!(second.client.batch_execute(lock), third.client.batch_execute(lock))
    };
    let look = async {
        let seen = wait_until("two blocked sessions", LONG, async || {
            let seen = probe(&service, Tier::Vitals, LONG).await.expect("vitals");
            (seen.value("connections_blocked_count") == Some(2.0)).then_some(seen)
        });
        let seen = seen.await.expect("two sessions wait");
        assert_eq!(seen.value("connections_blocking_count"), Some(1.0), "one root, though each waits for another");
        assert_eq!(labelled(&seen, "connections_count", "idle_in_transaction"), Some(1.0));
        assert_eq!(labelled(&seen, "connections_count", "active"), Some(3.0), "two that wait, and the probe");
        assert!(seen.value("idle_in_transaction_longest_seconds").expect("a time") > 0.0);
        let waited = seen.value("blocked_longest_seconds").expect("a time");
        let sql = "select extract(epoch from clock_timestamp() - min(state_change))::float8 from pg_stat_activity \
            where wait_event_type = 'Lock'";
        let statement: f64 = holder.client.query_one(sql, &[]).await.expect("an age").get(0);
        assert!((0.0..=statement - 1.0).contains(&waited), "{waited} s of {statement}: it did something else for 1 s");
        holder.client.batch_execute("rollback").await.expect("the lock is given back");
    };
    let ((one, other), ()) = tokio::join!(blocked, look);
    one.and(other).expect("both got their lock");
    let seen = probe(&service, Tier::Vitals, LONG).await.expect("vitals");
    assert_eq!(
        (seen.value("connections_blocked_count"), seen.value("connections_blocking_count")),
        (Some(0.0), Some(0.0))
    );
}

async fn rates_need_a_previous_probe() {
    let (postgres, service) = fixture().await;
    let first = probe(&service, Tier::Vitals, LONG).await.expect("vitals");
    assert_eq!(reason(&first, "transactions_per_minute_count"), "needs a previous observation");
    postgres.execute("create table t as select generate_series(1, 1000)").await.expect("some work");
    let previous = Arc::new(first);
    let grown = wait_until("the statistics", LONG, async || {
        let now = Clock::system().instant();
        let cx = ProbeContext::new(Tier::Vitals, now + LONG)
            .with_previous(Some(previous.clone()))
            .with_previous_at(Some(now - Duration::from_secs(60)));
        let seen = service.probe(&cx).await.expect("vitals");
        // The server writes the WAL of transactions that need not wait for it a moment later.
        let grown = |name: &str| seen.value(name).is_some_and(|value| value >= 1.0);
        (grown("transactions_per_minute_count") && grown("wal_written_per_minute_bytes")).then_some(seen)
    });
    let seen = grown.await.expect("transactions and WAL are counted");
    assert_eq!(seen.value("deadlocks_new_count"), Some(0.0));
}

/// A server that can have standbys: the fixtures' own writes no more WAL than it must.
pub(crate) fn replicating() -> PostgresOptions {
    PostgresOptions::new().with_setting("wal_level", "replica").with_setting("max_wal_senders", "4")
}

async fn an_abandoned_slot_is_told_by_name() {
    let server = postgres_server(replicating()).await.expect("a server");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let sql = "select pg_create_physical_replication_slot('left_behind', true); create table t as select 1";
    server.execute_in("postgres", sql).await.expect("a slot");
    let seen = probe(&service, Tier::Vitals, LONG).await.expect("vitals");
    assert_eq!(seen.value("replication_slots_inactive_count"), Some(1.0));
    assert_eq!(labelled(&seen, "slot_active_bool", "left_behind"), Some(0.0));
    assert_eq!(labelled(&seen, "slot_lost_bool", "left_behind"), Some(0.0));
    assert!(labelled(&seen, "slot_retained_bytes", "left_behind").expect("a size") > 0.0);
    assert_eq!(codes(&service, &seen), ["pg.slots.inactive"]);
}

async fn a_failing_archiver_is_told() {
    let options = replicating().with_setting("archive_mode", "on").with_setting("archive_command", "/bin/false");
    let server = postgres_server(options).await.expect("a server");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    server.execute_in("postgres", "create table t as select 1; select pg_switch_wal()").await.expect("a WAL file");
    let failing = wait_until("a failure", LONG, async || {
        let seen = probe(&service, Tier::Vitals, LONG).await.expect("vitals");
        (seen.value("archiver_failing_bool") == Some(1.0)).then_some(seen)
    });
    let seen = failing.await.expect("the archiver fails");
    assert!(seen.value("archive_failures_count").expect("a count") >= 1.0);
    assert_eq!(reason(&seen, "archive_age_seconds"), "nothing was archived yet");
    assert_eq!(codes(&service, &seen), ["pg.archiver.failing"]);
}

/// A server that waits for WAL that never comes.
async fn standby() -> PostgresServer {
    let mut server = postgres_server(replicating()).await.expect("a server");
    let rows = server.query_in("postgres", "show data_directory").await.expect("a path");
    let data = rows[0][0].clone().expect("a path");
    server.stop().await.expect("stopped");
    std::fs::write(format!("{data}/standby.signal"), "").expect("a file");
    server.start().await.expect("started as a standby");
    server
}

async fn a_standby_is_read_only_and_says_so() {
    let server = standby().await;
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let seen = probe(&service, Tier::Vitals, LONG).await.expect("vitals");
    assert_eq!((seen.info["role"].as_str(), seen.value("in_recovery_bool")), ("standby", Some(1.0)));
    assert_eq!((seen.value("replay_paused_bool"), seen.value("wal_receiver_running_bool")), (Some(0.0), Some(0.0)));
    assert_eq!(reason(&seen, "replication_lag_seconds"), "nothing was replayed yet");
    assert_eq!(codes(&service, &seen), Vec::<String>::new(), "a standby is sound unless a primary was asked for");
    let writer = Postgres::from_url(&format!("{}?target_session_attrs=read-write", server.url())).expect("a URL");
    let seen = probe(&writer, Tier::Vitals, LONG).await.expect("vitals");
    assert_eq!(codes(&writer, &seen), ["pg.read_only"]);
    probe(&service, Tier::Inventory, LONG).await.expect("an inventory of a standby");
}

async fn a_paused_standby_is_told() {
    let server = standby().await;
    let service = Postgres::from_url(&server.url()).expect("a URL");
    server.query_in("postgres", "select pg_wal_replay_pause()").await.expect("paused");
    let seen = probe(&service, Tier::Vitals, LONG).await.expect("vitals");
    assert_eq!(codes(&service, &seen), ["pg.replay.paused"]);
}

/// A view of the system's name in this one database makes the vitals slow.
async fn slow(postgres: &PostgresFixture) {
    let setup = "set allow_system_table_mods = on; alter view pg_catalog.pg_stat_archiver rename to archiver; \
        create view pg_catalog.pg_stat_archiver as select 0::bigint archived_count, 0::bigint failed_count, \
        null::timestamptz last_failed_time, null::timestamptz last_archived_time from pg_sleep(30)";
    postgres.execute(setup).await.expect("a slow view");
}

async fn a_dropped_probe_does_not_delay_the_next() {
    let (postgres, service) = fixture().await;
    slow(&postgres).await;
    let working = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and application_name = 'stackkit' \
         and state = 'active' and wait_event = 'PgSleep'",
        postgres.database()
    );
    let count = async || postgres.query(&working).await.expect("a count")[0][0].clone();
    let deadline = Duration::from_secs(2);
    let server_works = async {
        let works = async || (count().await.as_deref() == Some("1")).then_some(());
        wait_until("the server to work", LONG, works).await.expect("the server works");
    };
    tokio::select! {
        seen = probe(&service, Tier::Vitals, deadline) => panic!("the probe ended before the server worked: {seen:?}"),
        () = server_works => {}
    }
    // The probe was dropped, and the server still sleeps in its query.
    let begin = Clock::system().instant();
    probe(&service, Tier::Ping, LONG).await.expect("the next probe");
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    let ended = async || (count().await.as_deref() == Some("0")).then_some(());
    wait_until("the server's own deadline", deadline * 2, ended).await.expect("the server ends what was dropped");
}

async fn a_session_that_an_operator_ends_is_unreachable() {
    let (postgres, service) = fixture().await;
    slow(&postgres).await;
    let end = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '{}' \
         and application_name = 'stackkit' and wait_event = 'PgSleep'",
        postgres.database()
    );
    let ended = async || {
        let rows = postgres.query(&end).await.expect("a count");
        (rows[0][0].as_deref() == Some("1")).then_some(())
    };
    let (seen, done) = tokio::join!(probe(&service, Tier::Vitals, LONG), wait_until("a session to end", LONG, ended));
    done.expect("the session was ended");
    let error = seen.expect_err("it was ended");
    assert_eq!(
        (error.kind(), error.code(), error.phase()),
        (ErrorKind::Unreachable, Some("57P01"), Some(Phase::Query)),
        "{error:?}"
    );
    probe(&service, Tier::Ping, LONG).await.expect("the next probe connects anew");
}

async fn probes_hold_one_connection_however_they_end() {
    let (postgres, service) = fixture().await;
    let held = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and application_name = 'stackkit'",
        postgres.database()
    );
    let count = async || postgres.query(&held).await.expect("a count")[0][0].clone().expect("a number");
    for round in 0..40_u32 {
        let tier = [Tier::Ping, Tier::Vitals, Tier::Inventory][usize::try_from(round % 3).expect("small")];
        // Some end well, some are cut off by a deadline that hardly any server meets.
        let within = if round % 2 == 0 { LONG } else { Duration::from_micros(1) };
        let seen = probe(&service, tier, within).await;
        if within == LONG {
            seen.expect("a probe with time");
            let alone = async || (count().await == "1").then_some(());
            wait_until("one connection", LONG, alone).await.expect("a cut-off probe's connection goes");
        }
    }
}
