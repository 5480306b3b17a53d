//! The routes over a monitor whose services are scripted; requests go straight into the router.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as the test does")]

mod details;
mod golden;
#[cfg(feature = "grpc")]
mod grpc;
mod health;
mod metrics;
mod probes;
mod script;
mod status;
