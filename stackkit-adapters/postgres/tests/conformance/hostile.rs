//! Names that break out of quotes, plans that are kept, values that no server can write as text.

use libtest_mimic::Completion;
use stackkit_core::backup::{OldData, RestoreContext, RestoreOptions, RestorePlan, TargetState};
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server};
use stackkit_postgres::{Engine, Postgres, PostgresDump, RemoveOld};

use crate::memory::{Memory, dump, restore};
use crate::parallel_dump_memory::{HUGE, HUGE_UNSET};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_hostile_name_goes_all_the_way,
    a_kept_plan_is_applied_once,
    a_target_that_does_not_exist_is_made,
    settings_of_a_database_change_nothing,
    thousands_of_tables_are_dumped_and_restored,
    locale_and_tablespace_survive,
];

/// The service, whose dumps are parallel.
fn parallel(service: &Postgres) -> Postgres {
    let options = PostgresDump::new().with_engine(Engine::Parallel).with_jobs(1);
    Postgres::new(service.config().clone().with_dump(options))
}

async fn holds(server: &PostgresServer, database: &str, value: &str) {
    let content = server.query_in(database, "select x from t").await.expect("a row");
    assert_eq!(content, [[Some(value.to_owned())]]);
}

/// Runs statements on the server itself.
async fn run(server: &PostgresServer, statements: &[&str]) {
    for statement in statements {
        server.execute_in("postgres", statement).await.expect(statement);
    }
}

async fn a_hostile_name_goes_all_the_way() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let server = postgres.server();
    let name = format!("{} S\"h'o\\p\n$1%s =x", postgres.database());
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    server.execute_in("postgres", &format!("create database {quoted}")).await.expect("a database");
    let config = Postgres::from_url(&postgres.url()).expect("a URL").config().clone().with_database(&name);
    let service = parallel(&Postgres::new(config));
    server.execute_in(&name, "create table t as select 'dumped'::text as x").await.expect("a table");
    let (memory, report) = dump(&service).await.expect("a dump");
    server.execute_in(&name, "update t set x = 'newer'").await.expect("a change");
    let kept = restore(&service, &memory, &report).await.expect("a restore").old_data_kept_as.expect("a name");
    holds(server, &name, "dumped").await;
    holds(server, &kept, "newer").await;
    let plan = service.plan_removal_of_old(RemoveOld::All).await.expect("a plan");
    let removed = service.recover(plan).await.expect("a removal");
    assert_eq!(removed.done.len(), 1, "{removed}");
    assert_eq!(removed.done[0].database, kept);
    server.execute_in("postgres", &format!("drop database {quoted}")).await.expect("dropped");
}

async fn a_kept_plan_is_applied_once() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    postgres.execute("create table t as select 1 as x").await.expect("a table");
    let service = parallel(&Postgres::from_url(&postgres.url()).expect("a URL"));
    let (memory, report) = dump(&service).await.expect("a dump");
    let options = RestoreOptions::new().with_old_data(OldData::Remove);
    let plan = service.plan_restore(&memory, &options).await.expect("a plan");
    let kept = serde_json::to_string(&plan).expect("JSON");
    let read = || serde_json::from_str::<RestorePlan>(&kept).expect("a plan");
    let cx = RestoreContext::new().with_expected(report.census.clone());
    let later = Postgres::new(service.config().clone());
    later.restore(read(), &memory, &cx).await.expect("a restore");
    let error = later.restore(read(), &memory, &cx).await.expect_err("the plan is used");
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)), "{error:?}");
    assert_eq!(later.census().await.expect("a census"), report.census);
}

async fn a_target_that_does_not_exist_is_made() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    postgres.execute("create table t as select 1 as x").await.expect("a table");
    let service = parallel(&Postgres::from_url(&postgres.url()).expect("a URL"));
    let (memory, report) = dump(&service).await.expect("a dump");
    let name = format!("{} New", postgres.database());
    let fresh = Postgres::new(service.config().clone().with_database(&name));
    let plan = fresh.plan_restore(&memory, &RestoreOptions::new()).await.expect("a plan");
    let twice = plan.clone();
    let restored = fresh.restore(plan, &memory, &RestoreContext::new()).await.expect("a restore");
    assert_eq!((restored.census, restored.old_data_kept_as), (report.census, None));
    let error = fresh.restore(twice, &memory, &RestoreContext::new()).await.expect_err("it exists now");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    postgres.server().execute_in("postgres", &format!("drop database \"{name}\"")).await.expect("dropped");
}

/// What `ALTER DATABASE … SET` has for whoever connects.
async fn settings_of_a_database_change_nothing() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let make = "create table t as select 'a\\b''c'::text as x, '{1,NULL}'::text[] as y, now() as z, 1.5::float8 as f, \
        '\\xff00'::bytea as b, '1 day'::interval as i, 12.5::money as m";
    postgres.execute(make).await.expect("a table");
    for (setting, value) in [
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_deferrable", "on"),
        ("standard_conforming_strings", "off"),
        ("backslash_quote", "off"),
        ("array_nulls", "off"),
        ("bytea_output", "escape"),
        ("datestyle", "'German'"),
        ("intervalstyle", "sql_standard"),
        ("timezone", "'Asia/Kathmandu'"),
        ("extra_float_digits", "-10"),
        ("quote_all_identifiers", "on"),
        ("client_min_messages", "debug1"),
        ("statement_timeout", "'300ms'"),
        ("idle_in_transaction_session_timeout", "'50ms'"),
        ("transform_null_equals", "on"),
        ("xmloption", "document"),
        ("search_path", "nowhere"),
        ("session_replication_role", "replica"),
        ("row_security", "off"),
        ("enable_seqscan", "off"),
    ] {
        let sql = format!("alter database {} set {setting} = {value}", postgres.database());
        postgres.server().execute_in("postgres", &sql).await.expect(setting);
    }
    let service = parallel(&Postgres::from_url(&postgres.url()).expect("a URL"));
    let content = "select md5(t::text) from public.t";
    let before = postgres.query(content).await.expect("a row");
    let (memory, report) = dump(&service).await.expect("a dump");
    for _restore in 0..2 {
        let kept = restore(&service, &memory, &report).await.expect("a restore").old_data_kept_as.expect("a name");
        assert_eq!(postgres.query(content).await.expect("a row"), before);
        postgres.server().execute_in("postgres", &format!("drop database {kept}")).await.expect("dropped");
    }
    let set = format!(
        "select cardinality(setconfig) from pg_db_role_setting where setdatabase = \
        (select oid from pg_database where datname = '{}')",
        postgres.database()
    );
    assert_eq!(postgres.server().query_in("postgres", &set).await.expect("settings")[0][0].as_deref(), Some("21"));
}

/// As text a `bytea` is twice as long, and a text ends at 1 GB in every server.
pub(crate) async fn a_value_that_no_text_holds_is_told() -> Completion {
    if std::env::var_os(HUGE).is_none() {
        return Completion::ignored_with(HUGE_UNSET);
    }
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let make = "create table \"too Long\" as select convert_to(repeat('x', 540000000), 'UTF8') as b";
    postgres.execute(make).await.expect("a value");
    let service = parallel(&Postgres::from_url(&postgres.url()).expect("a URL"));
    let sink = Memory::default();
    let pinned = service.begin(&stackkit_core::backup::DumpContext::new()).await.expect("a snapshot");
    let error = pinned.run(&sink).await.map(drop).expect_err("no text holds it");
    assert!(error.to_string().contains("too Long") && error.to_string().contains("too long"), "{error}");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unsupported, Some("XX000")), "{error:?}");
    assert!(!sink.names().iter().any(|name| name == "contents.json"), "the dump is not whole");
    Completion::Completed
}

/// Thousands of tables are locked, described and read in batches.
async fn thousands_of_tables_are_dumped_and_restored() {
    // A server of its own: the locks of thousands of tables would leave none to the other cases.
    let options = PostgresOptions::new().with_setting("max_locks_per_transaction", "256");
    let server = postgres_server(options).await.expect("a server");
    server.create_database("many").await.expect("a database");
    // Few a transaction: each locks its table.
    let make = "do $$ begin for i in 1..5000 loop execute format('create table t%s as select %s as x', i, i); \
        if i % 500 = 0 then commit; end if; end loop; end $$";
    server.execute_in("many", make).await.expect("tables");
    let service = parallel(&Postgres::from_url(&server.url_of("many")).expect("a URL"));
    let clock = stackkit_core::Clock::system();
    let began = clock.instant();
    let pinned = service.begin(&stackkit_core::backup::DumpContext::new()).await.expect("a snapshot");
    let begin = began.elapsed();
    let sink = Memory::default();
    let report = pinned.run(&sink).await.expect("a dump");
    let dumped = began.elapsed();
    let memory = sink.sealed();
    assert_eq!(report.census.count("tables.public.t4999.rows"), 1);
    restore(&service, &memory, &report).await.expect("a restore");
    eprintln!("5000 tables: begin {begin:?}, dump {dumped:?}, with the restore {:?}", began.elapsed());
    assert!(memory.count() < 20, "small tables lie beside each other: {}", memory.count());
    let last = server.query_in("many", "select x from t5000").await.expect("a row");
    assert_eq!(last, [[Some("5000".to_owned())]]);
}

/// Provider and rules of a locale, and the tablespace, are those of the database that is replaced.
async fn locale_and_tablespace_survive() {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    let server = postgres.server();
    let has_icu = "select 1 from pg_collation where collprovider = 'i' limit 1";
    let icu = match server.query_in("postgres", has_icu).await.expect("collations").is_empty() {
        true => "",
        false => " locale_provider icu icu_locale 'de-DE'",
    };
    let name = format!("{}_place", postgres.database());
    let space = format!("{name}_s");
    // A tablespace without a folder of its own.
    let allow = "alter role postgres set allow_in_place_tablespaces = on";
    let make = format!("create tablespace {space} location ''");
    let create =
        format!("create database {name} template template0 encoding 'UTF8' locale 'C' tablespace {space}{icu}");
    run(server, &[allow, &make, &create]).await;
    server.execute_in(&name, "create table t as select 'x' as x").await.expect("a table");
    let service = parallel(&Postgres::from_url(&server.url_of(&name)).expect("a URL"));
    let (memory, report) = dump(&service).await.expect("a dump");
    let place = format!(
        "select to_jsonb(d) - '{{oid,datfrozenxid,datminmxid,datcollversion}}'::text[] from pg_database d \
         where datname = '{name}'"
    );
    let before = server.query_in("postgres", &place).await.expect("a row");
    let kept = restore(&service, &memory, &report).await.expect("a restore").old_data_kept_as.expect("a name");
    assert_eq!(server.query_in("postgres", &place).await.expect("a row"), before);
    let gone = [format!("drop database {name}"), format!("drop database {kept}"), format!("drop tablespace {space}")];
    let [first, second, third] = gone.each_ref().map(String::as_str);
    run(server, &[first, second, third, "alter role postgres reset allow_in_place_tablespaces"]).await;
}
