//! How the suite makes, fills, wipes and hashes a Redis.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stackkit_core::backup::ArtifactInfo;
use stackkit_core::process::{Tool, find_tool, path_directories};
use stackkit_core::{Result, Secret, Service, async_trait};
use stackkit_fixtures::conformance::{Capability, Fault, Instance, Seed, Target};
use stackkit_fixtures::{RedisFixture, RedisOptions, RedisReply, redis_with};
use stackkit_redis::Redis;

/// Holds a character that a URL must encode.
const PASSWORD: &str = "canary/p@ss-word";
/// Strings of a small seed: with their values more than 256 KiB.
const SMALL_STRINGS: u32 = 600;
const SMALL_VALUE_BYTES: usize = 512;
/// How long the vendor's tool may read a file of megabytes on a busy machine.
const TOOL_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct RedisTarget;

struct RedisInstance(RedisFixture);

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
        let options = RedisOptions::new().with_tcp().with_password(PASSWORD).with_setting("rdbcompression", "no");
        // The future of a starting server is not `Send`; a thread may wait for it all the same.
        let runtime = tokio::runtime::Handle::current();
        let started = tokio::task::spawn_blocking(move || runtime.block_on(redis_with(options))).await;
        Ok(Box::new(RedisInstance(started.expect("the start does not panic")?)))
    }
}

#[async_trait]
impl Instance for RedisInstance {
    fn service(&self) -> Arc<dyn Service> {
        let url = self.0.tcp_url().expect("the fixture listens on TCP");
        Arc::new(Redis::from_url(&url).expect("a URL of the fixture"))
    }

    fn faulty(&self, fault: &Fault) -> Option<Arc<dyn Service>> {
        let url = match fault {
            Fault::Absent => "redis+unix:///nonexistent/redis.sock".to_owned(),
            Fault::Address(address) => format!("redis://{address}"),
            Fault::WrongPassword(wrong) => format!("redis://:{}@127.0.0.1:{}", wrong.expose(), self.0.port()?),
            _ => return None,
        };
        Some(Arc::new(Redis::from_url(&url).expect("a URL")))
    }

    fn password(&self) -> Option<Secret> {
        Some(Secret::new(PASSWORD))
    }

    async fn seed(&self, seed: Seed) -> Result<()> {
        match seed {
            Seed::Small => small(&self.0).await,
            Seed::UnicodeAndBinary => binary(&self.0).await,
            _ => Ok(()),
        }
    }

    async fn change(&self) -> Result<()> {
        self.0.command(&["SADD", "change", "more"]).await.map(drop)
    }

    async fn wipe(&self) -> Result<()> {
        self.0.command(&["FUNCTION", "FLUSH"]).await?;
        self.0.command(&["FLUSHALL"]).await.map(drop)
    }

    async fn content(&self) -> Result<String> {
        content(&self.0).await
    }

    async fn held(&self) -> Result<u64> {
        let list = self.0.command(&["CLIENT", "LIST"]).await?.text();
        let ours = list.lines().filter(|line| !line.contains("cmd=client|list"));
        Ok(u64::try_from(ours.count()).expect("few clients"))
    }

    async fn vendor_reads(&self, _artifact: &ArtifactInfo, file: &Path) -> Result<()> {
        check_rdb(file).await
    }
}

/// The vendor's own verdict on a file.
pub(crate) async fn check_rdb(file: &Path) -> Result<()> {
    Tool::new(find_tool("redis-check-rdb", &path_directories())?).arg(file).output(TOOL_LIMIT).await.map(drop)
}

/// The digest of all keys with their expiries, and the functions.
pub(crate) async fn content(redis: &RedisFixture) -> Result<String> {
    let digest = redis.command(&["DEBUG", "DIGEST"]).await?.text();
    let functions = redis.command(&["FUNCTION", "LIST", "WITHCODE"]).await?;
    Ok(format!("{digest} {functions:?}"))
}

fn words<A: AsRef<[u8]>>(words: &[A]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_ref().to_vec()).collect()
}

async fn small(redis: &RedisFixture) -> Result<()> {
    every_type(redis).await?;
    let value = |number: u32| format!("{number:08}").repeat(SMALL_VALUE_BYTES / 8);
    let strings = (0..SMALL_STRINGS).map(|number| words(&["SET", &format!("string:{number}"), &value(number)]));
    redis.pipeline(strings).await
}

/// Each encoding of each type in several databases, functions, expiries.
pub(crate) async fn every_type(redis: &RedisFixture) -> Result<()> {
    let long = "x".repeat(3000);
    let mut commands = vec![
        words(&["SET", "int8", "-7"]),
        words(&["SET", "int16", "12345"]),
        words(&["SET", "int32", "-2000000000"]),
        words(&["SET", "int64", "9000000000000000000"]),
        words(&["SET", "float", "3.0e100"]),
        words(&["SET", "12345", "a key that is stored as a number"]),
        words(&["SET", &long, &long]),
        words(&["SETBIT", "bits", "100000", "1"]),
        words(&["PFADD", "hll", "a", "b", "c"]),
        words(&["SET", "later", "v", "PXAT", "4102444800123"]),
        words(&["HSET", "hash:small", "f", "v", "n", "1"]),
        words(&["ZADD", "zset:small", "1.5", "a", "-inf", "b", "inf", "c"]),
        words(&["SADD", "set:ints", "1", "2", "70000", "9000000000000000000"]),
        words(&["SADD", "set:small", "a", "b", "1"]),
        words(&["RPUSH", "list:small", "a", "1", "-5000"]),
        words(&["GEOADD", "geo", "13.361389", "38.115556", "Palermo"]),
        words(&["XADD", "stream", "1-1", "f", "v", "g", "w"]),
        words(&["XADD", "stream", "1-2", "f", "v2"]),
        words(&["XADD", "stream", "2-0", "other", &long]),
        words(&["XDEL", "stream", "1-2"]),
        words(&["XGROUP", "CREATE", "stream", "group", "0"]),
        words(&["XGROUP", "CREATE", "stream", "idle", "$"]),
        words(&["XREADGROUP", "GROUP", "group", "consumer", "COUNT", "1", "STREAMS", "stream", ">"]),
        words(&["XREADGROUP", "GROUP", "group", "other", "STREAMS", "stream", ">"]),
        words(&["XGROUP", "CREATECONSUMER", "stream", "group", "waiting"]),
        words(&["XADD", "stream:empty", "5-5", "f", "v"]),
        words(&["XTRIM", "stream:empty", "MAXLEN", "0"]),
        words(&["PEXPIREAT", "stream:empty", "4102444800456"]),
        words(&["FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)"]),
    ];
    for number in 0..600 {
        let member = format!("member:{number}");
        commands.push(words(&["HSET", "hash:big", &member, &number.to_string()]));
        commands.push(words(&["ZADD", "zset:big", &format!("{number}.25"), &member]));
        commands.push(words(&["SADD", "set:big", &member]));
        commands.push(words(&["RPUSH", "list:big", &member, &long]));
    }
    commands.push(words(&["RPUSH", "list:plain", &"y".repeat(20_000)]));
    for database in ["3", "15"] {
        commands.push(words(&["SELECT", database]));
        commands.push(words(&["SET", "same", database]));
        commands.push(words(&["HSET", "hash", "in", database]));
    }
    redis.pipeline(commands).await
}

async fn binary(redis: &RedisFixture) -> Result<()> {
    let mut commands = vec![
        words(&["SET", "", ""]),
        words(&["SET", "größe\u{1F980}", "Ünïcödé \u{10FFFF}"]),
        words(&["HSET", "hash", "", ""]),
        words(&["SADD", "set", ""]),
    ];
    for byte in 0..=255_u8 {
        let bytes = [byte, 0, b'\r', b'\n', byte];
        commands.push(vec![b"SET".to_vec(), bytes.to_vec(), bytes.repeat(1 + usize::from(byte))]);
        commands.push(vec![b"RPUSH".to_vec(), b"list\0".to_vec(), bytes.to_vec()]);
        commands.push(vec![b"HSET".to_vec(), b"\xff\xfe".to_vec(), bytes.to_vec(), bytes.to_vec()]);
    }
    redis.pipeline(commands).await
}

/// One number of `INFO`.
pub(crate) async fn info(redis: &RedisFixture, field: &str) -> Result<String> {
    let RedisReply::Bytes(text) = redis.command(&["INFO"]).await? else { return Ok(String::new()) };
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == field);
    Ok(value.map(|(_, value)| value.to_owned()).unwrap_or_default())
}
