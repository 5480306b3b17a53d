//! TCP ports that the kernel chooses.

use std::net::{Ipv4Addr, TcpListener};

use stackkit_core::{Error, ErrorKind, Result};

/// How often a server is started anew because its port was taken meanwhile.
pub(crate) const PORT_TRIES: u32 = 5;

/// A port that was free a moment ago. Somebody else may take it before the server does: see [`port_was_taken`].
pub(crate) fn free_port() -> Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|error| Error::io("find a free port", error))
}

/// Whether a server ended at its start because another process holds the port. Servers say so in their log only.
pub(crate) fn port_was_taken(error: &Error) -> bool {
    error.kind() == ErrorKind::ToolFailed && error.chain().to_string().to_lowercase().contains("already in use")
}
