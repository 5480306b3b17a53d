//! The checks, run against real listeners, processes and directories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed assumption fails the case")]

#[path = "checks/exec.rs"]
mod exec;
#[cfg(feature = "http")]
#[path = "checks/http.rs"]
mod http;
#[cfg(feature = "http")]
#[path = "checks/http_faults.rs"]
mod http_faults;
#[cfg(feature = "http")]
#[path = "checks/http_redirects.rs"]
mod http_redirects;
#[cfg(feature = "http")]
#[path = "checks/http_tls.rs"]
mod http_tls;
#[path = "checks/local.rs"]
mod local;
#[cfg(feature = "http")]
#[path = "checks/server.rs"]
mod server;
#[path = "checks/support.rs"]
mod support;
#[path = "checks/tcp.rs"]
mod tcp;
#[cfg(feature = "http")]
#[path = "checks/webhook.rs"]
mod webhook;
