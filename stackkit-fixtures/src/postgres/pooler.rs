//! A private pgbouncer in front of a private PostgreSQL.

use std::path::{Path, PathBuf};

use stackkit_core::{
    Endpoint, HealthCheck, Observation, ProbeContext, Result, Secret, Service, ServiceId, async_trait,
};

use crate::postgres::client::Client;
use crate::postgres::server::{PostgresServer, SUPERUSER, owner};
use crate::server::{Launch, PrivateDir, QuickEnd, ServerProcess, Signal, find_server, percent_encode};

/// Where packages put it when its directory is not in `PATH`.
const WELL_KNOWN: &[&str] = &["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"];
/// Part of the socket's name; nobody else has this directory.
const SOCKET_PORT: u16 = 6432;

/// When a pooler gives a client's connection to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolMode {
    /// When the client goes.
    Session,
    /// After each transaction: what belongs to a session is another's the next moment.
    Transaction,
    /// After each statement; transactions of several are refused.
    Statement,
}

impl PoolMode {
    fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }
}

/// A private pgbouncer, gone with this value and with the process. It outlives a stop of its server, and connects again.
///
/// ```no_run
/// # async fn test() -> stackkit_core::Result<()> {
/// use stackkit_fixtures::{PoolMode, PostgresOptions, pgbouncer, postgres_server};
/// let server = postgres_server(PostgresOptions::new()).await?;
/// let pooler = pgbouncer(&server, PoolMode::Transaction).await?;
/// println!("{}", pooler.url_of("postgres"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PgBouncer {
    // First: it ends before its directory goes.
    process: ServerProcess,
    dir: PrivateDir,
}

/// Starts a pgbouncer in front of every database of `server`, which asks for no password. It hands out the connection
/// that was used last.
///
/// # Errors
/// `ToolMissing` if `pgbouncer` is not installed; `ToolFailed` with its last words if it ends while it starts; `Timeout`.
///
/// # Cancel safety
/// Dropping the future ends it.
pub async fn pgbouncer(server: &PostgresServer, mode: PoolMode) -> Result<PgBouncer> {
    let program = find_server("pgbouncer", "STACKKIT_PGBOUNCER_BIN", &[], WELL_KNOWN)?;
    // As the server's user: it refuses to run as root, and the server's socket is that user's.
    let dir = PrivateDir::create(owner()?, QuickEnd::KILL)?;
    let configuration = dir.write("pgbouncer.ini", configuration(server, mode, dir.path()).as_bytes())?;
    let args = vec!["-q".to_owned(), configuration.display().to_string()];
    let (environment, secrets): (_, Vec<Secret>) = (Vec::new(), Vec::new());
    let launch = Launch { program, args, environment, secrets, quick_end: Signal::KILL };
    let health = PoolerHealth { id: ServiceId::new("pgbouncer")?, socket_dir: dir.path().to_owned() };
    let process = ServerProcess::start(&launch, &dir, &health).await?;
    Ok(PgBouncer { process, dir })
}

impl PgBouncer {
    /// The URL of that database through the pooler, over its Unix socket, as the superuser.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let directory = percent_encode(&self.socket_dir().display().to_string());
        format!("postgres://{SUPERUSER}@{directory}:{}/{database}", self.port())
    }

    /// The directory of its Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The port: part of the socket's name.
    #[must_use]
    pub fn port(&self) -> u16 {
        SOCKET_PORT
    }

    /// Its process id; `None` after its end was seen.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }
}

fn configuration(server: &PostgresServer, mode: PoolMode, dir: &Path) -> String {
    format!(
        "[databases]
* = host={} port={} user={SUPERUSER}
[pgbouncer]
listen_port = {SOCKET_PORT}
unix_socket_dir = {}
auth_type = any
pool_mode = {}
",
        server.socket_dir().display(),
        server.port(),
        dir.display(),
        mode.name(),
    )
}

/// Whether a statement comes through.
#[derive(Debug)]
struct PoolerHealth {
    id: ServiceId,
    socket_dir: PathBuf,
}

impl Service for PoolerHealth {
    fn id(&self) -> &ServiceId {
        &self.id
    }

    fn kind(&self) -> &'static str {
        "pgbouncer"
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("postgres", self.socket_dir.display().to_string(), SOCKET_PORT)
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for PoolerHealth {
    async fn probe(&self, _cx: &ProbeContext) -> Result<Observation> {
        let client = Client::connect(&self.socket_dir, SOCKET_PORT, SUPERUSER, SUPERUSER).await?;
        client.query("select 1").await.map(|_rows| Observation::new())
    }
}
