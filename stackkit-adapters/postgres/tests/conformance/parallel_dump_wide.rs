//! Dumps by several connections: large objects, parts of a database, many databases, what stands outside of them, and
//! what gets in the way.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use stackkit_core::backup::{
    ArtifactName, ArtifactReceipt, ArtifactSink, ArtifactSource, ArtifactSpec, ArtifactWriter, Consistency, DumpContext,
};
use stackkit_core::{BackupProvider, Census, Error, ErrorKind, Result};
use stackkit_fixtures::{PostgresFixture, PostgresOptions, postgres_server};
use stackkit_postgres::{Databases, Globals, Postgres, PostgresDump};
use tokio::io::AsyncReadExt;

use crate::memory::Memory;
use crate::parallel_dump::{TOOL, filled, parallel, restored_by_hand, same_content, tool, unpack, with};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    large_objects_come_back,
    who_may_not_read_their_pages_asks_for_each,
    tables_without_columns_keep_their_rows,
    one_schema_is_counted_as_what_comes_of_it,
    filters_are_those_of_the_vendor,
    a_table_without_its_rows,
    a_table_that_is_left_out_may_be_locked,
    many_databases_in_one_dump,
    listed_databases_are_each_of_their_moment,
    globals_are_sql,
    passwords_are_only_dumped_where_wanted,
    a_lock_is_told_with_who_holds_it,
    a_writer_storm_changes_nothing,
    a_dropped_run_leaves_no_session,
    five_hundred_small_tables_are_few_artifacts,
];

async fn text(source: &Memory, name: &str) -> String {
    let mut text = String::new();
    let name = ArtifactName::new(name).expect("a name");
    source.open(&name).await.expect("an artifact").read_to_string(&mut text).await.expect("UTF-8");
    text
}

const LARGE_OBJECTS: &str = "select lo_create(5000), lo_from_bytea(5001, decode(repeat('00ff', 400000), 'hex')), \
    lo_from_bytea(5002, ''), lo_from_bytea(5003, 'x'); \
    select lo_put(5000, 3000000, 'behind a hole'); \
    select lo_from_bytea(6000 + g, convert_to(repeat(g::text, g % 3000), 'UTF8')) from generate_series(1, 700) g;";

const LARGE_CONTENT: &str = "select string_agg(oid || ' ' || md5(lo_get(oid)), ',' order by oid) \
    from pg_largeobject_metadata";

async fn large_objects_come_back() {
    let (postgres, service) = filled().await;
    postgres.execute(LARGE_OBJECTS).await.expect("objects");
    let (memory, report) = parallel(&service, PostgresDump::new().with_jobs(3)).await.expect("a dump");
    assert_eq!(report.census.count("objects.large_objects"), 706);
    let restored = restored_by_hand(&postgres, &memory).await;
    let content = async |database: &str| postgres.server().query_in(database, LARGE_CONTENT).await.expect("content");
    assert_eq!(content(postgres.database()).await, content(&restored).await);
    same_content(&postgres, &restored).await;
}

async fn who_may_not_read_their_pages_asks_for_each() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let role = format!("{}_plain", postgres.database());
    let grants = format!("create role {role} login; grant create on database {} to {role}", postgres.database());
    postgres.execute(&grants).await.expect("a role");
    let service = Postgres::from_url(&postgres.url().replace("postgres@", &format!("{role}@"))).expect("a URL");
    let make = format!("set role {role}; {LARGE_OBJECTS}");
    postgres.execute(&make).await.expect("objects");
    let options = PostgresDump::new().with_jobs(2).with_globals(Globals::Without);
    let (memory, _report) = parallel(&service, options).await.expect("a dump");
    let directory = tempfile::tempdir().expect("a directory");
    unpack(&memory, directory.path()).await;
    let size =
        |object: u32| std::fs::metadata(directory.path().join(format!("blob_{object}.dat"))).expect("a file").len();
    assert_eq!([size(5000), size(5001), size(5002), size(5003)], [3_000_013, 800_000, 0, 1]);
    let restored = restored_by_hand(&postgres, &memory).await;
    let content = async |database: &str| postgres.server().query_in(database, LARGE_CONTENT).await.expect("content");
    assert_eq!(content(postgres.database()).await, content(&restored).await);
    postgres.server().execute_in("postgres", &format!("drop database {restored}")).await.expect("dropped");
    postgres.execute(&format!("drop owned by {role} cascade; drop role {role}")).await.expect("dropped");
}

async fn tables_without_columns_keep_their_rows() {
    let (postgres, service) = filled().await;
    postgres.execute("insert into empty default values; insert into empty default values").await.expect("rows");
    let (memory, report) = parallel(&service, PostgresDump::new().with_jobs(2)).await.expect("a dump");
    assert_eq!(report.census.count("tables.public.empty.rows"), 2);
    let restored = restored_by_hand(&postgres, &memory).await;
    let rows = postgres.server().query_in(&restored, "select count(*) from empty").await.expect("a count");
    assert_eq!(rows, [[Some("2".to_owned())]]);
}

/// The tables whose rows are counted.
fn tables(census: &Census) -> Vec<&str> {
    census.counts.keys().map(String::as_str).filter(|name| name.ends_with(".rows")).collect()
}

/// The usual objects, and a schema beside them.
async fn with_more() -> (PostgresFixture, Postgres) {
    let (postgres, service) = filled().await;
    let more = "create schema other; create table other.a as select 1 x; create table other.log as select 2 x; \
        create table log as select 3 x; create index on log (x)";
    postgres.execute(more).await.expect("tables");
    (postgres, service)
}

async fn one_schema_is_counted_as_what_comes_of_it() {
    let (postgres, service) = with_more().await;
    let options = PostgresDump::new().only_schemas(["oth*"]);
    let (memory, report) = parallel(&service, options).await.expect("a dump");
    assert_eq!(tables(&report.census), ["tables.other.a.rows", "tables.other.log.rows"]);
    let counts = ["tables", "schemas", "large_objects"].map(|name| report.census.count(&format!("objects.{name}")));
    assert_eq!(counts, [2, 1, 0]);
    let restored = restored_by_hand(&postgres, &memory).await;
    let url = postgres.server().url_of(&restored);
    let census = Postgres::from_url(&url).expect("a URL").census().await.expect("a census");
    assert_eq!(report.census, census);
}

async fn filters_are_those_of_the_vendor() {
    let (_postgres, service) = with_more().await;
    let options = PostgresDump::new().only_tables(["log", "OTHER.a"]);
    let (_, report) = parallel(&service, options).await.expect("a dump");
    assert_eq!(tables(&report.census), ["tables.other.a.rows", "tables.public.log.rows"]);
    assert_eq!(report.census.count("objects.indexes"), 1);
    let options = PostgresDump::new().excluding_schemas(["public"]).excluding_tables(["other.l?g"]);
    let (_, report) = parallel(&service, options).await.expect("a dump");
    let found = tables(&report.census);
    assert!(found.contains(&"tables.other.a.rows") && !found.contains(&"tables.other.log.rows"), "{found:?}");
}

async fn a_table_without_its_rows() {
    let (postgres, service) = with_more().await;
    let options = PostgresDump::new().excluding_data_of(["other.*"]).without_owners().without_privileges();
    let (memory, report) = parallel(&service, options).await.expect("a dump");
    assert_eq!(report.census.count("tables.other.a.rows"), 0);
    assert_eq!(report.census.count("tables.public.log.rows"), 1);
    let restored = restored_by_hand(&postgres, &memory).await;
    let rows = postgres.server().query_in(&restored, "select count(*) from other.a").await.expect("a count");
    assert_eq!(rows, [[Some("0".to_owned())]]);
}

/// A session that holds a table until it is dropped.
async fn holder(postgres: &PostgresFixture, table: &str) -> tokio::task::JoinHandle<()> {
    let sql = format!("begin; lock table {table}; select pg_sleep(60)");
    let psql = tool(postgres.server(), "psql", postgres.database()).env("PGAPPNAME", "the-holder").args(["-c", &sql]);
    let task = tokio::spawn(async move {
        let _ended = psql.output(TOOL).await;
    });
    let locked =
        format!("select 1 from pg_locks where mode = 'AccessExclusiveLock' and relation = '{table}'::regclass");
    let held = async || postgres.query(&locked).await.ok().filter(|rows| !rows.is_empty());
    stackkit_fixtures::wait_until("the table to be locked", TOOL, held).await.expect("a lock");
    task
}

async fn a_table_that_is_left_out_may_be_locked() {
    let (postgres, service) = filled().await;
    let holder = holder(&postgres, "no_rows").await;
    for options in [
        PostgresDump::new().excluding_tables(["no_rows"]),
        PostgresDump::new().excluding_tables(["public.no_*"]),
        PostgresDump::new().only_tables(["public.bytes"]),
        PostgresDump::new().only_schemas(["Schr*"]).only_schemas(["\"Schräg \"\"zitiert\"\"\""]),
    ] {
        parallel(&service, options).await.expect("a dump of the others");
    }
    holder.abort();
}

async fn a_lock_is_told_with_who_holds_it() {
    let (postgres, service) = filled().await;
    let holder = holder(&postgres, "no_rows").await;
    let config = service.config().clone().with_lock_timeout(Duration::from_millis(200));
    let error = with(&Postgres::new(config), PostgresDump::new()).begin(&DumpContext::new()).await.map(drop);
    let error = error.expect_err("a lock");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Busy, Some("55P03")));
    let pid = postgres.query("select pid from pg_stat_activity where application_name = 'the-holder'").await;
    let pid = pid.expect("rows")[0][0].clone().expect("a pid");
    let shown = error.to_string();
    assert!(shown.contains(&format!("pid {pid} (the-holder) holds public.no_rows")), "{shown}");
    holder.abort();
}

async fn many_databases_in_one_dump() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.create_database("one").await.expect("a database");
    server.create_database("two").await.expect("a database");
    server.execute_in("one", "create table t as select generate_series(1, 10)").await.expect("rows");
    server.execute_in("two", "create table t as select generate_series(1, 20)").await.expect("rows");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let (memory, report) =
        parallel(&service, PostgresDump::new().with_databases(Databases::All)).await.expect("a dump");
    assert_eq!(report.census.count("databases.one.tables.public.t.rows"), 10);
    assert_eq!(report.census.count("databases.two.tables.public.t.rows"), 20);
    assert!(report.warnings.iter().any(|warning| warning.contains("ms apart")), "{:?}", report.warnings);
    let contents = text(&memory, "contents.json").await;
    for part in ["\"name\":\"one\",\"prefix\":\"d1.\"", "\"name\":\"postgres\",\"prefix\":\"d2.\"", "\"d3.\""] {
        assert!(contents.contains(part), "{contents}");
    }
    let names: Vec<_> = memory.artifacts().iter().map(|artifact| artifact.name().as_str()).collect();
    assert!(names.contains(&"d1.toc.dat") && names.contains(&"d3.tables.000.tar"), "{names:?}");
}

async fn listed_databases_are_each_of_their_moment() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.create_database("one").await.expect("a database");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let listed = Databases::List(vec!["postgres".into(), "one".into()]);
    let pinned = with(&service, PostgresDump::new().with_databases(listed));
    let pinned = pinned.begin(&DumpContext::new()).await.expect("snapshots");
    assert_eq!(pinned.point().consistency, Consistency::PerObject);
    let missing = PostgresDump::new().with_databases(Databases::List(vec!["three".into()]));
    let error = parallel(&service, missing).await.map(|_dump| ()).expect_err("no such database");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

const ROLES: &str = "create role \"Größe\" login password 'canary-5521' createdb connection limit 7 valid until '2033-01-01'; \
    create role team; grant team to \"Größe\" with admin option; grant pg_monitor to team; \
    alter role team set search_path = a, \"B c\"; alter role team set work_mem = '7MB'; \
    comment on role team is 'it''s us'";

/// All of these roles that the catalogs say.
const ROLES_SEEN: &str = "select rolname, rolcreatedb, rolconnlimit, rolvaliduntil::text, rolpassword, \
    (select setconfig::text from pg_db_role_setting where setrole = r.oid), shobj_description(r.oid, 'pg_authid'), \
    (select string_agg(m.rolname || ' ' || admin_option, ',' order by 1) from pg_auth_members a \
        join pg_roles m on m.oid = a.roleid where a.member = r.oid) \
    from pg_authid r where rolname in ('team', 'Größe') order by 1";

async fn globals_are_sql() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.execute_in("postgres", ROLES).await.expect("roles");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let options = PostgresDump::new().with_globals(Globals::WithPasswords);
    let sql = text(&parallel(&service, options).await.expect("a dump").0, "globals.sql").await;
    let other = postgres_server(PostgresOptions::new()).await.expect("another server");
    let file = tempfile::NamedTempFile::new().expect("a file");
    // Twice: roles that exist are no error.
    for _time in 0..2 {
        std::fs::write(file.path(), &sql).expect("a file");
        let psql = tool(&other, "psql", "postgres").args(["-v", "ON_ERROR_STOP=1", "-f"]).arg(file.path());
        psql.output(TOOL).await.unwrap_or_else(|error| panic!("psql reads it: {}", error.chain()));
    }
    let before = server.query_in("postgres", ROLES_SEEN).await.expect("roles");
    assert_eq!(other.query_in("postgres", ROLES_SEEN).await.expect("roles"), before);
}

async fn passwords_are_only_dumped_where_wanted() {
    let server = postgres_server(PostgresOptions::new()).await.expect("a server");
    server.execute_in("postgres", ROLES).await.expect("roles");
    let service = Postgres::from_url(&server.url()).expect("a URL");
    let dumped = async |globals| parallel(&service, PostgresDump::new().with_globals(globals)).await.expect("a dump").0;
    let sql = text(&dumped(Globals::WithoutPasswords).await, "globals.sql").await;
    assert!(sql.contains("\"Größe\"") && !sql.contains("SCRAM") && !sql.contains("canary"), "{sql}");
    let sql = text(&dumped(Globals::WithPasswords).await, "globals.sql").await;
    assert!(sql.contains("PASSWORD 'SCRAM-SHA-256$"), "{sql}");
    let without = dumped(Globals::Without).await;
    assert!(!without.artifacts().iter().any(|artifact| artifact.name().as_str() == "globals.sql"));
    server.execute_in("postgres", "create role plain login").await.expect("a role");
    let plain = Postgres::from_url(&server.url().replace("postgres@", "plain@")).expect("a URL");
    let wanted = PostgresDump::new().with_globals(Globals::WithPasswords);
    let error: Error = parallel(&plain, wanted).await.map(|_dump| ()).expect_err("no right");
    assert_eq!((error.kind(), error.code()), (ErrorKind::PermissionDenied, Some("postgres.globals.passwords")));
}

async fn a_writer_storm_changes_nothing() {
    let (postgres, service) = filled().await;
    postgres
        .execute(
            "create table storm (id int primary key, v int); \
        insert into storm select g, 0 from generate_series(1, 20000) g",
        )
        .await
        .expect("a table");
    let storm = "do $$ begin for i in 1..100000 loop update storm set v = v + 1 where id % 50 = i % 50; \
        insert into storm values (100000 + i, 1); commit; end loop; end $$";
    let psql = tool(postgres.server(), "psql", postgres.database()).args(["-c", storm]);
    let storm = tokio::spawn(async move { psql.output(TOOL).await });
    let sum = "select count(*), sum(v) from storm";
    let service = with(&service, PostgresDump::new().with_jobs(3).with_split_bytes(1 << 18));
    let pinned = service.begin(&DumpContext::new()).await.expect("a snapshot");
    let memory = Memory::default();
    let report = pinned.run(&memory).await.expect("a dump");
    let restored = restored_by_hand(&postgres, &memory.sealed()).await;
    storm.abort();
    let rows = postgres.server().query_in(&restored, sum).await.expect("rows");
    let (count, total): (u64, u64) = (
        rows[0][0].as_deref().expect("a count").parse().expect("a number"),
        rows[0][1].as_deref().expect("a sum").parse().expect("a number"),
    );
    assert_eq!(report.census.count("tables.public.storm.rows"), count);
    // Each turn adds one row of 1, and 400 or more: what is seen is a whole number of turns.
    let turns = count - 20_000;
    let inserted: Vec<u64> = (0..50).map(|class| turns / 50 + u64::from(turns % 50 > class)).collect();
    assert!(turns > 0 && total >= turns * 401, "{turns} turns, {total}, {inserted:?}");
}

/// Takes everything but rows, whose first write never returns.
struct Stalled(Memory);

#[async_trait]
impl ArtifactSink for Stalled {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        match spec.format == "postgresql-copy-text" {
            true => Ok(Box::new(Stalled(self.0.clone()))),
            false => self.0.create(spec).await,
        }
    }
}

#[async_trait]
impl ArtifactWriter for Stalled {
    async fn write(&mut self, _chunk: Bytes) -> Result<()> {
        std::future::pending().await
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        Err(Error::unexpected("a writer that took nothing was finished"))
    }
}

async fn a_dropped_run_leaves_no_session() {
    let (postgres, service) = filled().await;
    postgres
        .execute("create table slow as select repeat('x', 1000) from generate_series(1, 200000)")
        .await
        .expect("rows");
    let service = with(&service, PostgresDump::new().with_jobs(2));
    let pinned = service.begin(&DumpContext::new()).await.expect("a snapshot");
    let sessions = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and application_name = 'stackkit'",
        postgres.database()
    );
    let busy = format!("{sessions} and query like 'SAVEPOINT%slow%' and state = 'active'");
    let count = async |sql: &str| postgres.query(sql).await.expect("a count")[0][0].clone().expect("a number");
    let reading = async || (count(&busy).await != "0").then_some(());
    let sink = Memory::default();
    let stalled = Stalled(sink.clone());
    tokio::select! {
        ended = pinned.run(&stalled) => { ended.expect("a dump"); panic!("the dump was over before it was seen") }
        seen = stackkit_fixtures::wait_until("the copy", TOOL, reading) => seen.expect("a copy"),
    }
    let gone = async || (count(&sessions).await == "0").then_some(());
    stackkit_fixtures::wait_until("all sessions to end", TOOL, gone).await.expect("no session is left");
    assert!(!sink.sealed().artifacts().iter().any(|artifact| artifact.name().as_str() == "contents.json"));
}

async fn five_hundred_small_tables_are_few_artifacts() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let make = "do $$ begin for i in 1..500 loop execute format('create table t%s as select g, md5(g::text) from \
        generate_series(1, 20) g', i); end loop; end $$";
    postgres.execute(make).await.expect("tables");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    let (memory, report) = parallel(&service, PostgresDump::new().with_jobs(2)).await.expect("a dump");
    assert!(memory.artifacts().len() <= 5, "{} artifacts", memory.artifacts().len());
    assert_eq!(report.census.count("tables.public.t500.rows"), 20);
    let restored = restored_by_hand(&postgres, &memory).await;
    same_content(&postgres, &restored).await;
}
