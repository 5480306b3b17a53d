//! The only file that opens connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stackkit_core::{Clock, Error, Phase, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{NoTls, TlsConnect};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Host, PostgresConfig, TlsMode};
use crate::error::{Handshake, PostgresError, QueryResult};
use crate::prepared::Prepared;
use crate::tls::{Noted, connector};

/// Shown by the server in `pg_stat_activity`.
pub(crate) const APPLICATION_NAME: &str = "stackkit";

/// Turns every limit off that could end a long session, those of later versions included, and makes text stable:
/// a row under row security is an error, not missing in silence. The path comes first: what a role has for one may
/// lead to functions of others.
const PREPARE_LONG_SESSION: &str = "SET search_path = pg_catalog;
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('statement_timeout', \
    'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout');
    SET row_security = off; SET datestyle = ISO; SET intervalstyle = postgres;
    SET timezone = 'UTC'; SET bytea_output = hex; SET extra_float_digits = 3";

/// One connection. Dropping it ends the task that drives it, and the connection with it.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    /// The server's major version, as it said at the start; nothing if it said none.
    pub(crate) major: Option<u32>,
    /// Whether the probe's statements are prepared on this connection.
    pub(crate) prepared: Prepared,
    _driver: AbortOnDropHandle<()>,
}

impl Session {
    /// Opens a connection to `database` by `deadline`, or within the configured time if that is shorter.
    pub(crate) async fn open(config: &PostgresConfig, database: &str, deadline: Option<Instant>) -> Result<Self> {
        if let Some(fault) = config.first_error() {
            return Err(Error::config(fault.message).with_code(fault.code));
        }
        let own = Clock::system().instant() + config.connect_timeout;
        let deadline = deadline.map_or(own, |deadline| deadline.min(own));
        match &config.host {
            Host::Tcp(host) => Self::open_tcp(config, host, database, deadline).await,
            #[cfg(unix)]
            Host::Unix(_) => {
                let stream = by(deadline, config, Phase::Connect, UnixStream::connect(config.socket_path())).await?;
                let stream = stream.map_err(|source| PostgresError::Connect(config.endpoint(), source))?;
                start(config, database, deadline, stream, (NoTls, SslMode::Disable)).await
            }
            #[cfg(not(unix))]
            Host::Unix(_) => Err(Error::config("this system has no Unix sockets")),
        }
    }

    /// A connection for work that takes as long as it takes, but for waiting for locks.
    pub(crate) async fn open_long(config: &PostgresConfig, database: &str) -> Result<Self> {
        let session = Self::open(config, database, None).await?;
        let lock_ms = config.lock_timeout.as_millis().max(1);
        session.execute(&format!("{PREPARE_LONG_SESSION}; SET lock_timeout = {lock_ms}")).await?;
        Ok(session)
    }

    async fn open_tcp(config: &PostgresConfig, host: &str, database: &str, deadline: Instant) -> Result<Self> {
        let resolve = tokio::net::lookup_host((host, config.port));
        let addresses = by(deadline, config, Phase::Dns, resolve).await?;
        let addresses: Vec<SocketAddr> =
            addresses.map_err(|source| PostgresError::Resolve(config.endpoint(), source))?.collect();
        let stream = by(deadline, config, Phase::Connect, connect_any(&addresses)).await?;
        let stream = stream.map_err(|source| PostgresError::Connect(config.endpoint(), source))?;
        match config.tls {
            TlsMode::Disable => start(config, database, deadline, stream, (NoTls, SslMode::Disable)).await,
            TlsMode::Prefer => {
                let tls = connector::<TcpStream>(config, host)?;
                start(config, database, deadline, stream, (tls, SslMode::Prefer)).await
            }
            TlsMode::Require | TlsMode::VerifyFull => {
                let tls = connector::<TcpStream>(config, host)?;
                start(config, database, deadline, stream, (tls, SslMode::Require)).await
            }
        }
    }

    /// Runs statements that return nothing of interest, in one round trip.
    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.query()
    }

    /// The rows of all statements in `sql`, in one round trip, every value as text.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>> {
        let messages = self.client.simple_query(sql).await.query()?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// The first row of a query that has one.
    pub(crate) async fn row(&self, sql: &str) -> Result<SimpleQueryRow> {
        let row = self.rows(sql).await?.into_iter().next();
        Ok(row.ok_or(PostgresError::Answer("a row"))?)
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

/// The text in column `index` of `row`, if it is not NULL.
pub(crate) fn text(row: &SimpleQueryRow, index: usize) -> Result<&str> {
    Ok(row.get(index).ok_or(PostgresError::Answer("a value that is not null"))?)
}

/// The whole number in column `index` of `row`.
pub(crate) fn number(row: &SimpleQueryRow, index: usize) -> Result<u64> {
    Ok(text(row, index)?.parse().map_err(|_not_a_number| PostgresError::Answer("a whole number"))?)
}

/// Waits for `future` until `deadline`.
async fn by<F: Future>(deadline: Instant, config: &PostgresConfig, phase: Phase, future: F) -> Result<F::Output> {
    let late = |_elapsed| PostgresError::Deadline(config.endpoint(), phase).into();
    timeout_at(deadline, future).await.map_err(late)
}

/// Opens a connection to the first address that accepts one.
async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Logs in over `stream`.
async fn start<S, T>(
    config: &PostgresConfig,
    database: &str,
    deadline: Instant,
    stream: S,
    (tls, mode): (T, SslMode),
) -> Result<Session>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let mut driver = tokio_postgres::Config::new();
    driver.user(&config.user).dbname(database).application_name(APPLICATION_NAME).ssl_mode(mode);
    if let Some(password) = &config.password {
        driver.password(password.expose());
    }
    let began = Arc::new(AtomicBool::new(false));
    let noted = Noted { inner: tls, began: began.clone() };
    let (client, connection) =
        by(deadline, config, Phase::Auth, driver.connect_raw(stream, noted)).await?.map_err(|source| {
            let tls_refused = mode == SslMode::Require && !began.load(Ordering::Relaxed);
            let known = Handshake { tls_refused, has_password: config.password.is_some() };
            PostgresError::Handshake(config.endpoint(), known, source)
        })?;
    let major = connection.parameter("server_version").and_then(major);
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
        }
    });
    Ok(Session { client, major, prepared: Prepared::default(), _driver: AbortOnDropHandle::new(task) })
}

/// The major version in `15.20 (Debian 15.20-0+deb12u1)` or `18beta1`.
fn major(version: &str) -> Option<u32> {
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_the_first_number() {
        assert_eq!(major("15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!((major("18beta1"), major("17")), (Some(18), Some(17)));
        assert_eq!((major("devel"), major("")), (None, None));
    }
}
