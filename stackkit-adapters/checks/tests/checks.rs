//! The checks, run against real listeners, processes and directories.

#[path = "checks/exec.rs"]
mod exec;
#[path = "checks/local.rs"]
mod local;
#[path = "checks/support.rs"]
mod support;
#[path = "checks/tcp.rs"]
mod tcp;
