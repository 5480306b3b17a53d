//! Health checks of what is no datastore: web services, workers, ports, commands, disks, processes and connection pools; and a
//! webhook for transitions.
//!
//! ```
//! use std::time::Duration;
//! use stackkit_checks::{DiskCheck, Heartbeat, HeartbeatCheck, TcpCheck};
//! use stackkit_core::health::LIVE;
//! use stackkit_core::{ServiceExt, Stack};
//!
//! let heartbeat = Heartbeat::new(); // the worker calls `heartbeat.beat()`
//! let stack = Stack::builder("shop")
//!     .service(TcpCheck::new("mail", "mail.internal", 25).with_banner("220 "))
//!     .service(HeartbeatCheck::new("worker", heartbeat.clone(), Duration::from_secs(30)).in_groups([LIVE]))
//!     .service(DiskCheck::new("disk", "/var/lib").informational())
//!     .build()?;
//! # Ok::<(), stackkit_core::Error>(())
//! ```
//!
//! Each check is a [`Service`](stackkit_core::Service) with a [`HealthCheck`](stackkit_core::HealthCheck). Making one does no
//! I/O; what is wrong with its configuration is told when the stack is built, all of it at once. [`FnCheck`] makes a check of a
//! closure.
//!
//! What this crate does *not* do: it starts and mends nothing, follows no proxies of the environment, and speaks HTTP/1.1 only.
//!
//! Features: `http` adds `HttpCheck` and `WebhookSink`, with rustls. Linux.

mod disk;
mod error;
mod exec;
mod function;
mod heartbeat;
#[cfg(feature = "http")]
mod http;
mod look;
mod name;
mod net;
mod pool;
mod process;
mod tcp;

pub use disk::DiskCheck;
pub use exec::ExecCheck;
pub use function::FnCheck;
pub use heartbeat::{Heartbeat, HeartbeatCheck};
#[cfg(feature = "http")]
pub use http::{EVENT_SCHEMA, HttpCheck, WebhookSink};
pub use pool::PoolCheck;
pub use process::ProcessCheck;
pub use tcp::TcpCheck;

/// The README's programs compile.
#[cfg(all(doctest, feature = "http"))]
#[doc = include_str!("../README.md")]
mod readme {}
