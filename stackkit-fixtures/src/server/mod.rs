//! What the servers have in common: a private directory, a process, a watchdog, and where binaries are found.

#[cfg(any(feature = "postgres", feature = "redis"))]
mod binaries;
mod dir;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod port;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod process;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod ready;

#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) use binaries::find_server;
pub(crate) use dir::{PrivateDir, QuickEnd};
#[cfg(feature = "postgres")]
pub(crate) use dir::{belongs_to, copy_tree};
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) use port::{PORT_TRIES, free_port, port_was_taken};
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) use process::{Launch, ServerProcess, Signal};
