//! Dumps of a database that others change meanwhile: they hold what was there at the snapshot, exactly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stackkit_core::BackupProvider;
use stackkit_core::backup::DumpContext;
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server, wait_until};
use stackkit_postgres::{Engine, Postgres, PostgresDump};
use tokio::sync::Semaphore;

use crate::memory::{Memory, dump};
use crate::torture::compare::{Picture, by_hand, pg_restore};
use crate::torture::gate::held_up;
use crate::torture::{ENGINES, TOOL_LIMIT, config};

const DATA: &str = "create table large as select g as id, repeat(md5(g::text), 20) as t from generate_series(1, 8000) g; \
    alter table large add primary key (id); create table other as select * from large; create table dropped as select 1 as x; \
    create table parted (id int, x text) partition by range (id); create table p1 partition of parted for values from (0) to (10); \
    create table p2 partition of parted for values from (10) to (20); insert into parted select g, 'x' from generate_series(0, 19) g; \
    create table free (like parted); create type mood as enum ('ok'); create table moods (m mood); insert into moods values ('ok'); \
    create view looked as select id from large; create function one() returns int language sql as 'select 1'; \
    create sequence counter; select nextval('counter'); create materialized view seen as select count(*) from large; \
    select lo_from_bytea(4711, 'before'); create index on other (t)";

/// What does not wait for a dump, and what waits for it: with a short patience it fails.
const CHANGES: [(&str, bool); 30] = [
    ("truncate large", false),
    ("alter table large alter id type bigint", false),
    ("alter table large add column added int default 5", false),
    ("drop table dropped", false),
    ("alter table dropped rename to renamed", false),
    ("vacuum full other", false),
    ("cluster other using other_t_idx", false),
    ("alter table parted detach partition p1", false),
    ("alter table parted attach partition free for values from (20) to (30)", false),
    ("alter table parted detach partition p2 concurrently", false),
    ("create index concurrently on dropped (x)", false),
    ("drop table parted cascade", false),
    ("drop schema public cascade", false),
    ("alter table other set tablespace pg_default, alter t set storage plain, add check (id > 0)", false),
    ("delete from large where id % 2 = 0", true),
    ("update other set t = 'changed'", true),
    ("vacuum large", true),
    ("reindex table moods", true),
    ("drop index concurrently if exists never_there", true),
    ("analyze", true),
    ("create table appeared as select 1 as x", true),
    ("create index appeared_index on large (t)", true),
    ("drop function one()", true),
    ("alter type mood add value 'later'", true),
    ("insert into parted values (5, 'later')", true),
    ("create materialized view seen_later as select count(*) from large", true),
    ("select nextval('counter'), setval('counter', 500)", true),
    ("select lo_put(4711, 0, 'AFTER'), lo_create(4712)", true),
    ("grant select on large to somebody", true),
    ("comment on function abs(int) is 'changed'; create schema later; create table later.t (x int)", true),
];

fn service(server: &PostgresServer, database: &str, engine: Engine) -> Postgres {
    let dump = PostgresDump::new().with_engine(engine).with_jobs(2).with_split_bytes(1 << 20);
    Postgres::new(config(server, database, engine).with_dump(dump))
}

pub(super) async fn changes_while_a_dump_runs_are_not_in_it() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.execute_in("postgres", "create role somebody").await.expect("a role");
    for engine in ENGINES {
        let name = format!("changed_{engine:?}");
        server.create_database(&name).await.expect("a database");
        server.execute_in(&name, DATA).await.expect("data");
        // Of the database, as some of the changes can't be in one transaction with it.
        let patience = format!("alter database \"{name}\" set lock_timeout = '50ms'");
        server.execute_in("postgres", &patience).await.expect("a setting");
        let before = Picture::of(&server, &name).await;
        let pinned = service(&server, &name, engine).begin(&DumpContext::new()).await.expect("a snapshot");
        let change = async || {
            for (change, goes_on) in CHANGES {
                let done = server.execute_in(&name, change).await;
                assert_eq!(done.is_ok(), goes_on, "{engine:?}, {change}: {done:?}");
            }
        };
        let (report, sink) = held_up(pinned, change).await;
        let report = report.unwrap_or_else(|error| panic!("{engine:?}: {}", error.chain()));
        assert_eq!(report.census.count("tables.public.large.rows"), 8000, "{engine:?}");
        let restored = format!("{name}_restored");
        by_the_vendor(&server, &sink, &restored).await;
        before.assert_same(&Picture::of(&server, &restored).await, &restored);
    }
}

async fn by_the_vendor(server: &PostgresServer, sink: &Memory, name: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = by_hand(sink, directory.path()).await;
    pg_restore(server, &["-j2"], &archive, name).await;
}

/// Accounts whose total never changes, and two tables of which each transaction writes one row.
const ACCOUNTS: &str = "create table accounts (id int primary key, amount bigint not null); \
    insert into accounts select g, 1000 from generate_series(1, 2000) g; \
    create table log_a (id serial primary key, t text); create table log_b (id serial primary key, t text); \
    create table ballast as select g, repeat(md5(g::text), 20) as t from generate_series(1, 8000) g";

/// One step of a writer.
const TRANSFER: &str = "begin; \
    with f as (update accounts set amount = amount - 7 where id = (select 1 + (random() * 999)::int) returning 1), \
    t as (update accounts set amount = amount + 7 where id = (select 1001 + (random() * 999)::int) and exists (select from f) \
        returning 1) select 1 / ((select count(*) from f) * (select count(*) from t)); \
    insert into log_a (t) values (repeat('a', 500)); insert into log_b (t) values ('b'); commit";

/// What must hold of every snapshot.
const TOTALS: &str = "select sum(amount) = 2000000 and (select count(*) from log_a) = (select count(*) from log_b), \
    (select count(*) from log_a) from accounts";

/// How many write at once.
const WRITERS: usize = 3;
/// How many dumps each engine makes of it.
const DUMPS: usize = 3;

pub(super) async fn a_storm_of_writers_keeps_the_totals() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.create_database("bank").await.expect("a database");
    server.execute_in("bank", ACCOUNTS).await.expect("data");
    let is_over = AtomicBool::new(false);
    let writer = async || {
        while !is_over.load(Ordering::Relaxed) {
            // Writers may wait for each other in a circle; one of them gives way.
            let _written = server.execute_in("bank", TRANSFER).await;
        }
    };
    let writers = futures_util::future::join_all((0..WRITERS).map(|_writer| writer()));
    let dumps = async {
        for engine in ENGINES {
            for number in 0..DUMPS {
                let (memory, report) = dump(&service(&server, "bank", engine)).await.expect("a dump");
                let name = format!("bank_{engine:?}_{number}");
                by_the_vendor(&server, &memory, &name).await;
                let totals = server.query_in(&name, TOTALS).await.expect("totals").remove(0);
                assert_eq!(totals[0].as_deref(), Some("t"), "{name}: {totals:?}");
                let written = report.census.count("tables.public.log_a.rows").to_string();
                assert_eq!(totals[1].as_deref(), Some(written.as_str()), "{name}: the census is of the snapshot too");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(writers, dumps);
}

/// Tables for [`WAITING`]. `first` is a little larger than a range of `large`, and so read before them: the connection that
/// reads it comes to `large` when another has read of it. Both are more than what buffers hold: they are under way in the
/// server while the storage holds them up.
const BESIDE: &str = "create table first as select g as id, repeat(md5(g::text), 20) as t from generate_series(1, 11200) g; \
    create table large as select g as id, repeat(md5(g::text), 20) as t from generate_series(1, 40000) g; \
    alter table large add primary key (id); create table rebuilt as select * from first limit 100; create index on rebuilt (t); \
    create table indexed as select * from first limit 100; create table emptied as select * from first limit 100; \
    create table parted (id int) partition by range (id); create table leaves partition of parted for values from (0) to (10); \
    insert into parted select generate_series(0, 9); create table loose (id int); insert into loose select generate_series(10, 19); \
    create table slow_parted (id int) partition by range (id); \
    create table leaves_slowly partition of slow_parted for values from (0) to (10); \
    insert into slow_parted select generate_series(0, 9)";

/// What waits until a dump is over, or until it has read a part of a table; each on a table of its own.
const WAITING: [&str; 7] = [
    "reindex table large",
    "reindex table concurrently rebuilt",
    "create index concurrently on indexed (t)",
    "alter table parted detach partition leaves",
    "alter table parted attach partition loose for values from (10) to (20)",
    "alter table slow_parted detach partition leaves_slowly concurrently",
    "truncate emptied",
];

/// How many of them do. `pg_dump` reads no table by ranges, and so locks no index.
fn waiters(engine: Engine) -> usize {
    WAITING.len() - usize::from(engine == Engine::PgDump)
}

/// Reads tables by ranges, and waits for nobody for long.
fn by_ranges(server: &PostgresServer, database: &str, engine: Engine) -> Postgres {
    let ranges = PostgresDump::new().with_engine(engine).with_jobs(2).with_split_bytes(8 << 20);
    Postgres::new(config(server, database, engine).with_dump(ranges).with_lock_timeout(Duration::from_millis(300)))
}

/// Rebuilds that hold an index for longer than anybody waits for a lock, and what they are of: of a table, which a query
/// by ranges locks before its first row; and of what a table keeps aside, which is locked when a value of it is read.
const REBUILDS: [(&str, &str); 2] = [
    (
        "create table large as select g as id, repeat(md5(g::text), 20) as t from generate_series(1, 40000) g; \
         create function slow(bigint) returns bigint immutable language plpgsql as \
            $$ begin perform pg_catalog.pg_sleep(0.1); return $1; end $$; \
         create index slowly on large (slow(id)) where id <= 20",
        "reindex index slowly",
    ),
    (
        "create table aside (id int, t text); alter table aside alter t set storage external; \
         insert into aside select g, repeat(md5(g::text), 600) from generate_series(1, 2000) g",
        "do $$ begin execute 'reindex table ' || (select reltoastrelid::regclass from pg_class where relname = 'aside'); \
         perform pg_sleep(2); end $$",
    ),
];

pub(super) async fn a_rebuild_that_takes_its_time_does_not_fail_a_dump() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    for (number, (make, rebuild)) in REBUILDS.into_iter().enumerate() {
        let name = format!("rebuilt_{number}");
        server.create_database(&name).await.expect("a database");
        server.execute_in(&name, make).await.expect("data");
        let before = Picture::of(&server, &name).await;
        let pinned = by_ranges(&server, &name, Engine::Parallel).begin(&DumpContext::new()).await.expect("a snapshot");
        let begun = Semaphore::new(0);
        let rebuilding = async {
            let _begun = begun.acquire().await.expect("never closed");
            server.execute_in(&name, rebuild).await
        };
        let during = async || {
            begun.add_permits(1);
            // It waits for the dump, or has come in between two values and sleeps with its lock: then the dump will wait.
            let is_there = "select 1 from pg_locks where not granted \
                union all select 1 from pg_stat_activity where wait_event = 'PgSleep'";
            let is_there =
                async || server.query_in(&name, is_there).await.is_ok_and(|rows| !rows.is_empty()).then_some(());
            wait_until("the rebuild to be in the way", TOOL_LIMIT, is_there).await.expect("it is");
        };
        let ((report, sink), rebuilt) = tokio::join!(held_up(pinned, during), rebuilding);
        report.unwrap_or_else(|error| panic!("{rebuild}: {}", error.chain()));
        rebuilt.expect("a rebuild");
        let restored = format!("{name}_restored");
        by_the_vendor(&server, &sink, &restored).await;
        before.assert_same(&Picture::of(&server, &restored).await, rebuild);
    }
}

pub(super) async fn changes_that_wait_for_a_dump_do_not_stop_it() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    for engine in ENGINES {
        let name = format!("waited_{engine:?}");
        server.create_database(&name).await.expect("a database");
        server.execute_in(&name, BESIDE).await.expect("data");
        let before = Picture::of(&server, &name).await;
        let pinned = by_ranges(&server, &name, engine).begin(&DumpContext::new()).await.expect("a snapshot");
        let begun = Semaphore::new(0);
        let (server, name) = (&server, &name);
        let waiting = WAITING.map(|change| {
            let begun = begun.acquire();
            async move {
                let _begun = begun.await.expect("never closed");
                (change, server.execute_in(name, change).await)
            }
        });
        let during = async || {
            begun.add_permits(WAITING.len());
            let sql = "select 1 from pg_locks where not granted having count(distinct pid) >= ";
            let sql = format!("{sql}{}", waiters(engine));
            let all = async || server.query_in(name, &sql).await.is_ok_and(|rows| !rows.is_empty()).then_some(());
            wait_until("all to wait", TOOL_LIMIT, all).await.expect("they wait");
        };
        let dumping = held_up(pinned, during);
        let ((report, sink), changes) = tokio::join!(dumping, futures_util::future::join_all(waiting));
        report.unwrap_or_else(|error| panic!("{engine:?}: {}", error.chain()));
        for (change, done) in changes {
            done.unwrap_or_else(|error| panic!("{engine:?}, {change}: {}", error.chain()));
        }
        let restored = format!("{name}_restored");
        by_the_vendor(server, &sink, &restored).await;
        before.assert_same(&Picture::of(server, &restored).await, &restored);
    }
}
