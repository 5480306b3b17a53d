//! Health checks, native backups and test fixtures for the datastores of a stack.
//!
//! ```no_run
//! # #[cfg(all(feature = "postgres", feature = "redis", feature = "volume"))]
//! # async fn run() -> stackkit::Result<()> {
//! use stackkit::{Monitor, Postgres, Redis, ServiceExt, Stack, Volume};
//!
//! let stack = Stack::builder("shop")
//!     .service(Postgres::from_env()?)
//!     .service(Redis::from_url("redis://127.0.0.1:6379")?.with_id("cache").optional())
//!     .service(Volume::new("uploads", "/srv/shop/uploads"))
//!     .build()?;
//! let monitor = Monitor::start(&stack);
//! let report = monitor.wait_ready(std::time::Duration::from_secs(30)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Stack`] is a list of [`Service`]s. A [`Monitor`] probes it in the background and serves the latest [`Report`]
//! without I/O; [`http`] puts that report on an axum router. A [`Repository`] keeps backups of the whole stack: the
//! dumps of all its datastores, in their vendors' own formats, encrypted to a [`Recipient`], and a manifest that a
//! [`SigningKey`] signed; a [`Retention`] says which of them stay.
//!
//! This crate is a facade: it re-exports the others and adds [`service`], which builds an adapter from a URL. Nothing
//! is on by default:
//!
//! | feature | brings | heaviest dependency |
//! |---|---|---|
//! | `postgres` | [`Postgres`] | `tokio-postgres` |
//! | `redis` | [`Redis`] | `tokio-rustls` |
//! | `volume` | [`Volume`] | `rustix` |
//! | `checks` | [`checks`]: ports, programs, heartbeats, disks, processes, pools | `rustix` |
//! | `checks-http` | `checks::HttpCheck`, `checks::WebhookSink` | `hyper` |
//! | `backup` | [`backup::Repository`] | `object_store`, `zstd` |
//! | `backup-s3` | repositories in S3 buckets | `reqwest` |
//! | `http` | [`http::router`] | `axum` |
//! | `grpc` | the gRPC health service | `tonic` |
//! | `full` | all of them | |
//!
//! What it does *not* do: it starts and stops no services, and it is no daemon. Test fixtures are a crate of their own,
//! `stackkit-fixtures`, because only tests need them.

mod from_url;

pub use from_url::{service, service_with_id};
pub use stackkit_core::{
    BackupProvider, BoxError, Census, Chain, Clock, ConfigFault, Criticality, Dump, Endpoint, Error, ErrorKind,
    FaultSeverity, HealthCheck, Intervals, Monitor, Observation, OneLine, Phase, ProbeContext, Report, Result,
    RetryClass, Secret, Service, ServiceExt, ServiceId, Stack, StackBuilder, StackEntry, async_trait, health, process,
};

/// Backups: the contracts of [`stackkit_core::backup`], and with the feature `backup` the engine.
pub mod backup {
    #[cfg(feature = "backup")]
    pub use stackkit_backup::*;
    pub use stackkit_core::backup::*;
}

#[cfg(feature = "backup")]
pub use backup::{
    BackupFreshness, Identity, Recipient, Repository, RepositoryOptions, RestoreOptions, Retention, SigningKey,
    TrustedKey, VerifyLevel,
};
#[cfg(feature = "checks")]
#[doc(inline)]
pub use stackkit_checks as checks;
#[cfg(feature = "http")]
pub use stackkit_http as http;
#[cfg(feature = "postgres")]
pub use stackkit_postgres::{self as postgres, Postgres, PostgresConfig};
#[cfg(feature = "redis")]
pub use stackkit_redis::{self as redis, Redis, RedisConfig};
#[cfg(feature = "volume")]
pub use stackkit_volume::{self as volume, Volume};

/// The README's programs compile.
#[cfg(all(
    doctest,
    feature = "postgres",
    feature = "redis",
    feature = "volume",
    feature = "checks-http",
    feature = "backup",
    feature = "http"
))]
#[doc = include_str!("../README.md")]
mod readme {}
