//! What is loaded when, and by how many connections.

use stackkit_fixtures::{PostgresFixture, PostgresOptions, postgres_server};
use stackkit_postgres::{Postgres, PostgresDump, PostgresRestore};

use crate::backup::filled;
use crate::load::with;
use crate::memory::restore;
use crate::parallel_dump::parallel;
use crate::restore::{WIPE, content};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_check_may_use_what_is_made_later,
    what_changes_a_table_after_it_was_made_comes_before_its_rows,
    large_tables_come_frozen_in_one_stream,
    a_server_with_few_connections_is_enough,
];

/// More tables than one round trip makes, with names between the first and the last.
const MANY: &str =
    "do $$ begin for n in 100..300 loop execute format('create table m_%s (id integer)', n); end loop; end $$";

/// Rows of 330 bytes: more than a megabyte, so that the table has artifacts of its own.
fn large(name: &str) -> String {
    format!("insert into {name} select g, repeat(md5(g::text), 10) from generate_series(1, 20000) g")
}

/// The table of a function's body is no need that an archive tells of: the rows must wait for all the same.
async fn a_check_may_use_what_is_made_later() {
    let (postgres, service) = filled().await;
    let function = "create function fits(integer) returns boolean language plpgsql as \
        $$ begin return not exists (select from public.z_barred where id = $1); end $$";
    for sql in [
        MANY,
        function,
        "create table z_barred (id integer)",
        "create table a_first (id integer check (fits(id)), t text)",
        "create table a_parent (id integer check (fits(id)), t text)",
        "create table a_child () inherits (a_parent)",
        &large("a_first"),
        &large("a_child"),
    ] {
        postgres.execute(sql).await.expect(sql);
    }
    come_back(&postgres, &service, 3).await;
}

async fn what_changes_a_table_after_it_was_made_comes_before_its_rows() {
    let (postgres, service) = filled().await;
    for sql in [
        MANY,
        "create table a_first (id integer, t text)",
        &large("a_first"),
        // What changes a table that is being filled would wait for it, and it for that.
        "create sequence z_last owned by a_first.id",
        "alter table a_first alter id set default nextval('z_last')",
        "create view z_view as select * from a_first",
    ] {
        postgres.execute(sql).await.expect(sql);
    }
    come_back(&postgres, &service, 4).await;
}

async fn large_tables_come_frozen_in_one_stream() {
    let (postgres, service) = filled().await;
    for sql in
        ["create table one (id integer, t text)", "create table two (id integer, t text)", &large("one"), &large("two")]
    {
        postgres.execute(sql).await.expect(sql);
    }
    come_back(&postgres, &service, 2).await;
    assert_eq!(frozen(&postgres).await, ["one", "two"], "each has a connection of its own");
    come_back(&postgres, &service, 8).await;
    assert_eq!(frozen(&postgres).await, [""; 0], "their parts are spread over all connections");
}

async fn a_server_with_few_connections_is_enough() {
    let options = PostgresOptions::new().with_setting("max_connections", "9");
    let options = options.with_setting("superuser_reserved_connections", "0");
    let server = postgres_server(options).await.expect("a server");
    server.create_database("shop").await.expect("a database");
    for sql in [MANY, "create table one (id integer, t text)", &large("one")] {
        server.execute_in("shop", sql).await.expect(sql);
    }
    let service = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    let options = PostgresDump::new().with_jobs(2).with_row_hashes(true);
    let (memory, report) = parallel(&service, options).await.expect("a dump");
    let service = with(&service, PostgresRestore::new().with_jobs(40));
    // Rows are loaded, then read back to compare their hashes: both by as many connections as there are.
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(restored.census.counts, report.census.counts);
    let is_told = |warning: &String| warning.contains("of 40 connections for the restore");
    assert!(restored.warnings.iter().any(is_told), "{:?}", restored.warnings);
}

/// Dumps, wipes and restores with `jobs`, and compares.
async fn come_back(postgres: &PostgresFixture, service: &Postgres, jobs: usize) {
    let before = content(postgres, postgres.database()).await;
    let options = PostgresDump::new().with_jobs(2).with_split_bytes(1 << 19).with_row_hashes(true);
    let (memory, report) = parallel(service, options).await.expect("a dump");
    postgres.execute(WIPE).await.expect("a wipe");
    let service = with(service, PostgresRestore::new().with_jobs(jobs));
    let restored = restore(&service, &memory, &report).await.expect("a restore");
    assert_eq!(restored.census.counts, report.census.counts);
    assert_eq!(content(postgres, postgres.database()).await, before);
}

/// Those of the two large tables of which the server knows that all see all rows.
async fn frozen(postgres: &PostgresFixture) -> Vec<String> {
    let sql = "select relname::text from pg_class where relname in ('one', 'two') and relpages > 100 \
        and relallvisible = relpages order by 1";
    let rows = postgres.query(sql).await.expect("an answer");
    rows.into_iter().flatten().flatten().collect()
}
