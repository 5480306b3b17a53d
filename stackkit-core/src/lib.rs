//! The contracts and the machinery that every part of stackkit shares.
//!
//! A [`Stack`] is a list of [`Service`]s. A service that can be probed is a [`HealthCheck`]; one that can be dumped
//! and restored is a [`BackupProvider`]. A [`Monitor`] probes a stack in the background and
//! serves the latest [`Report`] without I/O.
//!
//! ```
//! use stackkit_core::{Endpoint, HealthCheck, Observation, ProbeContext, Result, Service, ServiceId, Stack};
//!
//! #[derive(Debug)]
//! struct Search { id: ServiceId }
//!
//! impl Service for Search {
//!     fn id(&self) -> &ServiceId { &self.id }
//!     fn kind(&self) -> &'static str { "search" }
//!     fn endpoint(&self) -> Endpoint { Endpoint::new("http", "127.0.0.1", 7700) }
//!     fn health_check(&self) -> Option<&dyn HealthCheck> { Some(self) }
//! }
//!
//! #[stackkit_core::async_trait]
//! impl HealthCheck for Search {
//!     async fn probe(&self, _cx: &ProbeContext) -> Result<Observation> {
//!         Ok(Observation::new().gauge("index_documents_count", 3.0).info("version", "1.2"))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let stack = Stack::builder("shop").service(Search { id: ServiceId::new("search")? }).build()?;
//! let report = stack.check_now(&[]).await;
//! assert!(report.ready);
//! # Ok(())
//! # }
//! ```
//!
//! What this crate does *not* do: it knows no driver, no HTTP framework and no cloud. Those are the adapters',
//! `stackkit-http`'s and `stackkit-backup`'s.
//!
//! Features: `tls` adds the module `tls` (rustls with the ring provider) for adapters.

pub mod backup;
mod clock;
mod error;
mod graph;
pub mod health;
pub mod process;
mod secret;
mod service;
mod stack;
#[cfg(feature = "tls")]
pub mod tls;

pub use async_trait::async_trait;
pub use backup::{BackupProvider, Census, Dump};
pub use clock::Clock;
pub use error::{BoxError, Chain, Error, ErrorKind, OneLine, Phase, Result, RetryClass};
pub use health::{HealthCheck, Intervals, Monitor, Observation, ProbeContext, Report};
pub use secret::{REDACTED, Secret, Weakness};
pub use service::{ConfigFault, Endpoint, FaultSeverity, SERVICE_ID_BYTES_MAX, Service, ServiceId};
pub use stack::{Criticality, ServiceExt, Stack, StackBuilder, StackEntry};
