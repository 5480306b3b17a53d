#![doc = include_str!("../README.md")]

mod census;
mod client;
mod config;
mod dump;
mod error;
mod inventory;
mod metrics;
mod posture;
mod probe;
mod provider;
pub mod rdb;
mod rehearsal;
mod replay;
mod resp;
mod restore;
mod sample;
mod service;
mod source;

pub use config::{
    COMMAND_TIMEOUT_DEFAULT, CONNECT_TIMEOUT_DEFAULT, PORT_DEFAULT, PREFIX_SEPARATORS_DEFAULT, RedisConfig,
    SAMPLE_KEYS_DEFAULT, STALL_TIMEOUT_DEFAULT, SYNC_TIMEOUT_DEFAULT,
};
pub use service::Redis;
