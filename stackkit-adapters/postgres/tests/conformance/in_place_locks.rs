//! Restores in place beside others: what they write, hold and read meanwhile.

use std::time::Duration;

use stackkit_core::backup::{RestoreContext, RestoreOptions, TargetState};
use stackkit_core::{BackupProvider, Error, ErrorKind};
use stackkit_fixtures::{PostgresFixture, PostgresOptions, postgres_server, wait_until};
use stackkit_postgres::{Postgres, PostgresDump};

use crate::backup::filled;
use crate::in_place::{in_place, one, with};
use crate::memory::{dump, restore};
use crate::parallel_dump::{TOOL, parallel, tool};
use crate::restore::content;
use crate::several::change_a_row;
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_row_written_before_the_locks_makes_a_plan_stale,
    rows_of_other_tables_make_no_plan_of_a_part_stale,
    a_row_of_a_partition_beside_the_dump_makes_a_plan_stale,
    large_objects_written_before_the_locks_make_a_plan_stale,
    who_is_in_the_way_in_place_is_told,
    a_changed_row_is_found_by_its_hash_in_place,
    readers_see_the_old_data_until_the_commit,
    a_role_puts_back_its_own_table_among_others,
];

/// Does something in a transaction that ends once somebody waits for `table`.
fn until_waited_for(sql: &str, table: &str) -> String {
    format!(
        "begin; {sql}; do $$ declare began timestamptz = clock_timestamp(); begin while not exists (select from pg_locks \
         where relation = '{table}'::regclass and not granted) loop perform pg_sleep(0.01); \
         if clock_timestamp() > began + interval '30 s' then raise 'nobody waits'; end if; end loop; end $$; commit"
    )
}

/// Restores while another session, whose transaction has done `sql` and is not seen yet, commits.
async fn restored_beside(postgres: &PostgresFixture, service: &Postgres, sql: &str, table: &str) -> Error {
    let (memory, _report) = dump(service).await.expect("a dump");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert_eq!(plan.missing, Vec::<String>::new());
    let other = until_waited_for(sql, table);
    let restoring = async {
        let held = format!("select from pg_locks where relation = '{table}'::regclass and mode = 'RowExclusiveLock'");
        let held = async || postgres.query(&held).await.ok().filter(|rows| !rows.is_empty());
        wait_until("the other session to have written", TOOL, held).await.expect("it writes");
        service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("the plan is stale")
    };
    let (written, error) = tokio::join!(postgres.execute(&other), restoring);
    written.unwrap_or_else(|error| panic!("{}", error.chain()));
    error
}

fn assert_stale(error: &Error) {
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)), "{error:?}");
    assert!(error.to_string().contains("make a fresh plan"), "{error}");
}

/// The row is not there yet when the plan is made and the restore begins, and is when the restore has its locks.
async fn a_row_written_before_the_locks_makes_a_plan_stale() {
    let (postgres, service) = filled().await;
    for options in [in_place(), in_place().only_tables(["public.bytes"]).with_force(true)] {
        let service = with(&service, options);
        let insert = "insert into bytes select max(id) + 1 from bytes";
        let before: u64 = one(&postgres, "select count(*) from bytes").await.parse().expect("a count");
        assert_stale(&restored_beside(&postgres, &service, insert, "bytes").await);
        assert_eq!(one(&postgres, "select count(*) from bytes").await, (before + 1).to_string());
    }
}

async fn rows_of_other_tables_make_no_plan_of_a_part_stale() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place().only_tables(["public.no_rows"]));
    let (memory, _report) = dump(&service).await.expect("a dump");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let others = "insert into bytes values (500); select lo_from_bytea(0, 'x'); insert into no_rows values (1)";
    postgres.execute(others).await.expect("rows");
    assert_stale(&service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("no_rows has one"));
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    postgres.execute("insert into bytes values (501); select lo_from_bytea(0, 'y')").await.expect("rows");
    service.restore(plan, &memory, &RestoreContext::new()).await.expect("a restore");
    assert_eq!(one(&postgres, "select count(*) from no_rows").await, "0");
    assert_eq!(one(&postgres, "select count(*) from bytes where id > 499").await, "2");
}

/// A partition that the dump does not hold goes with its table, where that is consented to: its rows count too.
async fn a_row_of_a_partition_beside_the_dump_makes_a_plan_stale() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place().only_tables(["public.events"]).with_force(true));
    postgres.execute("create table late (like events)").await.expect("a table");
    let (memory, _report) = dump(&service).await.expect("a dump");
    let part =
        "drop table events_new; alter table events attach partition late for values from ('2026-01-01') to (maxvalue)";
    postgres.execute(part).await.expect("another partition");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.actions.iter().any(|step| step.object == "table public.late"), "{plan}");
    postgres.execute("insert into events values ('2026-01-02')").await.expect("a row");
    assert_stale(&service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("a row"));
    assert_eq!(one(&postgres, "select count(*) from late").await, "1");
}

async fn large_objects_written_before_the_locks_make_a_plan_stale() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place());
    let write = "select lo_put(oid, 0, '\\x77') from pg_largeobject_metadata";
    assert_stale(&restored_beside(&postgres, &service, write, "pg_largeobject").await);
    let first = "select count(*) from pg_largeobject where get_byte(data, 0) = 119";
    assert_ne!(one(&postgres, first).await, "0");
}

/// A session that has a lock until it is dropped, and its process.
async fn holder(postgres: &PostgresFixture, table: &str, mode: &str) -> (tokio::task::JoinHandle<()>, String) {
    let sql = format!("begin; lock table {table} in {mode} mode; select pg_sleep(60)");
    let psql = tool(postgres.server(), "psql", postgres.database()).env("PGAPPNAME", "the-holder").args(["-c", &sql]);
    let task = tokio::spawn(async move {
        let _ended = psql.output(TOOL).await;
    });
    let sql = format!(
        "select l.pid from pg_locks l join pg_stat_activity a using (pid) where relation = '{table}'::regclass \
         and granted and application_name = 'the-holder' and wait_event = 'PgSleep'"
    );
    let held = async || postgres.query(&sql).await.ok()?.pop()?.pop()?;
    let pid = wait_until("the table to be locked", TOOL, held).await.expect("a lock");
    (task, pid)
}

/// Whoever reads bars the drop of its table, and whoever has a table alone bars the plan too. A reader of a table that a
/// key joins to a chosen one bars that key.
async fn who_is_in_the_way_in_place_is_told() {
    let (postgres, service) = filled().await;
    let service = Postgres::new(service.config().clone().with_lock_timeout(Duration::from_millis(200)));
    let whole = with(&service, in_place());
    let part = with(&service, in_place().only_tables(["public.refers"]));
    for (service, table, mode) in [
        (&whole, "bytes", "access share"),
        (&whole, "latest", "access share"),
        (&part, "bytes", "row exclusive"),
        (&whole, "no_rows", "access exclusive"),
    ] {
        let (memory, _report) = dump(service).await.expect("a dump");
        let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
        let before = content(&postgres, postgres.database()).await;
        let (holder, pid) = holder(&postgres, table, mode).await;
        let restored = service.restore(plan, &memory, &RestoreContext::new()).await.expect_err("locked");
        assert_eq!(restored.target(), Some(TargetState::Old));
        let planned = service.plan_restore(&memory, &RestoreOptions::new()).await.err();
        assert_eq!(planned.is_some(), mode == "access exclusive", "{table}");
        let who = format!("pid {pid} (the-holder) holds public.{table}");
        assert_names(&restored, &who);
        planned.iter().for_each(|error| assert_names(error, &who));
        holder.abort();
        ended(&postgres, &pid).await;
        assert_eq!(content(&postgres, postgres.database()).await, before);
    }
}

fn assert_names(error: &Error, who: &str) {
    assert_eq!((error.kind(), error.code()), (ErrorKind::Busy, Some("55P03")), "{who}: {error:?}");
    assert!(error.to_string().contains(who), "{who}: {error}");
}

/// Ends a session and waits until it is gone.
async fn ended(postgres: &PostgresFixture, pid: &str) {
    postgres.query(&format!("select pg_terminate_backend({pid})")).await.expect("its session ends");
    let gone = format!("select 1 where not exists (select from pg_stat_activity where pid = {pid})");
    let gone = async || postgres.query(&gone).await.ok().filter(|rows| !rows.is_empty());
    wait_until("the session to end", TOOL, gone).await.expect("it ended");
}

async fn a_changed_row_is_found_by_its_hash_in_place() {
    let (postgres, service) = filled().await;
    let (memory, report) = parallel(&service, PostgresDump::new().with_row_hashes(true)).await.expect("a dump");
    let restored = restore(&with(&service, in_place()), &memory, &report).await.expect("a restore");
    assert!(restored.warnings.iter().all(|warning| !warning.contains("not compared")), "{:?}", restored.warnings);
    change_a_row(&memory);
    let before = content(&postgres, postgres.database()).await;
    for options in [in_place(), in_place().only_tables(["public.bytes"]).with_force(true)] {
        let error = restore(&with(&service, options), &memory, &report).await.expect_err("another row");
        assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error:?}");
        assert!(error.to_string().contains("table=public.bytes"), "{error}");
        assert_eq!(content(&postgres, postgres.database()).await, before);
    }
    let other = in_place().only_tables(["public.no_rows"]);
    restore(&with(&service, other), &memory, &report).await.expect("a table without the row");
}

/// Several tables are put back beside a reader, which holds the restore up: what it reads is old until the commit.
async fn readers_see_the_old_data_until_the_commit() {
    let (postgres, service) = filled().await;
    let service = with(&service, in_place().only_tables(["public.no_rows", "public.refers"]));
    postgres.execute("create table gate (id int); insert into no_rows values (4)").await.expect("a gate");
    let (memory, _report) = dump(&service).await.expect("a dump");
    postgres.execute("update no_rows set id = 5; delete from refers").await.expect("a loss");
    let plan = service.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let read = "select string_agg(id::text, ',') from no_rows";
    let seen = until_waited_for("insert into gate select id from no_rows", "no_rows");
    let restoring = async {
        let held = "select from pg_locks where relation = 'no_rows'::regclass and mode = 'AccessShareLock'";
        let held = async || postgres.query(held).await.ok().filter(|rows| !rows.is_empty());
        wait_until("the reader", TOOL, held).await.expect("it reads");
        service.restore(plan, &memory, &RestoreContext::new()).await.expect("a restore")
    };
    let (reader, _restored) = tokio::join!(postgres.execute(&seen), restoring);
    reader.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(one(&postgres, "select string_agg(id::text, ',') from gate").await, "5", "read before");
    assert_eq!(one(&postgres, read).await, "4", "read after");
    assert_eq!(one(&postgres, "select count(*) from refers").await, "2");
}

/// What it may not read is neither read nor changed.
async fn a_role_puts_back_its_own_table_among_others() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.create_database("shop").await.expect("a database");
    for sql in [
        "create role clerk login; grant create on schema public to clerk",
        "create table mine as select generate_series(1, 3) as id; alter table mine owner to clerk",
        "create table secret as select 1 as id",
    ] {
        server.execute_in("shop", sql).await.expect(sql);
    }
    let all = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    let (memory, _report) = dump(&all).await.expect("a dump");
    server.execute_in("shop", "delete from mine; insert into secret values (2)").await.expect("a loss");
    let options = in_place().only_tables(["public.mine"]);
    let clerk = Postgres::new(all.config().clone().with_user("clerk").with_restore(options));
    let plan = clerk.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    assert_eq!(plan.missing, Vec::<String>::new());
    let restored = clerk.restore(plan, &memory, &RestoreContext::new()).await;
    let restored = restored.unwrap_or_else(|error| panic!("{}", error.chain()));
    let rows = |name: &str| restored.census.counts.get(&format!("tables.public.{name}.rows")).copied();
    assert_eq!((rows("mine"), rows("secret")), (Some(3), None));
    let both = server.query_in("shop", "select (select count(*) from mine), (select count(*) from secret)").await;
    assert_eq!(both.expect("counts"), [[Some("3".to_owned()), Some("2".to_owned())]]);
}
