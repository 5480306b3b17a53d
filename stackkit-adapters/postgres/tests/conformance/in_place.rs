//! Restores into the database itself, in one transaction.

use std::time::Duration;

use stackkit_core::backup::{RestoreContext, RestoreOptions, TargetState};
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::PostgresFixture;
use stackkit_postgres::{Engine, Postgres, PostgresDump, PostgresRestore, Strategy};

use crate::backup::filled;
use crate::memory::{dump, restore};
use crate::restore::{content, databases_like};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    everything_is_replaced_in_one_transaction,
    a_failed_restore_in_place_is_rolled_back,
    a_dropped_restore_in_place_is_rolled_back,
    a_role_that_may_not_create_databases_restores_in_place,
    what_hangs_on_a_table_is_named_and_needs_consent,
    a_restore_in_place_replaces_what_one_made,
    what_the_dump_does_not_hold_stays,
    a_selection_in_place_tells_what_it_touches,
    one_table_is_put_back_with_its_keys,
    a_pointing_table_is_put_back_with_its_key,
    rows_that_a_key_does_not_allow_fail_a_restore_in_place,
    subscriptions_are_refused_in_place,
];

/// How long a case waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn in_place() -> PostgresRestore {
    PostgresRestore::new().with_strategy(Strategy::InPlaceSingleTransaction)
}

pub(crate) fn with(service: &Postgres, options: PostgresRestore) -> Postgres {
    let dump = PostgresDump::new().with_engine(Engine::Parallel).with_jobs(2);
    Postgres::new(service.config().clone().with_dump(dump).with_restore(options))
}

pub(crate) async fn one(postgres: &PostgresFixture, sql: &str) -> String {
    postgres.query(sql).await.expect(sql)[0][0].clone().unwrap_or_default()
}

const DATABASE: &str = "select oid from pg_database where datname = current_database()";

async fn everything_is_replaced_in_one_transaction() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place());
    let before = content(&postgres, postgres.database()).await;
    let (memory, report) = dump(&service).await.expect("a dump");
    let database = one(&postgres, DATABASE).await;
    let harm = "delete from events; drop table no_rows; alter table bytes drop column f; drop type mood cascade; \
        select lo_unlink(oid) from pg_largeobject_metadata limit 1";
    postgres.execute(harm).await.expect("harm");
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(restored.census, report.census);
    assert_eq!(content(&postgres, postgres.database()).await, before);
    assert_eq!(one(&postgres, DATABASE).await, database, "the database is the same one");
    assert!(databases_like(&postgres, "__").await.is_empty());
}

async fn a_restore_in_place_replaces_what_one_made() {
    let (_postgres, service) = filled().await;
    let service = with(&service, in_place());
    let (memory, report) = dump(&service).await.expect("a dump");
    for _time in 0..2 {
        restore(&service, &memory, &report).await.expect("a restore");
        assert_eq!(service.census().await.expect("a census"), report.census);
    }
}

async fn what_the_dump_does_not_hold_stays() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place());
    let (memory, report) = dump(&service).await.expect("a dump");
    postgres.execute("create table later as select 7 as x; delete from events").await.expect("a later table");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.is_destructive() && plan.missing.is_empty(), "{plan}");
    assert!(plan.warnings.iter().any(|warning| warning.contains("locked")), "{plan}");
    assert!(plan.actions.iter().any(|step| step.object == "table public.events"), "{plan}");
    restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(one(&postgres, "select x from later").await, "7");
    assert_eq!(one(&postgres, "select count(*) from events").await, "1000");
}

async fn a_failed_restore_in_place_is_rolled_back() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place());
    let (memory, report) = dump(&service).await.expect("a dump");
    postgres.execute("delete from bytes where id > 50").await.expect("a loss");
    let before = content(&postgres, postgres.database()).await;
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let wrong = report.census.clone().with_count("tables.public.bytes.rows", 3);
    let cx = RestoreContext::new().with_expected(wrong);
    let error = service.restore(plan.clone(), &memory, &cx).await.expect_err("another census");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error:?}");
    assert_eq!(content(&postgres, postgres.database()).await, before);

    let contents = String::from_utf8(memory.bytes_of("contents.json")).expect("text");
    let contents = contents.replace("\"rows\":101", "\"rows\":102");
    memory.put("contents.json", "stackkit-postgresql-contents", contents.into_bytes());
    let memory = memory.sealed();
    let error = service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("a row is missing");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error:?}");
    assert_eq!(content(&postgres, postgres.database()).await, before);
}

/// The restore is held up by a lock, dropped, and the server undoes what it did.
async fn a_dropped_restore_in_place_is_rolled_back() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place());
    let (memory, report) = dump(&service).await.expect("a dump");
    let before = content(&postgres, postgres.database()).await;
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    // The sequence can't be dropped while its row is read in a transaction; the tables are locked by then.
    let hold = postgres.execute("begin; select * from lonely; select pg_sleep(60)");
    let waits = async {
        let held = "select 1 / count(*) from pg_locks where relation = 'lonely'::regclass and granted";
        while postgres.query(held).await.is_err() {
            tokio::task::yield_now().await;
        }
        let cx = RestoreContext::new().with_expected(report.census.clone());
        let restoring = service.restore(plan, &memory, &cx);
        let waiting = "select 1 / count(*) from pg_locks where relation = 'lonely'::regclass and not granted";
        let seen = async {
            while postgres.query(waiting).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = restoring => panic!("the lock did not hold it: {ended:?}"),
            () = seen => {}
        }
    };
    tokio::select! {
        ended = hold => panic!("the lock was given up: {ended:?}"),
        waited = tokio::time::timeout(PATIENCE, waits) => waited.expect("nothing hangs"),
    }
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() \
        and pid <> pg_backend_pid()";
    postgres.query(end).await.expect("no session is left");
    assert_eq!(content(&postgres, postgres.database()).await, before);
}

async fn a_role_that_may_not_create_databases_restores_in_place() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let role = format!("r_{}", postgres.database());
    let name = postgres.database();
    let setup = format!(
        "create role {role} login nocreatedb; grant create on database {name} to {role}; \
         comment on schema public is 'not mine'; create schema own authorization {role}; set role {role}; \
         create table own.t as select g from generate_series(1, 1000) g; create index on own.t (g); \
         create function own.f(a int) returns int language sql as 'select a'"
    );
    postgres.execute(&setup).await.expect("a table");
    let url = postgres.url().replace("postgres@", &format!("{role}@"));
    let service = with(&Postgres::from_url(&url).expect("a URL"), in_place());
    let (memory, report) = dump(&service).await.expect("a dump");
    postgres.execute("delete from own.t where g > 10; drop function own.f").await.expect("a loss");
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(restored.census.count("tables.own.t.rows"), 1000);
    let left_out = |what: &str| restored.warnings.iter().any(|warning| warning.contains(what));
    assert!(left_out("SCHEMA public"), "{:?}", restored.warnings);
    assert_eq!(one(&postgres, "select own.f(4)").await, "4");
    assert_eq!(one(&postgres, "select tableowner from pg_tables where schemaname = 'own'").await, role);

    postgres
        .execute("reset role; alter table own.t owner to postgres; grant select on own.t to public")
        .await
        .expect("another owner");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains("ownership of table own.t")), "{plan}");
}

async fn what_hangs_on_a_table_is_named_and_needs_consent() {
    let (postgres, service) = filled().await;
    let careful = with(&service, in_place());
    let (memory, report) = dump(&careful).await.expect("a dump");
    postgres.execute("create view report as select count(*) from bytes").await.expect("a view");
    let plan = careful.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains("view public.report")), "{plan}");
    assert_eq!(plan.missing.len(), 1, "{plan}");
    let error = careful.restore(plan, &memory, &RestoreContext::new()).await.expect_err("no consent");
    assert_eq!(error.target(), Some(TargetState::Old), "{error:?}");
    let forced = with(&service, in_place().with_force(true));
    let plan = forced.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.actions.iter().any(|step| step.object == "view public.report"), "{plan}");
    restore(&forced, &memory, &report).await.expect("a restore");
    assert_eq!(one(&postgres, "select to_regclass('report')").await, "");
}

async fn a_selection_in_place_tells_what_it_touches() {
    let (_postgres, service) = filled().await;
    let one_table = in_place().only_tables(["public.bytes"]);
    let careful = with(&service, one_table.clone());
    let (memory, _report) = dump(&careful).await.expect("a dump");
    let plan = careful.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains("refers_id_fkey")), "{plan}");
    assert!(plan.warnings.iter().any(|warning| warning.contains("2 large objects are left out")), "{plan}");
    let forced = with(&service, one_table.with_force(true));
    let plan = forced.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let is_again = |warning: &&String| warning.contains("refers_id_fkey") && warning.contains("again");
    assert!(plan.warnings.iter().filter(is_again).count() > 0, "{plan}");
    let overwritten: Vec<&str> = plan.actions.iter().map(|step| step.object.as_str()).collect();
    assert_eq!(overwritten, ["table public.bytes"]);
}

async fn one_table_is_put_back_with_its_keys() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place().only_tables(["public.bytes"]).with_force(true));
    let (memory, _report) = dump(&service).await.expect("a dump");
    let harm = "delete from bytes where id > 50; delete from no_rows; insert into no_rows values (9)";
    postgres.execute(harm).await.expect("a loss");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    service.restore(plan, &memory, &RestoreContext::new()).await.expect("a restore");
    assert_eq!(one(&postgres, "select count(*) from bytes").await, "101");
    assert_eq!(one(&postgres, "select string_agg(id::text, ',') from no_rows").await, "9", "others are left alone");
    assert_eq!(one(&postgres, KEY).await, "FOREIGN KEY (id) REFERENCES bytes(id) DEFERRABLE");
}

const KEY: &str = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'refers_id_fkey'";

/// The table that points at the other one: its key is made again too.
async fn a_pointing_table_is_put_back_with_its_key() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place().only_tables(["public.refers"]));
    let (memory, _report) = dump(&service).await.expect("a dump");
    postgres.execute("delete from refers").await.expect("a loss");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert_eq!(plan.missing, Vec::<String>::new());
    service.restore(plan, &memory, &RestoreContext::new()).await.expect("a restore");
    assert_eq!(one(&postgres, KEY).await, "FOREIGN KEY (id) REFERENCES bytes(id) DEFERRABLE");
    assert_eq!(one(&postgres, "select count(*) from refers").await, "2");
}

async fn rows_that_a_key_does_not_allow_fail_a_restore_in_place() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place().only_tables(["public.bytes"]).with_force(true));
    let (memory, _report) = dump(&service).await.expect("a dump");
    postgres.execute("insert into bytes values (500); insert into refers values (500)").await.expect("later rows");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let error = service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("500 is not in the dump");
    assert_eq!((error.code(), error.target()), (Some("23503"), Some(TargetState::Old)), "{error:?}");
    assert!(error.to_string().contains("refers_id_fkey"), "{error}");
    assert_eq!(one(&postgres, "select count(*) from bytes").await, "102");
}

async fn subscriptions_are_refused_in_place() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let make = "create subscription nightly connection 'dbname=x' publication p with (connect = false)";
    postgres.execute(make).await.expect("a subscription");
    let service = with(&Postgres::from_url(&postgres.url()).expect("a URL"), in_place());
    let (memory, _report) = dump(&service).await.expect("a dump");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.missing.iter().any(|missing| missing.contains("subscription nightly")), "{plan}");
    postgres.execute("alter subscription nightly disable").await.expect("disabled");
    postgres.execute("alter subscription nightly set (slot_name = none)").await.expect("no slot");
    postgres.execute("drop subscription nightly").await.expect("gone");
}
