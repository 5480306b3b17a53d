//! What the servers have in common: a private directory, a process, a watchdog, and where binaries are found.

mod binaries;
mod dir;
mod port;
mod process;
mod ready;
mod url;

pub(crate) use binaries::{built, built_for_all, find_built, find_server};
pub(crate) use dir::{PrivateDir, QuickEnd, belongs_to, copy_tree};
pub(crate) use port::{PORT_TRIES, free_port, port_was_taken};
pub(crate) use process::{Launch, ServerProcess, Signal, tool_in};
pub(crate) use url::percent_encode;
