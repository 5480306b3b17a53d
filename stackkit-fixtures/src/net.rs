//! Addresses at which nothing good happens, and waiting for a condition.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stackkit_core::{Clock, Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// How often a condition is looked at while waiting for it.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Waits until `condition` gives something.
///
/// # Errors
/// `Timeout`, naming `what`, after `limit`.
///
/// # Cancel safety
/// Cancel safe as far as the condition is.
pub async fn wait_until<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Clock::system().instant() + limit;
    loop {
        if let Some(found) = condition().await {
            return Ok(found);
        }
        if Clock::system().instant() >= deadline {
            let error = Error::new(ErrorKind::Timeout, format!("waited in vain until {what}"));
            return Err(error.with_context("limit_ms", limit.as_millis()));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// An address of this machine at which connections are refused.
///
/// A listener without a backlog would do too, but the kernel then drops instead of refusing; so a port is bound,
/// never listened on, and kept bound as long as the value lives.
#[derive(Debug)]
pub struct RefusedPort {
    address: SocketAddr,
    _socket: tokio::net::TcpSocket,
}

impl RefusedPort {
    /// Takes a port that the kernel chooses.
    ///
    /// # Errors
    /// `Io`.
    pub fn bind() -> Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4().map_err(|error| Error::io("open a socket", error))?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(|error| Error::io("bind a port", error))?;
        let address = socket.local_addr().map_err(|error| Error::io("bind a port", error))?;
        Ok(Self { address, _socket: socket })
    }

    /// Where nothing listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A server that accepts every connection, reads what comes, and never answers.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stackkit_core::Result<()> {
/// let black_hole = stackkit_fixtures::BlackHole::open().await?;
/// let stream = tokio::net::TcpStream::connect(black_hole.address()).await.unwrap();
/// stackkit_fixtures::wait_until("it accepts", std::time::Duration::from_secs(5), async || {
///     (black_hole.accepted() == 1).then_some(())
/// }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BlackHole {
    address: SocketAddr,
    counters: Arc<Counters>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl BlackHole {
    /// Listens on a port of 127.0.0.1 that the kernel chooses.
    ///
    /// # Errors
    /// `Io`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| Error::io("listen", error))?;
        let address = listener.local_addr().map_err(|error| Error::io("listen", error))?;
        let counters = Arc::new(Counters::default());
        let task = AbortOnDropHandle::new(tokio::spawn(swallow(listener, Arc::clone(&counters))));
        Ok(Self { address, counters, _task: task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.counters.accepted.load(Ordering::SeqCst)
    }

    /// How many of them the other side still holds open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.counters.open.load(Ordering::SeqCst)
    }
}

async fn swallow(listener: TcpListener, counters: Arc<Counters>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _peer)) = listener.accept() => {
                counters.accepted.fetch_add(1, Ordering::SeqCst);
                counters.open.fetch_add(1, Ordering::SeqCst);
                connections.spawn(read_to_end(stream, Arc::clone(&counters)));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn read_to_end(mut stream: TcpStream, counters: Arc<Counters>) {
    let mut buffer = [0; 1024];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
    counters.open.fetch_sub(1, Ordering::SeqCst);
}
