//! Dumps by several connections, restored by hand with the vendor's tools.

use std::path::Path;
use std::time::Duration;

use stackkit_core::backup::{ArtifactSource, DumpContext, DumpReport};
use stackkit_core::process::Tool;
use stackkit_core::{BackupProvider, Result};
use stackkit_fixtures::{PostgresFixture, PostgresServer};
use stackkit_postgres::{Engine, Postgres, PostgresDump};
use tokio::io::AsyncReadExt;

use crate::backup::OBJECTS;
use crate::memory::Memory;
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_parallel_dump_restores_by_hand,
    large_tables_are_split,
    jobs_do_not_change_the_content,
    changes_during_the_dump_are_not_in_it,
];

/// How long a tool may take.
pub(crate) const TOOL: Duration = Duration::from_secs(60);

/// A dump of this kind, over the database of `service`.
pub(crate) async fn parallel(service: &Postgres, options: PostgresDump) -> Result<(Memory, DumpReport)> {
    let service = with(service, options);
    let sink = Memory::default();
    let report = service.begin(&DumpContext::new()).await?.run(&sink).await?;
    Ok((sink.sealed(), report))
}

pub(crate) fn with(service: &Postgres, options: PostgresDump) -> Postgres {
    Postgres::new(service.config().clone().with_dump(options.with_engine(Engine::Parallel)))
}

/// Puts the artifacts into a directory as the documentation says: archives unpacked, parts joined.
pub(crate) async fn unpack(source: &Memory, directory: &Path) {
    let mut names: Vec<_> = source.artifacts().iter().map(|artifact| artifact.name().clone()).collect();
    names.sort_unstable();
    for name in names {
        let mut content = Vec::new();
        source.open(&name).await.expect("an artifact").read_to_end(&mut content).await.expect("its bytes");
        let path = directory.join(name.as_str());
        match name.as_str().rsplit_once('.') {
            Some((_, "tar")) => {
                std::fs::write(&path, content).expect("a file");
                let tar = Tool::new("/bin/tar").args(["--extract", "--file"]).arg(&path).directory(directory);
                tar.output(TOOL).await.expect("tar reads it");
                std::fs::remove_file(path).expect("removed");
            }
            Some((file, part)) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                let path = directory.join(file);
                let head = std::fs::read(&path).unwrap_or_default();
                std::fs::write(path, [head, content].concat()).expect("a file");
            }
            _ => std::fs::write(path, content).expect("a file"),
        }
    }
}

/// The vendor's tool of the server, told where it is.
pub(crate) fn tool(server: &PostgresServer, name: &str, database: &str) -> Tool {
    let tool = Tool::new(server.bin_dir().join(name)).env("PGHOST", server.socket_dir()).env("PGUSER", "postgres");
    tool.env("PGPORT", server.port().to_string()).arg("--dbname").arg(database)
}

/// Restores with `pg_restore -j2` into a new database, and gives its name.
pub(crate) async fn restored_by_hand(postgres: &PostgresFixture, source: &Memory) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    unpack(source, directory.path()).await;
    let database = format!("{}_by_hand", postgres.database());
    let server = postgres.server();
    server.execute_in("postgres", &format!("drop database if exists {database}")).await.expect("dropped");
    server.execute_in("postgres", &format!("create database {database} template template0")).await.expect("a database");
    let restore = tool(server, "pg_restore", &database).args(["--exit-on-error", "--jobs=2"]).arg(directory.path());
    restore.output(TOOL).await.unwrap_or_else(|error| panic!("pg_restore reads it: {}", error.chain()));
    database
}

/// What `pg_dump` says of a database, without what differs from call to call.
pub(crate) async fn plain(server: &PostgresServer, database: &str) -> String {
    let output = tool(server, "pg_dump", database).output(TOOL).await.expect("a dump");
    let text = String::from_utf8(output).expect("UTF-8");
    let kept = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    text.lines().filter(kept).collect::<Vec<_>>().join("\n")
}

/// The rows of every table in order: the order in the server's files is not the same after a restore by several.
pub(crate) async fn same_content(postgres: &PostgresFixture, restored: &str) {
    let server = postgres.server();
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let (before, after) = (plain(server, postgres.database()).await, plain(server, restored).await);
    assert_eq!(sorted(before), sorted(after));
}

pub(crate) async fn filled() -> (PostgresFixture, Postgres) {
    let postgres = stackkit_fixtures::postgres().await.expect("a server");
    postgres.execute(OBJECTS).await.expect("objects");
    let service = Postgres::from_url(&postgres.url()).expect("a URL");
    (postgres, service)
}

async fn a_parallel_dump_restores_by_hand() {
    let (postgres, service) = filled().await;
    let (memory, report) = parallel(&service, PostgresDump::new().with_jobs(2)).await.expect("a dump");
    assert_eq!(report.census, service.census().await.expect("a census"));
    assert_eq!(report.warnings, Vec::<String>::new());
    let restored = restored_by_hand(&postgres, &memory).await;
    same_content(&postgres, &restored).await;
}

async fn large_tables_are_split() {
    let (postgres, service) = filled().await;
    let large = "create table large as select g as id, repeat(md5(g::text), 10) as t from generate_series(1, 20000) g";
    postgres.execute(large).await.expect("a table");
    let options = PostgresDump::new().with_jobs(3).with_split_bytes(1 << 19).with_row_hashes(true);
    let (memory, report) = parallel(&service, options).await.expect("a dump");
    let parts = memory.artifacts().iter().filter(|artifact| artifact.name().as_str().contains(".dat.0")).count();
    assert!(parts > 10, "{parts} parts");
    assert_eq!(report.census.count("tables.public.large.rows"), 20_000);
    let (_, whole) = parallel(&service, PostgresDump::new().with_jobs(1).with_row_hashes(true)).await.expect("a dump");
    assert_eq!(report.census.digests, whole.census.digests);
    assert!(whole.census.digests.contains_key("tables.public.large.row_hash"));
    let restored = restored_by_hand(&postgres, &memory).await;
    same_content(&postgres, &restored).await;
}

async fn jobs_do_not_change_the_content() {
    let (_postgres, service) = filled().await;
    let mut censuses = Vec::new();
    for jobs in 1..=4 {
        let options = PostgresDump::new().with_jobs(jobs).with_row_hashes(true);
        censuses.push(parallel(&service, options).await.expect("a dump").1.census);
    }
    assert!(censuses.windows(2).all(|pair| pair[0] == pair[1]));
}

async fn changes_during_the_dump_are_not_in_it() {
    let (postgres, service) = filled().await;
    let before = plain(postgres.server(), postgres.database()).await;
    let service = with(&service, PostgresDump::new().with_jobs(2));
    let pinned = service.begin(&DumpContext::new()).await.expect("a snapshot");
    postgres
        .execute("insert into no_rows values (1); create table appeared as select 1 x")
        .await
        .expect("writes go on");
    // They wait until the dump is over, and bar those that come later.
    let database = postgres.database().to_owned();
    let waiting: Vec<_> = ["truncate events", "alter table no_rows add column more int default 7", "drop table refers"]
        .into_iter()
        .map(|sql| tool(postgres.server(), "psql", &database).args(["-c", sql]).output(TOOL))
        .collect();
    let waiting = tokio::spawn(futures_util::future::join_all(waiting));
    let queued = async || {
        let sql = format!(
            "select 1 where 3 = (select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = '{database}')"
        );
        (postgres.query(&sql).await.expect("rows").len() == 1).then_some(())
    };
    stackkit_fixtures::wait_until("three to wait", TOOL, queued).await.expect("they wait");
    let memory = Memory::default();
    let report = pinned.run(&memory).await.expect("a dump");
    assert_eq!(
        report.census.count("tables.public.events_old.rows") + report.census.count("tables.public.events_new.rows"),
        1000
    );
    assert_eq!(report.census.count("tables.public.no_rows.rows"), 0);
    for ended in waiting.await.expect("no panic") {
        ended.expect("they go on after the dump");
    }
    let restored = restored_by_hand(&postgres, &memory.sealed()).await;
    let after = plain(postgres.server(), &restored).await;
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&before), sorted(&after));
}
