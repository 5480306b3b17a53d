#![doc = include_str!("../README.md")]

mod census;
mod client;
mod config;
mod dump;
mod error;
mod metrics;
mod probe;
mod provider;
pub mod rdb;
mod rehearsal;
mod replay;
mod resp;
mod restore;
mod service;
mod source;

pub use config::{
    COMMAND_TIMEOUT_DEFAULT, CONNECT_TIMEOUT_DEFAULT, PORT_DEFAULT, RedisConfig, STALL_TIMEOUT_DEFAULT,
    SYNC_TIMEOUT_DEFAULT,
};
pub use service::Redis;
