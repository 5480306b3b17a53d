//! A private PostgreSQL server.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stackkit_core::Result;
use stackkit_core::process::{User, find_user, is_root};
use stackkit_postgres::Postgres;

use crate::postgres::client::Client;
use crate::postgres::find::{find_postgres, major_of};
use crate::postgres::options::PostgresOptions;
use crate::postgres::template::template;
use crate::server::{
    Launch, PORT_TRIES, PrivateDir, QuickEnd, ServerProcess, Signal, copy_tree, free_port, percent_encode,
    port_was_taken,
};

/// The users that a root process runs PostgreSQL as; it refuses to run as root.
const USERS: [&str; 2] = ["postgres", "nobody"];
/// The superuser that `initdb` made.
pub(super) const SUPERUSER: &str = "postgres";
/// Part of the socket's name when there is no TCP port; nobody else has this directory.
const SOCKET_PORT: u16 = 5432;
/// How long the drop of a database may take: milliseconds, without fsync.
const DROP_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings that make a server quick and its data worthless. Not `fsync=off` alone: a fixture's data is thrown away.
const SETTINGS: &[&str] = &[
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "jit=off",
    "shared_buffers=16MB",
    "max_connections=200",
    // In the data directory, so that it goes with it even after SIGKILL.
    "dynamic_shared_memory_type=mmap",
];

/// A private PostgreSQL server, gone with this value and with the process.
///
/// ```no_run
/// # async fn test() -> stackkit_core::Result<()> {
/// use stackkit_fixtures::{PostgresOptions, postgres_server};
/// let server = postgres_server(PostgresOptions::new().with_tcp("correct horse")).await?;
/// server.create_database("shop").await?;
/// println!("{}", server.url_of("shop"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresServer {
    // First: the server ends before its directory goes.
    server: Option<ServerProcess>,
    port: u16,
    major: u32,
    program: PathBuf,
    options: PostgresOptions,
    dir: PrivateDir,
}

/// Starts a private server with an empty database `postgres`. About 100 ms.
///
/// # Errors
/// As [`postgres`](crate::postgres()).
///
/// # Cancel safety
/// Dropping the future ends the server.
pub async fn postgres_server(options: PostgresOptions) -> Result<PostgresServer> {
    let program = find_postgres(options.major)?;
    let owner = owner()?;
    let template = template(&program, owner).await?;
    let mut server = PostgresServer::over(template.path, (program, template.major), options).await?;
    server.first_start().await?;
    Ok(server)
}

/// Starts a private server over a copy of the data directory `data`, which somebody else made: a physical backup that
/// was restored. Its version is that of the data directory, its roles, passwords and rules of access too.
///
/// # Errors
/// As [`postgres`](crate::postgres()); `Config` if `data` is no data directory; `Io` if it can't be copied.
///
/// # Cancel safety
/// Dropping the future ends the server.
pub async fn postgres_server_on(data: &Path, options: PostgresOptions) -> Result<PostgresServer> {
    let major = major_of(data)?;
    let program = find_postgres(Some(major))?;
    let mut server = PostgresServer::over(data.to_owned(), (program, major), options).await?;
    server.start_on_a_port().await?;
    Ok(server)
}

/// The user that the servers run as, if it is another than this process's.
pub(super) fn owner() -> Result<Option<User>> {
    if is_root() { find_user(&USERS).map(Some) } else { Ok(None) }
}

impl PostgresServer {
    /// A server that is not started, over a copy of the data directory `from`.
    async fn over(from: PathBuf, (program, major): (PathBuf, u32), options: PostgresOptions) -> Result<Self> {
        let owner = owner()?;
        let dir = PrivateDir::create(owner, QuickEnd { signal: "QUIT", marker: "data/postmaster.pid" })?;
        copy_tree(from, dir.path().join("data"), owner).await?;
        Ok(Self { server: None, port: SOCKET_PORT, major, program, options, dir })
    }

    /// The URL of the database `postgres`, over the Unix socket, as the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(SUPERUSER)
    }

    /// The URL of that database, over the Unix socket, as the superuser.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let directory = percent_encode(&self.socket_dir().display().to_string());
        format!("postgres://{SUPERUSER}@{directory}:{}/{database}", self.port)
    }

    /// The URL of that database over TCP with the superuser's password, if [`PostgresOptions::with_tcp`] was said.
    #[must_use]
    pub fn tcp_url_of(&self, database: &str) -> Option<String> {
        let password = percent_encode(self.options.password.as_ref()?.expose());
        Some(format!("postgres://{SUPERUSER}:{password}@{}:{}/{database}", Ipv4Addr::LOCALHOST, self.port))
    }

    /// The port: of TCP if there is one, and part of the socket's name.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the binaries that it runs from: `pg_dump` and `pg_restore` of its version are there.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        self.program.parent().unwrap_or(Path::new("/"))
    }

    /// The major version: 15, 16, 17, 18.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The data directory. It belongs to the server's user, and goes with this value.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The process id of the postmaster; `None` while it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().and_then(ServerProcess::id)
    }

    /// Makes an empty database. The name is quoted.
    ///
    /// # Errors
    /// As [`PostgresServer::execute_in`].
    ///
    /// # Cancel safety
    /// The database may have been made.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        // Copying files beats logging each page when nothing is synced; before 15 the server knew no other way.
        let strategy = if self.major >= 15 { "strategy file_copy" } else { "" };
        // Nobody can be connected to template0, so creating never waits for others.
        let sql = format!("create database {} template template0 {strategy}", quote_identifier(name));
        self.execute_in(SUPERUSER, &sql).await
    }

    /// Runs one or more statements in that database.
    ///
    /// # Errors
    /// `ToolFailed` with the SQLSTATE as the code and the driver's error as the cause; `Unreachable`.
    ///
    /// # Cancel safety
    /// The statements may have run.
    pub async fn execute_in(&self, database: &str, sql: &str) -> Result<()> {
        self.client(database).await?.execute(sql).await
    }

    /// Runs a query in that database and gives its rows as text; `None` is SQL's null.
    ///
    /// # Errors
    /// As [`PostgresServer::execute_in`].
    ///
    /// # Cancel safety
    /// Cancel safe as far as the query is.
    pub async fn query_in(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.client(database).await?.query(sql).await
    }

    /// Stops the server, ending its connections; its data stays for [`PostgresServer::start`].
    ///
    /// # Errors
    /// `Timeout` if it had to be killed.
    ///
    /// # Cancel safety
    /// Dropping the future kills the server.
    pub async fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            // Fast shutdown: TERM would wait for every client.
            Some(server) => server.stop(Signal::INT).await,
            None => Ok(()),
        }
    }

    /// Ends the server at once, as a crash would: nothing is written, every connection breaks; then starts it, and it
    /// recovers from its log.
    ///
    /// # Errors
    /// `Timeout` if it had to be killed; as [`PostgresServer::start`].
    ///
    /// # Cancel safety
    /// Dropping the future kills the server.
    pub async fn restart_immediate(&mut self) -> Result<()> {
        if let Some(server) = self.server.take() {
            server.stop(Signal::QUIT).await?;
        }
        self.start().await
    }

    /// Starts the server again after [`PostgresServer::stop`]: same socket, same port, same data. Does nothing if it
    /// runs.
    ///
    /// # Errors
    /// As [`postgres`](crate::postgres()).
    ///
    /// # Cancel safety
    /// Dropping the future ends the server.
    pub async fn start(&mut self) -> Result<()> {
        if self.server.is_none() {
            self.server = Some(self.launch().await?);
        }
        Ok(())
    }

    async fn first_start(&mut self) -> Result<()> {
        self.start_on_a_port().await?;
        let Some(password) = &self.options.password else { return Ok(()) };
        let sql = format!("alter role {SUPERUSER} password {}", quote_literal(password.expose()));
        self.execute_in(SUPERUSER, &sql).await
    }

    async fn start_on_a_port(&mut self) -> Result<()> {
        if self.options.password.is_none() {
            return self.start().await;
        }
        let mut tries_left = PORT_TRIES;
        loop {
            self.port = free_port()?;
            tries_left -= 1;
            match self.start().await {
                Err(error) if tries_left > 0 && port_was_taken(&error) => {}
                started => return started,
            }
        }
    }

    async fn launch(&self) -> Result<ServerProcess> {
        let path = self.dir.path().display().to_string();
        let listen = if self.options.password.is_some() { Ipv4Addr::LOCALHOST.to_string() } else { String::new() };
        let own = self.options.settings.iter().map(|(name, value)| format!("{name}={value}"));
        let settings = [format!("listen_addresses={listen}"), format!("unix_socket_directories={path}")];
        let settings = SETTINGS.iter().map(ToString::to_string).chain(settings).chain(own);
        let mut args = vec!["-D".to_owned(), format!("{path}/data"), "-p".to_owned(), self.port.to_string()];
        args.extend(settings.flat_map(|setting| ["-c".to_owned(), setting]));
        let secrets = self.options.password.iter().cloned().collect();
        let environment = Vec::new();
        let launch = Launch { program: self.program.clone(), args, environment, secrets, quick_end: Signal::QUIT };
        let service = Postgres::from_url(&self.url())?;
        ServerProcess::start(&launch, &self.dir, &service).await
    }

    pub(crate) async fn client(&self, database: &str) -> Result<Client> {
        Client::connect(self.socket_dir(), self.port, SUPERUSER, database).await
    }

    /// Drops every database whose name begins with `prefix` and waits for it, from any thread and without the caller's
    /// runtime: a restore keeps the replaced database under such a name.
    pub(crate) fn drop_databases(&self, prefix: &str) {
        let drop = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let dropped = async { tokio::time::timeout(DROP_TIMEOUT, self.drop_all(prefix)).await };
            // A database that stays goes with the server.
            runtime.block_on(dropped).ok()
        };
        // A thread of its own: blocking on a runtime inside another one is not allowed.
        let _ = std::thread::scope(|scope| scope.spawn(drop).join());
    }

    async fn drop_all(&self, prefix: &str) -> Result<()> {
        let client = self.client(SUPERUSER).await?;
        let list = format!("select datname from pg_database where starts_with(datname, {})", quote_literal(prefix));
        for name in client.query(&list).await?.into_iter().flatten().flatten() {
            client.execute(&format!("drop database if exists {} with (force)", quote_identifier(&name))).await?;
        }
        Ok(())
    }
}

fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
