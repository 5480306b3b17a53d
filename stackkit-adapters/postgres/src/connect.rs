//! The only file that opens connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
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
use tokio_postgres::{CancelToken, Client};

use crate::client::APPLICATION_NAME;
use crate::config::{Host, PostgresConfig, TlsMode};
use crate::error::{Handshake, PostgresError, QueryResult};
use crate::tls::{Noted, connector};
use crate::wire::{Io, Shared};

/// A connection that is ready for queries.
pub(crate) struct Started {
    pub(crate) client: Client,
    /// What drives the client; it ends with the connection.
    pub(crate) driver: Driver,
    /// The server's major version, as it said at the start; nothing if it said none.
    pub(crate) major: Option<u32>,
    pub(crate) stream: Stream,
}

/// Takes the stream away from the driver, if there still is one.
pub(crate) type Stream = Box<dyn FnOnce() -> Option<Box<dyn Io>> + Send + Sync>;

/// The driver's work for a connection.
pub(crate) type Driver = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

impl Started {
    /// The stream itself, in place of the driver, which sends nothing more.
    pub(crate) fn into_stream(self) -> Result<Box<dyn Io>> {
        let Self { client, driver, stream, .. } = self;
        let stream = stream();
        drop((client, driver));
        stream.ok_or_else(|| Error::unexpected("the driver keeps its stream"))
    }
}

/// Opens a connection to `database` by `deadline`, or within the configured time if that is shorter.
pub(crate) async fn connect(config: &PostgresConfig, database: &str, deadline: Option<Instant>) -> Result<Started> {
    if let Some(fault) = config.first_error() {
        return Err(Error::config(fault.message).with_code(fault.code));
    }
    let own = Clock::system().instant() + config.connect_timeout;
    let deadline = deadline.map_or(own, |deadline| deadline.min(own));
    match &config.host {
        Host::Tcp(host) => connect_tcp(config, host, database, deadline).await,
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

async fn connect_tcp(config: &PostgresConfig, host: &str, database: &str, deadline: Instant) -> Result<Started> {
    let resolve = tokio::net::lookup_host((host, config.port));
    let addresses = by(deadline, config, Phase::Dns, resolve).await?;
    let addresses: Vec<SocketAddr> =
        addresses.map_err(|source| PostgresError::Resolve(config.endpoint(), source))?.collect();
    let stream = by(deadline, config, Phase::Connect, connect_any(&addresses)).await?;
    let stream = stream.map_err(|source| PostgresError::Connect(config.endpoint(), source))?;
    match config.tls {
        TlsMode::Disable => start(config, database, deadline, stream, (NoTls, SslMode::Disable)).await,
        TlsMode::Prefer => {
            let tls = connector::<Shared<TcpStream>>(config, host)?;
            start(config, database, deadline, stream, (tls, SslMode::Prefer)).await
        }
        TlsMode::Require | TlsMode::VerifyFull => {
            let tls = connector::<Shared<TcpStream>>(config, host)?;
            start(config, database, deadline, stream, (tls, SslMode::Require)).await
        }
    }
}

/// Asks the server to end the statement that `token`'s session runs, over a connection of its own.
pub(crate) async fn cancel(config: &PostgresConfig, token: &CancelToken) -> Result<()> {
    let unsent = |source| PostgresError::Connect(config.endpoint(), source);
    match &config.host {
        Host::Tcp(host) => {
            let addresses = tokio::net::lookup_host((host.as_str(), config.port)).await.map_err(unsent)?;
            let stream = connect_any(&addresses.collect::<Vec<_>>()).await.map_err(unsent)?;
            match config.tls {
                TlsMode::Disable => token.cancel_query_raw(stream, NoTls).await.query(),
                _ => token.cancel_query_raw(stream, connector::<TcpStream>(config, host)?).await.query(),
            }
        }
        #[cfg(unix)]
        Host::Unix(_) => {
            let stream = UnixStream::connect(config.socket_path()).await.map_err(unsent)?;
            token.cancel_query_raw(stream, NoTls).await.query()
        }
        #[cfg(not(unix))]
        Host::Unix(_) => Err(Error::config("this system has no Unix sockets")),
    }
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
) -> Result<Started>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    T: TlsConnect<Shared<S>>,
    T::Stream: Send + Sync + 'static,
    T::Future: Send + 'static,
{
    let mut driver = tokio_postgres::Config::new();
    driver.user(&config.user).dbname(database).application_name(APPLICATION_NAME).ssl_mode(mode);
    if let Some(password) = &config.password {
        driver.password(password.expose());
    }
    let began = Arc::new(AtomicBool::new(false));
    let (plain, encrypted) = (Shared::new(stream), Shared::empty());
    let noted = Noted { inner: tls, began: began.clone(), stream: encrypted.clone() };
    let (client, connection) =
        by(deadline, config, Phase::Auth, driver.connect_raw(plain.clone(), noted)).await?.map_err(|source| {
            let tls_refused = mode == SslMode::Require && !began.load(Ordering::Relaxed);
            let known = Handshake { tls_refused, has_password: config.password.is_some() };
            PostgresError::Handshake(config.endpoint(), known, source)
        })?;
    let major = connection.parameter("server_version").and_then(major);
    let stream = move || -> Option<Box<dyn Io>> {
        match encrypted.take() {
            Some(stream) => Some(Box::new(stream)),
            None => plain.take().map(|stream| Box::new(stream) as Box<dyn Io>),
        }
    };
    Ok(Started { client, driver: Box::pin(connection), major, stream: Box::new(stream) })
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
