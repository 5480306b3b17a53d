#![doc = include_str!("../README.md")]

mod archive;
mod census;
mod client;
mod config;
mod dump;
mod error;
mod inspect;
mod metrics;
mod plan;
mod posture;
mod prepared;
mod probe;
mod provider;
mod restore;
mod service;
mod source;
mod sql;
mod swap;
mod target;
mod tls;
mod toc;
mod tools;

pub use config::{
    CONNECT_TIMEOUT_DEFAULT, IDENTIFIER_BYTES_MAX, LOCK_TIMEOUT_DEFAULT, PORT_DEFAULT, PostgresConfig, TlsMode,
};
pub use service::Postgres;
