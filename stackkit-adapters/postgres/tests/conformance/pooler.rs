//! Through pgbouncer.

use libtest_mimic::Trial;
use stackkit_core::Observation;
use stackkit_core::backup::RestoreOptions;
use stackkit_core::health::Tier;
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::conformance::{Outcome, trial};
use stackkit_fixtures::{PgBouncer, PoolMode, PostgresOptions, PostgresServer, pgbouncer, postgres_server};
use stackkit_postgres::Postgres;

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use crate::health::{LONG, probe};
use crate::memory::{dump, restore};
use crate::vitals::session;

/// Counts what a probe prepared on the session that answers.
const PREPARED: &str = "begin; select count(*) from pg_prepared_statements where name like 'stackkit%'";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("pooler::a_probe_finds_its_statements_gone_and_sends_them_plain", "pgbouncer", statements_gone),
        trial("pooler::a_probe_finds_its_statements_there_and_sends_them_plain", "pgbouncer", statements_there),
        trial("pooler::a_probe_leaves_no_setting_behind", "pgbouncer", nothing_left),
        trial("pooler::every_tier_comes_through_in_every_mode", "pgbouncer", tiers),
        trial("pooler::transaction_mode_is_refused_before_anything_is_set", "pgbouncer", transaction_mode),
        trial("pooler::session_mode_dumps", "pgbouncer", session_mode),
    ]
}

/// A server, the pooler in front of it, and a handle on a database through the pooler.
async fn fixture(mode: PoolMode) -> Outcome<(PostgresServer, PgBouncer, Postgres)> {
    let server = postgres_server(PostgresOptions::new()).await?;
    let pooler = pgbouncer(&server, mode).await?;
    server.create_database("shop").await?;
    let service = Postgres::from_url(&pooler.url_of("shop"))?;
    Ok((server, pooler, service))
}

fn is_whole(seen: &Observation) {
    assert_eq!(seen.value("connections_max_count"), Some(197.0));
    assert!(seen.value("connections_used_count").expect("a number") >= 1.0);
    assert_eq!((seen.info["writable"].as_str(), seen.findings.len()), ("yes", 0), "{:?}", seen.findings);
}

/// The session that has the statements is another client's: the next one does not know them.
async fn statements_gone() -> Outcome {
    let (_server, pooler, service) = fixture(PoolMode::Transaction).await?;
    is_whole(&probe(&service, Tier::Vitals, LONG).await?);
    let holder = session(&pooler.url_of("shop")).await;
    let answer = holder.client.simple_query(PREPARED).await.expect("the session that was left");
    assert_eq!(rows(&answer)[0].get(0), Some("2"), "the holder has the session of the probe");
    for _probe in 0..3 {
        is_whole(&probe(&service, Tier::Vitals, LONG).await?);
    }
    Ok(())
}

/// A client that has prepared nothing gets the session on which another one did.
async fn statements_there() -> Outcome {
    let (_server, pooler, first) = fixture(PoolMode::Transaction).await?;
    is_whole(&probe(&first, Tier::Vitals, LONG).await?);
    let second = Postgres::from_url(&pooler.url_of("shop"))?;
    for _probe in 0..3 {
        is_whole(&probe(&second, Tier::Vitals, LONG).await?);
        is_whole(&probe(&first, Tier::Vitals, LONG).await?);
    }
    Ok(())
}

/// Deadline and path are the probe's own: the next client of the session has its own.
async fn nothing_left() -> Outcome {
    let (server, pooler, service) = fixture(PoolMode::Transaction).await?;
    for tier in [Tier::Vitals, Tier::Inventory, Tier::Vitals] {
        probe(&service, tier, LONG).await?;
    }
    let client = session(&pooler.url_of("shop")).await;
    let settings = "select current_setting('statement_timeout'), current_setting('search_path')";
    let answer = client.client.simple_query(settings).await.expect("settings");
    let row = rows(&answer)[0];
    assert_eq!((row.get(0), row.get(1)), (Some("0"), Some("\"$user\", public")));
    let probed = "select count(*) from pg_stat_activity where datname = 'shop' and backend_type = 'client backend'";
    let sessions = server.query_in("postgres", probed).await?;
    assert_eq!(sessions, [[Some("1".to_owned())]], "the client has the session of the probes");
    Ok(())
}

async fn tiers() -> Outcome {
    for mode in [PoolMode::Session, PoolMode::Transaction, PoolMode::Statement] {
        let (_server, _pooler, service) = fixture(mode).await?;
        for tier in [Tier::Ping, Tier::Vitals, Tier::Inventory, Tier::Vitals] {
            let seen = probe(&service, tier, LONG).await.unwrap_or_else(|error| panic!("{mode:?} {tier:?}: {error:?}"));
            assert_eq!(seen.info.contains_key("version"), tier == Tier::Vitals, "{mode:?} {tier:?}");
        }
    }
    Ok(())
}

/// Dump, census and plan are refused with the reason, and the pooled sessions are as they were.
async fn transaction_mode() -> Outcome {
    let (server, pooler, service) = fixture(PoolMode::Transaction).await?;
    server.execute_in("shop", "create table orders as select 1 as id").await?;
    let (memory, _report) = dump(&Postgres::from_url(&server.url_of("shop"))?).await?;
    let begun = dump(&service).await.map(drop).expect_err("a dump");
    let counted = service.census().await.map(drop).expect_err("a census");
    let planned = service.plan_restore(&memory, &RestoreOptions::new()).await.map(drop).expect_err("a plan");
    for error in [begun, counted, planned] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.to_string().contains("a pooler in transaction mode is in between"), "{error}");
    }
    let client = session(&pooler.url_of("shop")).await;
    let answer = client.client.simple_query("show search_path; show row_security").await.expect("settings");
    let told: Vec<_> = rows(&answer).iter().map(|row| row.get(0)).collect();
    assert_eq!(told, [Some("\"$user\", public"), Some("on")]);
    Ok(())
}

async fn session_mode() -> Outcome {
    let (server, _pooler, service) = fixture(PoolMode::Session).await?;
    server.execute_in("shop", "create table orders as select generate_series(1, 100) as id").await?;
    let (memory, report) = dump(&service).await?;
    assert_eq!(report.census.count("tables.public.orders.rows"), 100);
    server.execute_in("shop", "drop table orders").await?;
    restore(&Postgres::from_url(&server.url_of("shop"))?, &memory, &report).await?;
    assert_eq!(service.census().await?, report.census);
    Ok(())
}

/// The rows of an answer.
fn rows(messages: &[SimpleQueryMessage]) -> Vec<&SimpleQueryRow> {
    messages.iter().filter_map(row).collect()
}

fn row(message: &SimpleQueryMessage) -> Option<&SimpleQueryRow> {
    match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }
}
