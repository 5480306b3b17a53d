//! SIGINT and SIGTERM.

use std::future::pending;

use stackkit::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Failure, Outcome};

/// Listens for SIGINT and SIGTERM from now on; the future ends when `count` of them have come.
///
/// # Errors
/// Usage, if the system does not let it listen.
pub(crate) fn signals(count: u32) -> Outcome<impl Future<Output = ()> + Send> {
    let failed = |error| Failure::usage(Error::io("listen for signals", error));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        for _ in 0..count {
            tokio::select! {
                Some(()) = interrupt.recv() => {}
                Some(()) = terminate.recv() => {}
                else => pending().await,
            }
        }
    })
}
