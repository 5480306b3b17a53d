//! SQL text of `pg_dump`, run into a new database.

use stackkit_core::backup::{RestoreContext, RestoreOptions};
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::PostgresServer;
use stackkit_postgres::{Archive, Owners, Postgres, PostgresConfig, PostgresRestore, Strategy, TrustedSql};

use crate::archives::{content, pg_dump, server};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    sql_text_of_pg_dump_is_imported,
    sql_text_that_fails_leaves_nothing,
    sql_text_takes_the_place_of_a_database,
    a_plan_for_text_grows_stale,
    a_plan_for_text_is_none_for_an_archive,
    sql_text_is_run_as_it_is,
    sql_text_is_run_under_a_new_name,
];

async fn sql_text_of_pg_dump_is_imported() {
    let server = server(15).await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("shop.sql");
    let body = "create function whole() returns int begin atomic select 1; select 2; end";
    server.execute_in("shop", body).await.expect("a function");
    pg_dump(&server, &["-Fp"], &path).await;
    let service = Postgres::from_url(&server.url_of("again")).expect("a URL");
    let file = tokio::fs::File::open(&path).await.expect("a file");
    let plan = service.plan_import_sql(file, &RestoreOptions::new()).await.expect("a plan");
    assert!(!plan.is_destructive(), "{plan}");
    let file = tokio::fs::File::open(&path).await.expect("a file");
    let report = service.import_sql(plan, file, TrustedSql).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(report.statements > 50 && report.rows > 4000, "{report:?}");
    assert_eq!(content(&server, "again").await, content(&server, "shop").await);
}

async fn one(server: &PostgresServer, database: &str, sql: &str) -> String {
    server.query_in(database, sql).await.expect("a row")[0][0].clone().expect("a value")
}

async fn sql_text_takes_the_place_of_a_database() {
    let server = server(15).await.expect("a server");
    let text = "create table news as select 7 as x; alter database shop set work_mem = '1MB';";
    let read = || std::io::Cursor::new(text);
    let service = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    server.execute_in("shop", "alter database shop set lock_timeout = '7s'").await.expect("a setting");
    let plan = service.plan_import_sql(read(), &RestoreOptions::new()).await.expect("a plan");
    assert!(plan.is_destructive() && plan.to_string().contains("2 statements are run with all rights"), "{plan}");
    let report = service.import_sql(plan, read(), TrustedSql).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    let kept = report.restored.old_data_kept_as.expect("the old database");
    assert_eq!(one(&server, "shop", "select x from news").await, "7");
    assert_eq!(one(&server, "shop", "show lock_timeout").await, "7s");
    assert_eq!(one(&server, &kept, "select count(*) from pg_tables where tablename = 'news'").await, "0");
}

async fn a_plan_for_text_grows_stale() {
    let server = server(15).await.expect("a server");
    let service = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    let read = || std::io::Cursor::new("select 1;");
    let plan = service.plan_import_sql(read(), &RestoreOptions::new()).await.expect("a plan");
    server.execute_in("shop", "create table late ()").await.expect("a table");
    let error = service.import_sql(plan, read(), TrustedSql).await.expect_err("the target changed");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{}", error.chain());
}

async fn a_plan_for_text_is_none_for_an_archive() {
    let server = server(15).await.expect("a server");
    let service = Postgres::from_url(&server.url_of("shop")).expect("a URL");
    let read = || std::io::Cursor::new("select 1;");
    let plan = service.plan_import_sql(read(), &RestoreOptions::new()).await.expect("a plan");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("shop.dump");
    pg_dump(&server, &["-Fc"], &path).await;
    let archive = Archive::open(&path).await.expect("an archive");
    let error = service.restore(plan, &archive, &RestoreContext::new()).await.expect_err("another plan");
    assert!(error.to_string().contains("another strategy"), "{error}");
    let plan = service.plan_restore(&archive, &RestoreOptions::new()).await.expect("a plan");
    let error = service.import_sql(plan, read(), TrustedSql).await.expect_err("another plan");
    assert!(error.to_string().contains("another strategy"), "{error}");
}

async fn sql_text_is_run_as_it_is() {
    let server = server(15).await.expect("a server");
    let config = PostgresConfig::from_url(&server.url_of("shop")).expect("a URL");
    for (restore, kind) in [
        (PostgresRestore::new().with_owners(Owners::Skip), ErrorKind::Config),
        (PostgresRestore::new().only_tables(["x"]), ErrorKind::Config),
        (PostgresRestore::new().with_jobs(2), ErrorKind::Config),
        (PostgresRestore::new().with_strategy(Strategy::InPlaceSingleTransaction), ErrorKind::Unsupported),
    ] {
        let service = Postgres::new(config.clone().with_restore(restore.clone()));
        let planned = service.plan_import_sql(std::io::Cursor::new("select 1;"), &RestoreOptions::new()).await;
        assert_eq!(planned.expect_err("refused").kind(), kind, "{restore:?}");
    }
}

async fn sql_text_is_run_under_a_new_name() {
    let server = server(15).await.expect("a server");
    let config = PostgresConfig::from_url(&server.url_of("shop")).expect("a URL");
    let new = PostgresRestore::new().with_strategy(Strategy::IntoNew("other".to_owned()));
    let service = Postgres::new(config.with_restore(new));
    let text = || std::io::Cursor::new("create table only_here ();");
    let plan = service.plan_import_sql(text(), &RestoreOptions::new()).await.expect("a plan");
    service.import_sql(plan, text(), TrustedSql).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    server.query_in("other", "select count(*) from only_here").await.expect("a table");
    let plan = service.plan_import_sql(text(), &RestoreOptions::new()).await.expect("a plan");
    let error = service.import_sql(plan, text(), TrustedSql).await.expect_err("it is there");
    assert!(error.to_string().contains("a free name"), "{error}");
}

async fn sql_text_that_fails_leaves_nothing() {
    let server = server(15).await.expect("a server");
    let service = Postgres::from_url(&server.url_of("again")).expect("a URL");
    for (text, kind, line) in [
        ("select 1;\n\\! touch /tmp/x\n", ErrorKind::Unsupported, "line=2"),
        ("select 1;\n\\connect other\n", ErrorKind::Unsupported, "line=2"),
        ("create table t (a int);\n\n  select 1 / 0;", ErrorKind::Unexpected, "line=3"),
        ("create table t (a int);\ncopy t from stdin;\n1\nx\n\\.\n", ErrorKind::Unexpected, "line=2"),
        ("create table t (a int);\ncopy t from stdin;\n1\n", ErrorKind::Integrity, "line="),
        ("select 1;\nselect 2", ErrorKind::Integrity, "line=2"),
    ] {
        let planned = service.plan_import_sql(std::io::Cursor::new(text), &RestoreOptions::new()).await;
        // What only the server knows is found when it runs.
        let error = match (planned, kind) {
            (Err(error), ErrorKind::Unsupported | ErrorKind::Integrity) => error,
            (Ok(plan), ErrorKind::Unexpected) => {
                service.import_sql(plan, std::io::Cursor::new(text), TrustedSql).await.expect_err(text)
            }
            (planned, _) => panic!("{text}: {planned:?}"),
        };
        assert_eq!(error.kind(), kind, "{text}: {}", error.chain());
        assert!(error.to_string().contains(line), "{text}: {error}");
        let left = "select count(*) from pg_database where starts_with(datname, 'again')";
        assert_eq!(server.query_in("postgres", left).await.expect("a count")[0][0].as_deref(), Some("0"), "{text}");
    }
}
