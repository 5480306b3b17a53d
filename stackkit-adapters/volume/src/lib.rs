#![doc = include_str!("../README.md")]

mod archive;
mod census;
mod config;
mod dump;
mod error;
mod expected;
mod metrics;
mod probe;
mod restore;
mod rules;
mod service;
mod tree;
mod trend;
mod worker;

pub use config::ENV_PATH;
pub use service::Volume;

/// What [`Service::kind`](stackkit_core::Service::kind) says of a volume.
pub const KIND: &str = "volume";
