//! A private PostgreSQL with the database of the bench. The data is made once and kept as a copy of the data directory.

use std::path::{Path, PathBuf};

use stackkit_fixtures::{PostgresOptions, PostgresServer, postgres_server, postgres_server_on};
use tokio::runtime::Runtime;

use crate::rounds::say;
use crate::{Result, data, meter, rounds::Sample, run};

/// The database that is dumped.
pub(crate) const DATABASE: &str = "bench";

/// pgbench's scale, 100 000 accounts each.
const SCALE: u32 = 60;

/// What makes the data. A change there or of the scale changes the number in the copy's name.
const SQL: &str = include_str!("data.sql");
const VERSION: u32 = 2;

/// As a server in production where it matters here: it syncs what it commits, logs for a standby, has memory, and no checkpoint
/// falls into a round. `cargo xtask bench` has its data on a disk.
const SETTINGS: [(&str, &str); 8] = [
    ("fsync", "on"),
    ("shared_buffers", "1GB"),
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
];

/// The server, and the runtime that it needs.
pub(crate) struct Server {
    pub(crate) runtime: Runtime,
    fixture: PostgresServer,
    postmaster: u32,
}

impl Server {
    /// Starts it with the data, made if there is none.
    ///
    /// # Errors
    /// If the server is missing or the data can't be made.
    pub(crate) fn start() -> Result<Self> {
        let runtime = Runtime::new()?;
        let options =
            SETTINGS.iter().fold(PostgresOptions::new(), |all, (name, value)| all.with_setting(*name, *value));
        let empty = runtime.block_on(postgres_server(options.clone()))?;
        let version = runtime.block_on(empty.query_in("postgres", "show server_version_num"))?;
        let version = version.into_iter().flatten().flatten().next().ok_or("the server does not tell its version")?;
        let name = format!("postgres-{version}-scale-{SCALE}-v{VERSION}");
        let data = data::cached(&name, |partial| make(&runtime, empty, partial))?;
        let fixture = runtime.block_on(postgres_server_on(&data, options))?;
        let postmaster = fixture.pid().ok_or("the server does not run")?;
        // The copy of the data is no part of the first round.
        run::peer("", r#"sync -f "$DIR""#, &[("DIR", fixture.socket_dir())])?;
        Ok(Self { runtime, fixture, postmaster })
    }

    /// The URL of a database.
    pub(crate) fn url_of(&self, database: &str) -> String {
        self.fixture.url_of(database)
    }

    /// The Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.fixture.socket_dir().join(format!(".s.PGSQL.{}", self.fixture.port()))
    }

    /// Runs statements in the database `postgres`, each by itself.
    ///
    /// # Errors
    /// If one fails.
    pub(crate) fn execute(&self, statements: &[&str]) -> Result {
        for statement in statements {
            self.runtime.block_on(self.fixture.execute_in("postgres", statement))?;
        }
        Ok(())
    }

    /// The first column of a query in the database of the bench.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) fn column(&self, query: &str) -> Result<Vec<String>> {
        let rows = self.runtime.block_on(self.fixture.query_in(DATABASE, query))?;
        Ok(rows.into_iter().filter_map(|row| row.into_iter().flatten().next()).collect())
    }

    /// Measures a command line of the vendor's tools of this server's version.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) fn peer(&self, case: &str, line: &str, env: &[(&str, &Path)]) -> Result<Sample> {
        let line = format!("PATH=\"$BIN:$PATH\"; {line}");
        let port = PathBuf::from(self.fixture.port().to_string());
        let here = [
            ("BIN", self.fixture.bin_dir()),
            ("PGHOST", self.fixture.socket_dir()),
            ("PGPORT", &port),
            ("PGUSER", Path::new("postgres")),
            ("PGDATABASE", Path::new(DATABASE)),
        ];
        self.metered(|| run::peer(case, &line, &[&here, env].concat()))
    }

    /// Says what `measure` cost, here and in the server.
    ///
    /// # Errors
    /// What it fails with.
    pub(crate) fn metered(&self, measure: impl FnOnce() -> Result<Sample>) -> Result<Sample> {
        meter::metered(self.postmaster, measure)
    }
}

/// Fills an empty server and copies its data directory to `partial`.
fn make(runtime: &Runtime, mut server: PostgresServer, partial: &Path) -> Result {
    say("filling PostgreSQL");
    runtime.block_on(server.create_database(DATABASE))?;
    let script = data::scratch("postgres-sql")?.join("data.sql");
    std::fs::write(&script, SQL.replace(":scale", &SCALE.to_string()))?;
    let port = PathBuf::from(server.port().to_string());
    let env = [
        ("BIN", server.bin_dir()),
        ("PGHOST", server.socket_dir()),
        ("PGPORT", &port),
        ("PGDATABASE", Path::new(DATABASE)),
        ("SQL", &script),
    ];
    run::peer("", r#""$BIN/psql" -X -q -U postgres -v ON_ERROR_STOP=1 -f "$SQL""#, &env)?;
    runtime.block_on(server.stop())?;
    run::peer("", r#"cp -R "$FROM" "$TO""#, &[("FROM", &server.data_dir()), ("TO", partial)])?;
    Ok(())
}
