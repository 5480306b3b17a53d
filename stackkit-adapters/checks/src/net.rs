//! Name and address: the only file that opens connections.

use std::future::Future;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use stackkit_core::{Clock, Phase};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::error::CheckError;

/// A host and port, with at most one look-up of the name in flight.
///
/// The system's resolver can't be cancelled: while one hangs, later probes say so instead of taking more threads.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    lookup: Arc<Semaphore>,
}

impl Address {
    /// Brackets around an IPv6 address are taken off.
    pub(crate) fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Self { host: bare.to_owned(), port, lookup: Arc::new(Semaphore::new(1)) }
    }

    /// Opens a connection until `deadline`: each address gets an equal share of the time that is left, so one that swallows
    /// everything does not hide the next.
    ///
    /// Cancel safe: dropping the future closes what was opened.
    pub(crate) async fn connect(&self, deadline: Instant, clock: &Clock) -> Result<TcpStream, CheckError> {
        let addresses = within(deadline, Phase::Dns, self.resolve()).await??;
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let mut last = CheckError::NoAddress;
        for address in addresses {
            let now = clock.instant();
            let until = now + deadline.saturating_duration_since(now) / left.max(1);
            left = left.saturating_sub(1);
            match within(until, Phase::Connect, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = CheckError::connect(error),
                Err(elapsed) => last = elapsed,
            }
        }
        Err(last)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, CheckError> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let Ok(permit) = Arc::clone(&self.lookup).try_acquire_owned() else { return Err(CheckError::ResolverStuck) };
        let place = (self.host.clone(), self.port);
        let found = tokio::task::spawn_blocking(move || {
            let found = place.to_socket_addrs().map(Vec::from_iter);
            drop(permit);
            found
        });
        let found = found.await.map_err(|error| CheckError::Looker(Some(std::io::Error::other(error))))?;
        found.map_err(CheckError::Resolve)
    }
}

/// `work`, or the phase in which the time ran out.
pub(crate) async fn within<T>(deadline: Instant, phase: Phase, work: impl Future<Output = T>) -> Result<T, CheckError> {
    timeout_at(deadline, work).await.map_err(|_elapsed| CheckError::Deadline(phase))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_look_up_that_hangs_is_not_joined_by_a_second() {
        let address = Address::new("localhost", 1);
        let hanging = Arc::clone(&address.lookup).try_acquire_owned().unwrap();
        let clock = Clock::system();
        let found = address.connect(clock.deadline(Duration::from_secs(5)), &clock).await;
        assert!(matches!(found, Err(CheckError::ResolverStuck)), "{found:?}");
        drop(hanging);
        let found = address.connect(clock.deadline(Duration::from_secs(5)), &clock).await;
        assert!(matches!(found, Err(CheckError::Connect(_))), "{found:?}");
    }
}
