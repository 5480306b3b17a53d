#![doc = include_str!("../README.md")]

pub mod conformance;
mod memory;
#[cfg(feature = "minio")]
mod minio;
mod net;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod require;
mod scratch;
#[cfg_attr(
    not(all(feature = "postgres", feature = "redis", feature = "volume", feature = "minio")),
    allow(dead_code, unused_imports, reason = "each store uses a part of it")
)]
mod server;
#[cfg(feature = "volume")]
mod volume;

pub use memory::MemoryStore;
#[cfg(feature = "minio")]
pub use minio::{BucketKind, MinioServer, find_minio, minio, minio_server};
pub use net::{BlackHole, RefusedPort, wait_until};
#[cfg(feature = "postgres")]
pub use postgres::{
    PgBouncer, PoolMode, PostgresFixture, PostgresOptions, PostgresServer, find_postgres, pgbouncer, postgres,
    postgres_kind, postgres_server, postgres_server_on,
};
#[cfg(feature = "redis")]
pub use redis::{RedisFixture, RedisOptions, RedisReply, redis, redis_with};
pub use require::{REQUIRE, is_required};
pub use scratch::{Scratch, scratch};
#[cfg(feature = "volume")]
pub use volume::{VolumeFixture, volume};
