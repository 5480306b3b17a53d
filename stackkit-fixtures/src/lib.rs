#![doc = include_str!("../README.md")]

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod server;

#[cfg(feature = "postgres")]
pub use postgres::{PostgresFixture, PostgresOptions, PostgresServer, postgres, postgres_server};
#[cfg(feature = "redis")]
pub use redis::{RedisFixture, RedisOptions, RedisReply, redis, redis_with};
