//! The smallest HTTP client that can ask for `/readyz`.

use std::net::SocketAddr;
use std::time::Duration;

use stackkit::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How often a status is asked for while it is waited for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long a status is waited for: the monitor's interval and deadline, with room for a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The status of `GET path`.
pub(crate) async fn status(server: SocketAddr, path: &str) -> Result<u16> {
    let io = |error| Error::io("ask for a status", error);
    let mut stream = TcpStream::connect(server).await.map_err(io)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.map_err(io)?;
    let status = response.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.ok_or_else(|| Error::unexpected("the answer has no status"))
}

/// Waits until `GET path` answers `wanted`, and says how long that took.
pub(crate) async fn until(server: SocketAddr, path: &str, wanted: u16) -> Result<Duration> {
    let clock = stackkit::Clock::system();
    let started = clock.instant();
    let mut tick = interval(ASK_EVERY);
    let asked = async {
        while status(server, path).await? != wanted {
            tick.tick().await;
        }
        Ok(clock.instant() - started)
    };
    let late = || Error::new(ErrorKind::Timeout, format!("{path} did not turn to {wanted} in {WAIT_MAX:?}"));
    timeout(WAIT_MAX, asked).await.unwrap_or_else(|_elapsed| Err(late()))
}

/// Serves the router of `monitor` on a port that the kernel chooses; the server ends with the handle.
pub(crate) async fn serve(monitor: &stackkit::Monitor) -> Result<(AbortOnDropHandle<()>, SocketAddr)> {
    let io = |error| Error::io("serve health", error);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
    let address = listener.local_addr().map_err(io)?;
    let router = stackkit::http::router(monitor);
    let serving = async move {
        if let Err(error) = axum::serve(listener, router).await {
            eprintln!("the health server ended: {error}");
        }
    };
    Ok((AbortOnDropHandle::new(tokio::spawn(serving)), address))
}
