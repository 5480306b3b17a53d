//! Versions of PostgreSQL, crashes of it, data directories of somebody else, and a pooler in front.

use libtest_mimic::Trial;
use stackkit_core::ErrorKind;
use stackkit_core::process::Tool;
use stackkit_fixtures::conformance::{Outcome, check, refused, same, trial};
use stackkit_fixtures::{PoolMode, PostgresOptions, PostgresServer, pgbouncer, postgres_server, postgres_server_on};

/// Copying a data directory of some megabytes.
const BACKUP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("postgres::version_16_runs", "postgres16", async || version(16, &["vector"]).await),
        trial("postgres::version_17_runs_with_contrib_and_vectors", "postgres17", async || {
            version(17, &["vector", "pg_trgm", "hstore", "pgcrypto", "pg_stat_statements"]).await
        }),
        trial("postgres::version_18_runs", "postgres18", async || version(18, &["vector"]).await),
        trial("postgres::a_version_that_nobody_has_is_missing", "postgres", no_version),
        trial("postgres::a_crash_keeps_what_was_written", "postgres", crash),
        trial("postgres::a_restored_data_directory_runs", "postgres17", restored),
        trial("postgres::no_data_directory_is_refused", "postgres", no_data_directory),
        trial("postgres::a_pooler_hands_connections_around", "pgbouncer", pooler),
    ]
}

/// It is that version, its tools too, and it has these extensions.
async fn version(major: u32, extensions: &[&str]) -> Outcome {
    let server = postgres_server(PostgresOptions::new().with_major(major)).await?;
    same("the version", &major, &server.major())?;
    let shown = first(&server, "show server_version_num").await?;
    check(shown.starts_with(&major.to_string()), || format!("the server says {shown}"))?;
    for tool in ["pg_dump", "pg_restore", "pg_basebackup", "psql", "pgbench"] {
        let output = Tool::new(server.bin_dir().join(tool)).arg("--version").output(BACKUP_TIMEOUT).await?;
        let text = String::from_utf8_lossy(&output).into_owned();
        check(text.contains(&format!(") {major}.")), || format!("{tool} says {text}"))?;
    }
    for extension in extensions {
        server.execute_in("postgres", &format!("create extension {extension}")).await?;
    }
    Ok(())
}

async fn no_version() -> Outcome {
    let missing = postgres_server(PostgresOptions::new().with_major(3)).await;
    let error = refused("version 3", &[ErrorKind::ToolMissing], missing)?;
    check(error.to_string().contains("cargo xtask servers postgresql-3"), || error.to_string())
}

async fn crash() -> Outcome {
    let mut server = postgres_server(PostgresOptions::new().with_setting("synchronous_commit", "on")).await?;
    server.execute_in("postgres", "create table kept (n int); insert into kept values (7)").await?;
    let before = server.pid();
    server.restart_immediate().await?;
    check(before.is_some() && server.pid() != before, || "it is the same process".to_owned())?;
    same("the row", &"7".to_owned(), &first(&server, "select n from kept").await?)?;
    let log = std::fs::read_to_string(server.socket_dir().join("log"))?;
    check(log.contains("was not properly shut down"), || format!("it did not recover: {log}"))
}

/// What `pg_basebackup` of a running server wrote starts as a server of that version.
async fn restored() -> Outcome {
    let replica = || PostgresOptions::new().with_setting("wal_level", "replica").with_setting("max_wal_senders", "4");
    let source = postgres_server(replica().with_major(17)).await?;
    source.execute_in("postgres", "create table kept as select 7 as n").await?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let backup = Tool::new(source.bin_dir().join("pg_basebackup")).arg("-D").arg(&data).arg("-h");
    let backup = backup.arg(source.socket_dir()).args(["-p", &source.port().to_string(), "-U", "postgres"]);
    backup.args(["-X", "stream", "-c", "fast", "--no-sync"]).output(BACKUP_TIMEOUT).await?;
    source.execute_in("postgres", "drop table kept").await?;
    let server = postgres_server_on(&data, replica()).await?;
    same("the version", &17, &server.major())?;
    same("the row", &"7".to_owned(), &first(&server, "select n from kept").await?)?;
    check(server.data_dir() != data && data.join("backup_label").is_file(), || "it is no copy".to_owned())
}

async fn no_data_directory() -> Outcome {
    let folder = tempfile::tempdir()?;
    let started = postgres_server_on(folder.path(), PostgresOptions::new()).await;
    refused("an empty folder", &[ErrorKind::Config], started).map(drop)
}

async fn pooler() -> Outcome {
    let server = postgres_server(PostgresOptions::new()).await?;
    let pooler = pgbouncer(&server, PoolMode::Transaction).await?;
    check(pooler.pid().is_some(), || "it has no process".to_owned())?;
    let client = |database: &str| {
        let tool = Tool::new(server.bin_dir().join("psql")).arg("-XAt").arg(pooler.url_of(database));
        tool.args(["-c", "select current_database()", "-c", "set application_name = 'left'"])
    };
    server.create_database("shop").await?;
    let told = client("shop").output(BACKUP_TIMEOUT).await?;
    same("the database", &"shop\nSET\n", &String::from_utf8_lossy(&told).as_ref())?;
    // psql is gone; its connection stays for another client, with what it left.
    let held = "select count(*) from pg_stat_activity where datname = 'shop' and application_name = 'left'";
    same("the connection that was kept", &"1".to_owned(), &first(&server, held).await?)
}

async fn first(server: &PostgresServer, sql: &str) -> Outcome<String> {
    let rows = server.query_in("postgres", sql).await?;
    Ok(rows.into_iter().flatten().flatten().next().unwrap_or_default())
}
