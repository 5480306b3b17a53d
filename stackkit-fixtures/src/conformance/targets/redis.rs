//! Redis.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use stackkit_core::backup::ArtifactInfo;
use stackkit_core::process::Tool;
use stackkit_core::{Result, Secret, Service};
use stackkit_redis::{Redis, RedisConfig};

use crate::conformance::target::{Capability, Fault, Instance, Seed, Target};
use crate::conformance::targets::{LARGE_VALUE_BYTES, UNICODE, VENDOR_TOOL_TIMEOUT, pattern};
use crate::net::RefusedPort;
use crate::redis::{RedisFixture, RedisOptions, redis_with};

const PASSWORD: &str = "canary-of-the-redis-suite";
/// A time to live that no test outlives: 2100-01-01, in milliseconds.
const EXPIRES_AT_MS: &str = "4102444800000";
/// A function library, which RDB files carry beside the keys.
const FUNCTIONS: &str = "#!lua name=suite\nredis.register_function('suite_one', function() return 1 end)";

/// The Redis adapter as a target: a private server each, with a password.
#[must_use]
pub fn redis() -> impl Target {
    RedisTarget
}

struct RedisTarget;

#[async_trait]
impl Target for RedisTarget {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Vec<Capability> {
        use Capability::{Backup, Checksum, Health, Network, Password, VendorTool};
        vec![Health, Backup, Network, Password, VendorTool, Checksum]
    }

    async fn instance(&self) -> Result<Box<dyn Instance>> {
        let server = redis_with(RedisOptions::new().with_tcp().with_password(PASSWORD)).await?;
        Ok(Box::new(RedisInstance { server, absent: RefusedPort::bind()? }))
    }
}

struct RedisInstance {
    server: RedisFixture,
    absent: RefusedPort,
}

impl RedisInstance {
    fn handle(&self, port: u16, password: Secret) -> Arc<dyn Service> {
        Arc::new(Redis::new(RedisConfig::new("127.0.0.1", port).with_password(password)))
    }

    /// Every type, in its small and its large encoding; two databases; a time to live; a function.
    async fn seed_small(&self) -> Result<()> {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut commands: Vec<Vec<String>> = [
            "SET integer 12345",
            "SET text hello",
            "RPUSH list a b c",
            "SADD integers 1 2 3",
            "SADD set a b c",
            "HSET hash f v g w",
            "ZADD sorted 1 a 2.5 b -inf c",
            "XADD stream 1-1 f v",
            "XADD stream 2-1 f w",
            "XGROUP CREATE stream group 0",
            "XREADGROUP GROUP group consumer COUNT 1 STREAMS stream >",
            "PFADD hyperloglog a b c",
            "SETBIT bits 1000 1",
            "GEOADD places 13.361389 38.115556 Palermo",
        ]
        .map(words)
        .to_vec();
        commands.push(words(&format!("SET expiring soon PXAT {EXPIRES_AT_MS}")));
        for number in 0..600 {
            commands.push(words(&format!("RPUSH large-list {number}")));
            commands.push(words(&format!("SADD large-set member-{number}")));
            commands.push(words(&format!("HSET large-hash field-{number} {number}")));
            commands.push(words(&format!("ZADD large-sorted {number} member-{number}")));
        }
        commands.extend([words("SELECT 3"), words("SET elsewhere here")]);
        self.server.pipeline(commands).await?;
        self.server.command(&[b"SET".as_slice(), b"large", &pattern(LARGE_VALUE_BYTES)]).await?;
        self.server.command(&["FUNCTION", "LOAD", FUNCTIONS]).await.map(drop)
    }

    async fn seed_unicode(&self) -> Result<()> {
        let mut commands: Vec<Vec<Vec<u8>>> = Vec::new();
        for text in UNICODE {
            commands.push(vec![b"SET".to_vec(), text.into(), text.into()]);
            commands.push(vec![b"HSET".to_vec(), b"hash".to_vec(), text.into(), text.into()]);
        }
        commands.push(vec![b"SET".to_vec(), vec![0, 0xFF, b'\r', b'\n'], vec![0xFE, 0]]);
        commands.push(vec![b"SET".to_vec(), Vec::new(), Vec::new()]);
        self.server.pipeline(commands).await
    }
}

#[async_trait]
impl Instance for RedisInstance {
    fn service(&self) -> Arc<dyn Service> {
        // A server without its port was not asked for one, and this one was.
        self.handle(self.server.port().unwrap_or(0), Secret::new(PASSWORD))
    }

    fn faulty(&self, fault: &Fault) -> Option<Arc<dyn Service>> {
        Some(match fault {
            Fault::Absent => self.handle(self.absent.address().port(), Secret::new(PASSWORD)),
            Fault::WrongPassword(wrong) => self.handle(self.server.port()?, wrong.clone()),
            Fault::Address(address) => self.handle(address.port(), Secret::new(PASSWORD)),
        })
    }

    fn password(&self) -> Option<Secret> {
        Some(Secret::new(PASSWORD))
    }

    async fn seed(&self, seed: Seed) -> Result<()> {
        match seed {
            Seed::Empty => Ok(()),
            Seed::Small => self.seed_small().await,
            Seed::UnicodeAndBinary => self.seed_unicode().await,
        }
    }

    async fn change(&self) -> Result<()> {
        let key = format!("change {}", fastrand::u64(..));
        self.server.command(&["SET", &key, "changed"]).await.map(drop)
    }

    async fn wipe(&self) -> Result<()> {
        self.server.command(&["FUNCTION", "FLUSH"]).await?;
        self.server.command(&["FLUSHALL"]).await.map(drop)
    }

    async fn content(&self) -> Result<String> {
        let keys = self.server.command(&["DEBUG", "DIGEST"]).await?.text();
        // The digest knows that a key expires, not when.
        let expires_at = self.server.command(&["PEXPIRETIME", "expiring"]).await?.text();
        let functions = self.server.command(&["FUNCTION", "LIST", "WITHCODE"]).await?;
        Ok(format!("{keys} {expires_at} {functions:?}"))
    }

    async fn held(&self) -> Result<u64> {
        let clients = self.server.command(&["CLIENT", "LIST"]).await?.text();
        // One of them asks.
        Ok(u64::try_from(clients.lines().count()).unwrap_or(u64::MAX).saturating_sub(1))
    }

    async fn vendor_reads(&self, _artifact: &ArtifactInfo, file: &Path) -> Result<()> {
        let tool = Tool::new(self.server.bin_dir().join("redis-check-rdb")).arg(file);
        tool.output(VENDOR_TOOL_TIMEOUT).await.map(drop)
    }
}
