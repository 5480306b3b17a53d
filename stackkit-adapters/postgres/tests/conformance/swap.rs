//! The swap at the end of a restore: one transaction, whoever is in its way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use stackkit_core::backup::{DumpReport, OldData, RestoreContext, RestoreOptions, RestoreReport, TargetState};
use stackkit_core::process::Tool;
use stackkit_core::{BackupProvider, ErrorKind, Result};
use stackkit_fixtures::{PostgresFixture, PostgresOptions, PostgresServer, postgres_server, wait_until};
use stackkit_postgres::{Postgres, PostgresRestore};

use crate::memory::{Memory, dump, restore};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    clients_that_reconnect_in_a_storm_do_not_stop_the_swap,
    whoever_connects_sees_one_database_or_the_other,
    autovacuum_makes_way,
    a_prepared_transaction_keeps_the_old_data,
    a_copy_of_the_target_under_way_keeps_the_old_data,
    a_session_that_may_not_be_ended_is_named_with_the_grant,
    the_grant_to_end_sessions_is_enough,
    the_journal_is_in_the_comment_of_the_replaced_database,
    a_database_named_back_by_hand_keeps_its_comment,
    a_target_replaced_meanwhile_is_left_alone,
    slots_and_subscriptions_need_force,
    subscriptions_of_a_failed_restore_are_removed_with_its_database,
    recover_removes_subscriptions_but_not_their_slots,
];

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// A database with one row, and its dump; the row differs from the dump's then.
async fn changed(postgres: &PostgresFixture) -> (Postgres, Memory, DumpReport) {
    postgres.execute("create table t as select 'dumped'::text as x").await.expect("a table");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    let (memory, report) = dump(&service).await.expect("a dump");
    postgres.execute("update t set x = 'newer'").await.expect("a change");
    (service, memory, report)
}

/// The same as the database `shop` of a server of its own, unchanged.
async fn shop(server: &PostgresServer) -> (Postgres, Memory, DumpReport) {
    server.create_database("shop").await.expect("a database");
    server.execute_in("shop", "create table t as select 'dumped'::text as x").await.expect("a table");
    let service = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    let (memory, report) = dump(&service).await.expect("a dump");
    (service, memory, report)
}

async fn content(server: &PostgresServer, database: &str) -> String {
    let rows = server.query_in(database, "select x from t").await.expect("a row");
    rows[0][0].clone().expect("a value")
}

async fn comment_of(server: &PostgresServer, database: &str) -> Option<String> {
    let sql = format!("select shobj_description(oid, 'pg_database') from pg_database where datname = '{database}'");
    server.query_in("postgres", &sql).await.expect("a comment")[0][0].clone()
}

async fn staged(server: &PostgresServer, database: &str) -> Vec<String> {
    let sql = format!("select datname from pg_database where starts_with(datname, '{database}__sk_')");
    server.query_in("postgres", &sql).await.expect("names").into_iter().flatten().flatten().collect()
}

/// The database holds what it held, and nothing is left over.
async fn is_old(postgres: &PostgresFixture, restored: Result<RestoreReport>) -> stackkit_core::Error {
    let error = restored.expect_err("the swap fails");
    assert_eq!(error.target(), Some(TargetState::Old), "{error:?}");
    assert_eq!(content(postgres.server(), postgres.database()).await, "newer");
    assert_eq!(staged(postgres.server(), postgres.database()).await, Vec::<String>::new());
    error
}

async fn clients_that_reconnect_in_a_storm_do_not_stop_the_swap() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (service, memory, report) = changed(&postgres).await;
    let is_over = AtomicBool::new(false);
    let ended = AtomicUsize::new(0);
    // Each holds a session until it is ended, and comes back at once.
    let client = async || {
        while !is_over.load(Ordering::Relaxed) {
            let hold = "select pg_sleep(60)";
            let hold = tokio::time::timeout(Duration::from_millis(300), postgres.query(hold)).await;
            if matches!(hold, Ok(Err(_))) {
                ended.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    };
    let restoring = async {
        let restored = restore(&service, &memory, &report).await;
        is_over.store(true, Ordering::Relaxed);
        restored
    };
    let all = tokio::join!(restoring, client(), client(), client(), client(), client(), client(), client(), client());
    all.0.expect("a restore");
    assert!(ended.load(Ordering::Relaxed) > 0, "sessions were ended");
    assert_eq!(content(postgres.server(), postgres.database()).await, "dumped");
}

async fn whoever_connects_sees_one_database_or_the_other() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (service, memory, report) = changed(&postgres).await;
    let is_over = AtomicBool::new(false);
    let seen = async {
        let mut seen = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            match postgres.query("select x from t").await {
                Ok(rows) => seen.push(rows[0][0].clone().expect("a value")),
                // Whoever waits for the swap is told to connect again; sessions are ended.
                Err(error) => assert!(matches!(error.code(), Some("3D000" | "57P01") | None), "{error:?}"),
            }
        }
        seen
    };
    let restoring = async {
        let restored = restore(&service, &memory, &report).await;
        assert_eq!(content(postgres.server(), postgres.database()).await, "dumped");
        is_over.store(true, Ordering::Relaxed);
        restored
    };
    let (restored, mut seen) = tokio::join!(restoring, seen);
    restored.expect("a restore");
    seen.dedup();
    assert!(seen.starts_with(&["newer".to_owned()]) && seen.len() <= 2, "{seen:?}");
}

async fn autovacuum_makes_way() {
    let options = PostgresOptions::new()
        .with_setting("autovacuum", "on")
        .with_setting("autovacuum_naptime", "1")
        .with_setting("autovacuum_vacuum_cost_delay", "100")
        .with_setting("autovacuum_vacuum_cost_limit", "1");
    let server = postgres_server(options).await.expect("a server");
    server.create_database("shop").await.expect("a database");
    let fill = "create table t as select 'dumped'::text as x; \
        create table big as select g, repeat('x', 500) as y from generate_series(1, 20000) g; delete from big where g % 2 = 0";
    server.execute_in("shop", fill).await.expect("dead rows");
    let service = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    let (memory, report) = dump(&service).await.expect("a dump");
    let at_work = "select 1 from pg_stat_activity where backend_type = 'autovacuum worker' and datname = 'shop'";
    let seen = async || server.query_in("postgres", at_work).await.is_ok_and(|rows| !rows.is_empty()).then_some(());
    wait_until("a worker vacuums", PATIENCE, seen).await.expect("a worker");
    restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(content(&server, "shop").await, "dumped");
}

async fn a_prepared_transaction_keeps_the_old_data() {
    let options = PostgresOptions::new().with_setting("max_prepared_transactions", "2");
    let server = postgres_server(options).await.expect("a server");
    let (service, memory, report) = shop(&server).await;
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    // It changes no row, so the plan is not stale.
    let prepare = "begin; lock table t in access share mode; prepare transaction 'in_the_way'";
    server.execute_in("shop", prepare).await.expect("prepared");
    let error = service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("it can't be ended");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Busy, Some(TargetState::Old)), "{error:?}");
    assert!(error.to_string().contains("in_the_way"), "{error}");
    assert_eq!(staged(&server, "shop").await, Vec::<String>::new());
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains("in_the_way")), "{plan}");
    server.execute_in("shop", "commit prepared 'in_the_way'").await.expect("committed");
    restore(&service, &memory, &report).await.expect("a restore");
}

/// A database that is being copied is locked against renames, but not against connecting.
async fn a_copy_of_the_target_under_way_keeps_the_old_data() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (service, memory, _report) = changed(&postgres).await;
    let service = Postgres::new(service.config().clone().with_lock_timeout(Duration::from_millis(200)));
    let name = postgres.database();
    // As a copy does, but until it is told to end.
    let hold = format!("begin; comment on database {name} is 'held'; select pg_sleep(60)");
    let holding = postgres.server().query_in("postgres", &hold);
    let restoring = async {
        let held =
            "select 1 from pg_stat_activity where query like 'begin; comment on database%' and wait_event = 'PgSleep'";
        let held = async || {
            postgres.server().query_in("postgres", held).await.is_ok_and(|rows| !rows.is_empty()).then_some(())
        };
        wait_until("the lock is held", PATIENCE, held).await.expect("a lock");
        let idle = postgres.server().query_in(name, "select pg_sleep(60)");
        tokio::select! {
            ended = idle => panic!("no session is ended for a swap that can't be: {ended:?}"),
            restored = async {
                let plan = service.plan_restore(&memory, &RestoreOptions::new()).await?;
                service.restore(plan, &memory, &RestoreContext::new()).await
            } => restored,
        }
    };
    let restored = tokio::select! {
        ended = holding => panic!("it sleeps for a minute: {ended:?}"),
        restored = restoring => restored,
    };
    let error = is_old(&postgres, restored).await;
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(error.to_string().contains("locked_by="), "{error}");
}

/// The service as a role that owns the database and may create others, and the role's name.
async fn as_owner(postgres: &PostgresFixture) -> (Postgres, String) {
    let (name, role) = (postgres.database(), format!("owner_{}", postgres.database()));
    let setup = format!(
        "create role {role} login createdb; create role app_{name} login; alter database {name} owner to {role}; \
         set role {role}; create schema s; create table s.t as select 1 as x"
    );
    postgres.execute(&setup).await.expect("roles");
    let url = postgres.url().replace("postgres@", &format!("{role}@"));
    (Postgres::from_url(&url).expect("a URL"), role)
}

/// Restores while another role is connected; with whether its session was ended then.
async fn restored_beside(postgres: &PostgresFixture, owner: &Postgres) -> (Result<RestoreReport>, bool) {
    let (memory, report) = dump(owner).await.expect("a dump");
    let (server, name) = (postgres.server(), postgres.database());
    let psql = Tool::new(server.bin_dir().join("psql")).args(["-X", "-h"]).arg(server.socket_dir());
    let psql = psql.arg("-p").arg(server.port().to_string()).args(["-U", &format!("app_{name}"), "-d", name]);
    let session = psql.args(["-c", "select pg_sleep(60)"]).output(Duration::from_secs(90));
    let restoring = async {
        let sleeps = format!("select 1 from pg_stat_activity where usename = 'app_{name}' and wait_event = 'PgSleep'");
        let sleeps =
            async || server.query_in("postgres", &sleeps).await.is_ok_and(|rows| !rows.is_empty()).then_some(());
        wait_until("the other role is connected", PATIENCE, sleeps).await.expect("a session");
        let restored = restore(owner, &memory, &report).await;
        let left =
            format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'app_{name}'");
        let left = server.query_in("postgres", &left).await.expect("a count");
        (restored, left[0][0].as_deref() == Some("0"))
    };
    let (ended, restored) = tokio::join!(session, restoring);
    ended.expect_err("the session was ended, by the restore or after it");
    restored
}

async fn a_session_that_may_not_be_ended_is_named_with_the_grant() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (owner, role) = as_owner(&postgres).await;
    let (restored, was_ended) = restored_beside(&postgres, &owner).await;
    let error = restored.expect_err("the other role's session can't be ended");
    assert_eq!((error.kind(), error.target()), (ErrorKind::PermissionDenied, Some(TargetState::Old)), "{error:?}");
    let text = error.to_string();
    let grant = format!("GRANT pg_signal_backend TO \"{role}\"");
    assert!(text.contains(&grant) && text.contains(&format!("role=app_{}", postgres.database())), "{text}");
    assert!(!was_ended, "no session is ended for a swap that can't be");
    assert_eq!(staged(postgres.server(), postgres.database()).await, Vec::<String>::new());
    give_back(&postgres).await;
}

async fn the_grant_to_end_sessions_is_enough() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (owner, role) = as_owner(&postgres).await;
    postgres.execute(&format!("grant pg_signal_backend to {role}")).await.expect("a grant");
    let (restored, was_ended) = restored_beside(&postgres, &owner).await;
    let kept = restored.expect("a restore").old_data_kept_as.expect("a name");
    assert!(was_ended);
    postgres.server().execute_in("postgres", &format!("drop database {kept}")).await.expect("dropped");
    give_back(&postgres).await;
}

async fn give_back(postgres: &PostgresFixture) {
    let sql = format!("alter database {} owner to postgres", postgres.database());
    postgres.server().execute_in("postgres", &sql).await.expect("an owner");
}

async fn the_journal_is_in_the_comment_of_the_replaced_database() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (service, memory, report) = changed(&postgres).await;
    let (server, name) = (postgres.server(), postgres.database());
    postgres.execute(&format!("comment on database {name} is 'it''s mine'")).await.expect("a comment");
    let keep = PostgresRestore::new().with_keep_old(Duration::from_secs(3600));
    let service = Postgres::new(service.config().clone().with_restore(keep)).with_id("orders");
    let kept = restore(&service, &memory, &report).await.expect("a restore").old_data_kept_as.expect("a name");
    assert_eq!(comment_of(server, name).await.as_deref(), Some("it's mine"));
    let journal = comment_of(server, &kept).await.expect("a journal");
    let journal: serde_json::Value = serde_json::from_str(&journal).expect("JSON");
    let field = |name: &str| journal[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((field("state"), field("target"), field("by")), ("replaced".into(), name.into(), "orders".into()));
    assert_eq!((field("comment"), field("old_data")), ("it's mine".into(), "keep".into()));
    assert!(field("keep_until") > field("replaced"), "{journal}");
    assert_eq!(content(server, &kept).await, "newer");
}

async fn a_database_named_back_by_hand_keeps_its_comment() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (service, memory, report) = changed(&postgres).await;
    let (server, name) = (postgres.server(), postgres.database());
    postgres.execute(&format!("comment on database {name} is 'mine'")).await.expect("a comment");
    let kept = restore(&service, &memory, &report).await.expect("a restore").old_data_kept_as.expect("a name");
    let back = format!("drop database {name} with (force)");
    server.execute_in("postgres", &back).await.expect("dropped");
    server.execute_in("postgres", &format!("alter database {kept} rename to {name}")).await.expect("named back");
    restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(comment_of(server, name).await.as_deref(), Some("mine"));
}

/// Two restores of different plans: the second one would replace what it never saw.
async fn a_target_replaced_meanwhile_is_left_alone() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let (service, memory, report) = changed(&postgres).await;
    let name = postgres.database().to_owned();
    let server = postgres.server();
    // The other one takes the name when the first has filled and journaled its own database.
    let replace = async {
        let filling = format!(
            "select 1 from pg_database where starts_with(datname, '{name}__sk_') and shobj_description(oid, 'pg_database') like '%filling%'"
        );
        let filling =
            async || server.query_in("postgres", &filling).await.is_ok_and(|rows| !rows.is_empty()).then_some(());
        wait_until("a restore fills its database", PATIENCE, filling).await.expect("a journal");
        server.execute_in("postgres", &format!("alter database {name} rename to {name}_away")).await.expect("away");
        server.create_database(&name).await.expect("another database");
        server.execute_in(&name, "create table t as select 'another'::text as x").await.expect("a table");
    };
    let (restored, ()) = tokio::join!(restore(&service, &memory, &report), replace);
    let error = restored.expect_err("the target is another one");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)), "{error:?}");
    assert_eq!(content(server, &name).await, "another");
    assert_eq!(staged(server, &name).await, Vec::<String>::new());
    let removed = restore(&service, &memory, &report).await.expect("a restore");
    assert!(removed.old_data_kept_as.is_some());
    let options = RestoreOptions::new().with_old_data(OldData::Remove);
    let plan = service.plan_restore(&memory, &options).await.expect("a plan");
    let removed = service.restore(plan, &memory, &RestoreContext::new()).await.expect("a restore");
    assert_eq!((removed.old_data_kept_as, removed.warnings), (None, Vec::new()));
}

async fn slots_and_subscriptions_need_force() {
    let options = PostgresOptions::new().with_setting("wal_level", "logical").with_setting("max_wal_senders", "4");
    let server = postgres_server(options).await.expect("a server");
    let (service, memory, report) = shop(&server).await;
    let earlier = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let bind = "select pg_create_logical_replication_slot('taken_away', 'pgoutput')";
    server.execute_in("shop", bind).await.expect("a slot");
    let error = service.restore(earlier, &memory, &RestoreContext::new()).await.expect_err("a slot came");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)), "{error:?}");
    assert!(error.to_string().contains("the replication slot taken_away"), "{error}");

    let subscribe = "create subscription takes connection 'host=127.0.0.1 port=1 dbname=nowhere' publication p \
        with (connect = false, slot_name = 'far')";
    server.execute_in("shop", subscribe).await.expect("a subscription");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    for bound in ["the replication slot taken_away", "the subscription takes"] {
        assert!(plan.missing.iter().any(|missing| missing.contains(bound)), "{plan}");
    }
    let forced = Postgres::new(service.config().clone().with_restore(PostgresRestore::new().with_force(true)));
    let kept = restore(&forced, &memory, &report).await.expect("a restore").old_data_kept_as.expect("a name");
    let slot = server.query_in("postgres", "select database from pg_replication_slots").await.expect("slots");
    assert_eq!(slot, [[Some(kept)]]);
}

/// The server drops no database with a subscription in it.
async fn subscriptions_of_a_failed_restore_are_removed_with_its_database() {
    let options = PostgresOptions::new().with_setting("wal_level", "logical").with_setting("max_wal_senders", "4");
    let server = postgres_server(options).await.expect("a server");
    server.create_database("shop").await.expect("a database");
    let subscribe = "create table t as select 'dumped'::text as x; create subscription \"it's\" \
        connection 'host=127.0.0.1 port=1 dbname=nowhere' publication p with (connect = false, slot_name = none)";
    server.execute_in("shop", subscribe).await.expect("a subscription");
    let service = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    let (memory, _report) = dump(&service).await.expect("a dump");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    // Found when all is filled: the swap is refused.
    let bind = "select pg_create_logical_replication_slot('taken_away', 'pgoutput')";
    server.execute_in("shop", bind).await.expect("a slot");
    let error = service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("a slot came");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)), "{error:?}");
    assert_eq!(staged(&server, "shop").await, Vec::<String>::new());
}

/// As a restore that was killed leaves it: its subscription names the slot of the database that is in use.
async fn recover_removes_subscriptions_but_not_their_slots() {
    let options = PostgresOptions::new().with_setting("wal_level", "logical").with_setting("max_wal_senders", "4");
    let server = postgres_server(options).await.expect("a server");
    let (service, memory, _report) = shop(&server).await;
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let staging = plan.details["staging_database"].clone();
    let bind = "select pg_create_logical_replication_slot('taken_away', 'pgoutput')";
    server.execute_in("shop", bind).await.expect("a slot");
    server.create_database(&staging).await.expect("a database");
    let named = "create subscription takes connection 'host=127.0.0.1 port=1 dbname=nowhere' publication p \
        with (connect = false, slot_name = 'taken_away')";
    server.execute_in(&staging, named).await.expect("a subscription");
    let plan = service.plan_recovery().await.expect("a plan");
    let report = service.recover(plan).await.expect("a recovery");
    assert_eq!(report.done.len(), 1, "{report}");
    assert_eq!(staged(&server, "shop").await, Vec::<String>::new());
    let left = server.query_in("postgres", "select slot_name from pg_replication_slots").await.expect("slots");
    assert_eq!(left, [[Some("taken_away".to_owned())]], "it is the other database's");
}
