//! The whole schema in a server of a later version: by the vendor's `pg_restore` of that version, and by our own loader.
//!
//! Versions say one thing in other words, so what comes out is compared with what the same files make there; the rows and
//! the names of all objects are compared with those of the source, as the later `pg_dump` tells them.

use libtest_mimic::Completion;
use stackkit_core::ErrorKind;
use stackkit_fixtures::{PostgresOptions, PostgresServer};
use stackkit_postgres::{ExportFormat, ExportOptions, ExportTo, Postgres, export};

use crate::memory::{dump, restore};
use crate::torture::compare::{Picture, by_hand, pg_restore};
use crate::torture::{ENGINES, TOOL_LIMIT, config, is_built, run_file, server, server_of, service, tool, tool_of};

/// What is dumped together.
const DATABASES: [&[&str]; 3] =
    [&["types", "icu", "tables", "logic", "outside"], &["values", "documents"], &["extensions"]];

/// Which columns take no null, and which constraints say so is another matter from 18 on, where those have names.
const NOT_NULL: &str = "select a.attrelid::regclass::text, a.attname, a.attnotnull from pg_attribute a \
    join pg_class c on c.oid = a.attrelid where a.attnum > 0 and not attisdropped and c.relkind in ('r', 'p', 'f') \
    and c.relnamespace::regnamespace::text not in ('pg_catalog', 'information_schema', 'pg_toast') order by 1, a.attnum";

pub(crate) async fn later_servers_hold_the_same() -> Completion {
    let server = server().await;
    let mut seen = 0;
    for major in [16, 17, 18].into_iter().filter(|major| *major > server.major()) {
        let later = match server_of(PostgresOptions::new().with_major(major)).await {
            Ok(later) => later,
            Err(error) if error.kind() == ErrorKind::ToolMissing => continue,
            Err(error) => panic!("{}", error.chain()),
        };
        for (at, files) in DATABASES.into_iter().enumerate() {
            goes_over(&server, &later, &format!("source_{major}_{at}"), files).await;
        }
        seen += 1;
    }
    if seen == 0 { Completion::ignored_with("no later version is installed") } else { Completion::Completed }
}

/// The tools of a later version write what that version reads, of a server whose columns have options of its own.
pub(crate) async fn a_later_pg_dump_is_as_good() -> Completion {
    let server = server().await;
    let mut later = None;
    for major in [17, 18, 16].into_iter().filter(|major| *major > server.major()) {
        later = later.or(server_of(PostgresOptions::new().with_major(major)).await.ok());
    }
    let Some(later) = later else { return Completion::ignored_with("no later version is installed") };
    make(&server, &later, "torture", DATABASES[0]).await;
    by_text(&server, &later).await;
    let what =
        Expected { entries: Picture::of(&later, "by_text").await, ..Expected::of(&server, &later, "torture").await };
    for engine in ENGINES {
        let dumped = Postgres::new(config(&server, "torture", engine).with_tool_dir(later.bin_dir()));
        let (memory, report) = dump(&dumped).await.expect("a dump");
        let name = format!("loaded_{engine:?}");
        let restored = restore(&service(&later, &name, engine), &memory, &report).await;
        restored.unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
        what.assert_in(&later, &name).await;

        let directory = tempfile::tempdir().expect("a directory");
        let (name, path) = (format!("exported_{engine:?}"), directory.path().join("export"));
        let options = ExportOptions::new(ExportFormat::Custom);
        export(&memory, &options, ExportTo::Path(path.clone())).await.expect("an export");
        // By one connection: several of pg_restore's own may wait for each other where tables refer to partitions.
        pg_restore(&later, &["-j1"], &path, &name).await;
        what.assert_in(&later, &name).await;
    }
    Completion::Completed
}

/// What the later version's text makes of the older one's objects in `by_text`: by its `psql`, without the options.
async fn by_text(server: &PostgresServer, later: &PostgresServer) {
    let text = tool_of(later, server, "pg_dump").arg("--dbname=torture").output(TOOL_LIMIT).await.expect("a dump");
    let text = String::from_utf8(text).expect("UTF-8");
    let mut pieces = text.split("SET (pg_attver=");
    let mut bare = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces.map(|piece| piece.trim_start_matches(|character: char| character.is_ascii_digit())) {
        match piece.strip_prefix(", ") {
            Some(others) => bare.extend(["SET (", others]),
            // A statement that changes nothing.
            None => bare.extend(["RESET (n_distinct", piece]),
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("text.sql");
    std::fs::write(&file, bare).expect("a file");
    later.create_database("by_text").await.expect("a database");
    let psql =
        tool(later, "psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", "by_text", "-f"]);
    psql.arg(&file).output(TOOL_LIMIT).await.unwrap_or_else(|error| panic!("{}", error.chain()));
}

/// Makes the files' objects on both servers, and brings those of the first to the other.
async fn goes_over(server: &PostgresServer, later: &PostgresServer, database: &str, files: &[&str]) {
    make(server, later, database, files).await;
    let what = Expected::of(server, later, database).await;
    for engine in ENGINES {
        let (memory, report) = dump(&service(server, database, engine)).await.expect("a dump");
        let directory = tempfile::tempdir().expect("a directory");
        let archive = by_hand(&memory, directory.path()).await;
        let name = format!("{database}_{engine:?}_by_hand");
        pg_restore(later, &["-j2"], &archive, &name).await;
        what.assert_in(later, &name).await;

        let name = format!("{database}_{engine:?}_loaded");
        let restored = restore(&service(later, &name, engine), &memory, &report).await;
        restored.unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
        what.assert_in(later, &name).await;
    }
}

/// The same database on both servers.
async fn make(server: &PostgresServer, later: &PostgresServer, database: &str, files: &[&str]) {
    server.create_database(database).await.expect("a database");
    later.create_database(database).await.expect("a database");
    for file in files {
        if !is_built(server, file).await || !is_built(later, file).await {
            eprintln!("{file}.sql is left out: {} was built without what it needs", later.major());
            continue;
        }
        run_file(server, database, file).await;
        run_file(later, database, file).await;
    }
}

/// What has to come out.
struct Expected {
    /// The source, as the later tool tells it.
    rows: Picture,
    /// What the later server itself makes of the same files. Their rows get other numbers there.
    entries: Picture,
    not_null: Vec<Vec<Option<String>>>,
}

impl Expected {
    async fn of(server: &PostgresServer, later: &PostgresServer, database: &str) -> Self {
        Self {
            rows: Picture::by(later, server, database).await,
            entries: Picture::of(later, database).await,
            not_null: server.query_in(database, NOT_NULL).await.expect("columns"),
        }
    }

    async fn assert_in(&self, later: &PostgresServer, database: &str) {
        let found = Picture::of(later, database).await;
        self.rows.assert_same_rows(&found, database);
        self.rows.assert_same_names(&found, database);
        match later.major() {
            18.. => self.entries.without_not_null().assert_same_entries(&found.without_not_null(), database),
            _ => self.entries.assert_same_entries(&found, database),
        }
        assert_eq!(later.query_in(database, NOT_NULL).await.expect("columns"), self.not_null, "{database}");
    }
}
