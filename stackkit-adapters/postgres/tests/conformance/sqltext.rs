//! SQL text of `pg_dump`, run into a new database.

use stackkit_core::ErrorKind;
use stackkit_postgres::{Postgres, TrustedSql};

use crate::archives::{content, pg_dump, server};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![sql_text_of_pg_dump_is_imported, sql_text_that_fails_leaves_nothing];

async fn sql_text_of_pg_dump_is_imported() {
    let server = server(15).await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("shop.sql");
    let body = "create function whole() returns int begin atomic select 1; select 2; end";
    server.execute_in("shop", body).await.expect("a function");
    pg_dump(&server, &["-Fp"], &path).await;
    let service = Postgres::from_url(&server.url_of("again")).expect("a URL");
    let file = tokio::fs::File::open(&path).await.expect("a file");
    let report = service.import_sql(file, TrustedSql).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(report.statements > 50 && report.rows > 4000, "{report:?}");
    assert_eq!(content(&server, "again").await, content(&server, "shop").await);
    let file = tokio::fs::File::open(&path).await.expect("a file");
    let error = service.import_sql(file, TrustedSql).await.expect_err("it is there");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
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
        let error = service.import_sql(std::io::Cursor::new(text), TrustedSql).await.expect_err(text);
        assert_eq!(error.kind(), kind, "{text}: {}", error.chain());
        assert!(error.to_string().contains(line), "{text}: {error}");
        let left = "select count(*) from pg_database where starts_with(datname, 'again')";
        assert_eq!(server.query_in("postgres", left).await.expect("a count")[0][0].as_deref(), Some("0"), "{text}");
    }
}
