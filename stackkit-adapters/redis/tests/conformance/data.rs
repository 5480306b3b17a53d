//! What the trials put into a server, and how they look at it.

use std::path::Path;
use std::time::Duration;

use stackkit_core::Result;
use stackkit_core::process::{Tool, find_tool, path_directories};
use stackkit_fixtures::{RedisFixture, RedisReply};

/// How long the vendor's tool may read a file of megabytes on a busy machine.
const TOOL_LIMIT: Duration = Duration::from_secs(60);

/// The vendor's own verdict on a file.
pub(crate) async fn check_rdb(file: &Path) -> Result<()> {
    Tool::new(find_tool("redis-check-rdb", &path_directories())?).arg(file).output(TOOL_LIMIT).await.map(drop)
}

/// All keys by the server's own digest, which knows neither when a key expires nor a stream's groups; the functions; a
/// stream with its groups, consumers and what is pending.
pub(crate) async fn content(redis: &RedisFixture) -> Result<String> {
    let digest = redis.command(&["DEBUG", "DIGEST"]).await?.text();
    let functions = redis.command(&["FUNCTION", "LIST", "WITHCODE"]).await?;
    let stream = match redis.command(&["EXISTS", "stream"]).await?.text().as_str() {
        "1" => redis.command(&["XINFO", "STREAM", "stream", "FULL"]).await?,
        _ => RedisReply::Nil,
    };
    Ok(format!("{digest} {functions:?} {stream:?}"))
}

/// Sends a signal, such as `-STOP`, to a server.
pub(crate) async fn signal(redis: &RedisFixture, signal: &str) -> Result<()> {
    let pid = redis.pid().expect("a server that runs").to_string();
    Tool::new(find_tool("kill", &path_directories())?).arg(signal).arg(pid).output(TOOL_LIMIT).await.map(drop)
}

fn words<A: AsRef<[u8]>>(words: &[A]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_ref().to_vec()).collect()
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

/// One number of `INFO`.
pub(crate) async fn info(redis: &RedisFixture, field: &str) -> Result<String> {
    let RedisReply::Bytes(text) = redis.command(&["INFO"]).await? else { return Ok(String::new()) };
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == field);
    Ok(value.map(|(_, value)| value.to_owned()).unwrap_or_default())
}
