//! What the inventory tells: tables, indexes, extensions, statements.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Completion;
use stackkit_core::health::Tier;
use stackkit_core::{Clock, HealthCheck, ProbeContext};
use stackkit_fixtures::{PostgresFixture, PostgresOptions, postgres_server, wait_until};
use stackkit_postgres::Postgres;

use crate::health::{LONG, probe};
use crate::vitals::{codes, labelled, reason, session};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    tables_tell_size_rows_and_growth,
    dead_rows_are_told_of_large_tables,
    a_locked_table_does_not_hold_the_inventory_up,
    indexes_that_are_invalid_or_unused_are_told,
    extensions_are_facts,
];

async fn fixture() -> (PostgresFixture, Postgres) {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    (postgres, service)
}

async fn tables_tell_size_rows_and_growth() {
    let (postgres, service) = fixture().await;
    postgres.execute("create table t as select generate_series(1, 1000) g").await.expect("a table");
    let rows = async |expected: f64, cx: &ProbeContext| {
        let told = async || {
            let seen = service.probe(cx).await.expect("an inventory");
            (labelled(&seen, "table_rows_count", "public.t") == Some(expected)).then_some(seen)
        };
        wait_until("the statistics", LONG, told).await.expect("the rows are estimated")
    };
    let now = Clock::system().instant();
    let cx = ProbeContext::new(Tier::Inventory, now + LONG);
    // Only then: what the first session counted would be added to what a vacuum counts.
    rows(1000.0, &cx).await;
    postgres.execute("vacuum analyze t").await.expect("a vacuum");
    let first = rows(1000.0, &cx).await;
    assert!(labelled(&first, "table_size_bytes", "public.t").expect("a size") >= 8192.0);
    assert_eq!(first.value("tables_count"), Some(1.0));
    assert!(labelled(&first, "table_vacuum_age_seconds", "public.t").expect("an age") < 600.0);
    assert_eq!(labelled(&first, "table_growth_per_hour_count", "public.t"), None, "needs a previous inventory");
    postgres.execute("insert into t select generate_series(1, 500)").await.expect("more rows");
    let hour_ago = now - Duration::from_secs(3600);
    let cx = ProbeContext::new(Tier::Inventory, Clock::system().instant() + LONG * 2)
        .with_previous(Some(Arc::new(first)))
        .with_previous_at(Some(hour_ago));
    let second = rows(1500.0, &cx).await;
    let growth = labelled(&second, "table_growth_per_hour_count", "public.t").expect("a rate");
    assert!((490.0..=500.0).contains(&growth), "{growth}");
    assert!(second.value("database_growth_per_hour_bytes").is_some());
}

async fn dead_rows_are_told_of_large_tables() {
    let (postgres, service) = fixture().await;
    let sql = "create table small as select generate_series(1, 100) g; create table large (g int) \
        with (autovacuum_enabled = off); insert into large select generate_series(1, 20000); \
        delete from large where g > 8000; delete from small";
    postgres.execute(sql).await.expect("dead rows");
    let told = async || {
        let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
        labelled(&seen, "table_dead_ratio", "public.large").map(|_ratio| seen)
    };
    let seen = wait_until("the statistics", LONG, told).await.expect("dead rows are counted");
    assert_eq!(labelled(&seen, "table_dead_ratio", "public.large"), Some(0.6));
    assert_eq!(labelled(&seen, "table_dead_ratio", "public.small"), None, "too few rows to tell");
    assert!(codes(&service, &seen).contains(&"pg.table.dead".to_owned()));
}

async fn a_locked_table_does_not_hold_the_inventory_up() {
    let (postgres, service) = fixture().await;
    let sql = "create table held as select 1; create table free as select 1; create index by_one on free ((1))";
    postgres.execute(sql).await.expect("tables");
    let holder = session(&postgres.url()).await;
    holder.client.batch_execute("begin; lock table held in access exclusive mode").await.expect("a lock");
    let begin = Clock::system().instant();
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(labelled(&seen, "table_size_bytes", "public.free").is_some());
    assert_eq!(labelled(&seen, "table_size_bytes", "public.held"), None);
    assert!(labelled(&seen, "table_rows_count", "public.held").is_some(), "the estimate needs no lock");
    holder.client.batch_execute("rollback; begin; drop index by_one").await.expect("an index is locked");
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    assert_eq!(labelled(&seen, "table_size_bytes", "public.free"), None, "the size counts its indexes");
    assert!(labelled(&seen, "table_size_bytes", "public.held").is_some());
}

async fn indexes_that_are_invalid_or_unused_are_told() {
    let (postgres, service) = fixture().await;
    let sql = "create table t as select g, g % 10 as few from generate_series(1, 60000) g; \
        create index never_read on t (g); create unique index keeps_unique on t (g)";
    postgres.execute(sql).await.expect("indexes");
    let failed = session(&postgres.url()).await;
    failed.client.batch_execute("create unique index concurrently twice on t (few)").await.expect_err("not unique");
    // An error is told before its build has ended.
    failed.client.batch_execute("select 1").await.expect("the session works");
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    assert_eq!(seen.value("indexes_invalid_count"), Some(1.0));
    assert!(codes(&service, &seen).contains(&"pg.index.invalid".to_owned()));
    assert_eq!(seen.value("indexes_unused_count"), Some(1.0), "a unique index works without being read");
    let size = labelled(&seen, "index_unused_bytes", "public.never_read").expect("a size");
    assert_eq!(seen.value("indexes_unused_bytes"), Some(size));
    assert!(size >= 1_048_576.0);
}

async fn extensions_are_facts() {
    let (postgres, service) = fixture().await;
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    assert!(seen.info["extension.plpgsql"].starts_with(|c: char| c.is_ascii_digit()), "{:?}", seen.info);
    assert_eq!(seen.value("extensions_outdated_count"), Some(0.0));
    let older = "update pg_extension set extversion = '0.9' where extname = 'plpgsql'";
    postgres.execute(older).await.expect("an older extension");
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    assert_eq!((seen.info["extension.plpgsql"].as_str(), seen.value("extensions_outdated_count")), ("0.9", Some(1.0)));
    assert_eq!(reason(&seen, "statement_mean_seconds"), "pg_stat_statements is not in shared_preload_libraries");
}

pub(crate) async fn slow_statements_are_told_by_id() -> Completion {
    let options = PostgresOptions::new().with_setting("shared_preload_libraries", "pg_stat_statements");
    let server = match postgres_server(options).await {
        Err(error) if error.chain().to_string().contains("could not access file") => {
            return Completion::ignored_with("the server was built without pg_stat_statements");
        }
        server => server.expect("a server"),
    };
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    let missing = "the extension pg_stat_statements is not in this database, or not readable";
    assert_eq!(reason(&seen, "statement_mean_seconds"), missing);
    let sql = "create schema \"Odd one\"; create extension pg_stat_statements schema \"Odd one\"";
    server.execute_in("postgres", sql).await.expect("the extension");
    for _run in 0..2 {
        server.query_in("postgres", "select pg_sleep(0.05), 'canary-word'").await.expect("a slow statement");
    }
    let seen = probe(&service, Tier::Inventory, LONG).await.expect("an inventory");
    let slowest = seen.measurements.iter().find(|told| told.name == "statement_mean_seconds").expect("a statement");
    assert!(slowest.number().expect("a time") >= 0.05, "{slowest:?}");
    assert!(slowest.labels["queryid"].parse::<i64>().is_ok(), "{slowest:?}");
    assert_eq!(labelled(&seen, "statement_calls_count", &slowest.labels["queryid"]), Some(2.0));
    assert!(!format!("{seen:?}").contains("canary"), "no statement's text");
    Completion::Completed
}
