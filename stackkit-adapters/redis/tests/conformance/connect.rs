//! Users, TLS, loading, a full house.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use stackkit_core::backup::TargetState;
use stackkit_core::health::{Thresholds, Tier};
use stackkit_core::{ErrorKind, Phase, Service};
use stackkit_fixtures::conformance::{Outcome, check, dump, probe, refused, restore, same, trial};
use stackkit_fixtures::{RedisOptions, redis, redis_with, wait_until};
use stackkit_redis::{Redis, RedisConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::data::{content, every_type};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("redis::acl_user_needs_only_the_documented_rights", "redis", acl_user),
        trial("redis::a_user_who_lacks_a_right_to_restore_removes_nothing", "redis", user_lacks_a_right),
        trial("redis::a_user_without_psync_is_told_what_is_needed", "redis", user_without_psync),
        trial("redis::tls_is_verified", "redis", tls),
        trial("redis::unix_socket", "redis", unix_socket),
        trial("redis::loading_is_starting", "redis", loading),
        trial("redis::no_room_is_saturated", "redis", saturated),
        trial("redis::a_server_that_returns_is_seen_at_once", "redis", returns),
    ]
}

fn service(config: RedisConfig) -> Arc<dyn Service> {
    Arc::new(Redis::new(config))
}

const PROBE_RULES: &str = "+ping +info";
const BACKUP_RULES: &str = "+ping +info +psync +replconf";
const RESTORE_RULES: &str =
    "~* +info +select +scan +type +dbsize +flushall +restore +time +function|load +function|flush";

async fn acl_user() -> Outcome {
    let roles = [("prober", PROBE_RULES), ("backup", BACKUP_RULES), ("restore", RESTORE_RULES)];
    let options = roles
        .into_iter()
        .fold(RedisOptions::new(), |options, (name, rules)| options.with_user(name, "a-long/p@ssword", rules));
    let redis = redis_with(options).await?;
    every_type(&redis).await?;
    let user = |name| service(RedisConfig::unix(redis.socket()).with_username(name).with_password("a-long/p@ssword"));
    probe(&user("prober"), Tier::Vitals).await?;
    let dumped = dump(&user("backup")).await?;
    same("warnings", &Vec::<String>::new(), &dumped.report.warnings)?;
    let report = restore(&user("restore"), &dumped).await?;
    same("census", &dumped.report.census, &report.census)?;
    let wrong = RedisConfig::unix(redis.socket()).with_username("prober").with_password("another-password");
    let error = refused("a wrong password", &[ErrorKind::Unauthenticated], probe(&service(wrong), Tier::Ping).await)?;
    same("code", &Some("WRONGPASS"), &error.code())?;
    same("phase", &Some(Phase::Auth), &error.phase())
}

/// Each right that a restore needs is missing once: all of them are asked for before the first key is removed.
async fn user_lacks_a_right() -> Outcome {
    let needed = ["restore", "flushall", "time", "scan", "type", "dbsize", "select", "function|load", "function|flush"];
    let lacking = needed.map(|right| (right, format!("~* +@all -{right}")));
    let keys = ("~*", "~app:* +@all".to_owned());
    for (right, rules) in lacking.into_iter().chain([keys]) {
        let redis = redis_with(RedisOptions::new().with_user("restore", "a-long/p@ssword", &rules)).await?;
        every_type(&redis).await?;
        let dumped = dump(&service(RedisConfig::unix(redis.socket()))).await?;
        let before = content(&redis).await?;
        let user = RedisConfig::unix(redis.socket()).with_username("restore").with_password("a-long/p@ssword");
        let error = refused(right, &[ErrorKind::PermissionDenied], restore(&service(user), &dumped).await)?;
        same(right, &Some(TargetState::Old), &error.target())?;
        same(right, &before, &content(&redis).await?)?;
    }
    // A server whose administrator took the commands away.
    for command in ["RESTORE", "FLUSHALL"] {
        let redis = redis_with(RedisOptions::new().with_setting("rename-command", format!("{command} \"\""))).await?;
        redis.command(&["SET", "precious", "v"]).await?;
        let whole = service(RedisConfig::unix(redis.socket()));
        let (dumped, before) = (dump(&whole).await?, content(&redis).await?);
        let error = refused(command, &[ErrorKind::Unsupported], restore(&whole, &dumped).await)?;
        check(error.to_string().contains(command), || format!("the error does not name the command: {error}"))?;
        same(command, &Some(TargetState::Old), &error.target())?;
        same(command, &before, &content(&redis).await?)?;
    }
    Ok(())
}

async fn user_without_psync() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_user("prober", "a-long/p@ssword", PROBE_RULES)).await?;
    let config = RedisConfig::unix(redis.socket()).with_username("prober").with_password("a-long/p@ssword");
    let error = refused("a dump", &[ErrorKind::PermissionDenied], dump(&service(config)).await)?;
    check(error.to_string().contains("+psync +replconf"), || format!("the error does not say what is needed: {error}"))
}

async fn tls() -> Outcome {
    let files = tempfile::tempdir()?;
    let (certificate, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&certificate, signed.cert.pem())?;
    std::fs::write(&key, signed.signing_key.serialize_pem())?;
    let redis = redis_with(RedisOptions::new().with_tls(&certificate, &key).with_password("a-long/p@ssword")).await?;
    redis.command(&["SET", "k", "v"]).await?;
    let url = redis.tls_url().expect("the fixture listens with TLS");
    let trusting: Arc<dyn Service> = Arc::new(Redis::from_url(&format!("{url}?ca_file={}", certificate.display()))?);
    probe(&trusting, Tier::Vitals).await?;
    same("keys", &1, &dump(&trusting).await?.report.census.count("keys.0"))?;

    // The system's certificates do not vouch for it, and plain bytes are no handshake.
    let distrusting: Arc<dyn Service> = Arc::new(Redis::from_url(&url)?);
    let unknown = refused("an unknown certificate", &[ErrorKind::Config], probe(&distrusting, Tier::Ping).await)?;
    check(!unknown.mends_by_waiting(), || "waiting does not make a certificate trusted".to_owned())?;
    // A trusted certificate is one of a host: this one is not for its address.
    let address = format!("{}?ca_file={}", url.replace("localhost", "127.0.0.1"), certificate.display());
    let mismatch: Arc<dyn Service> = Arc::new(Redis::from_url(&address)?);
    let mismatch = refused("another host", &[ErrorKind::Config], probe(&mismatch, Tier::Ping).await)?;
    check(!mismatch.mends_by_waiting(), || "waiting does not rename a host".to_owned())?;
    let plain: Arc<dyn Service> = Arc::new(Redis::from_url(&url.replace("rediss:", "redis:"))?);
    refused("no TLS", &[ErrorKind::Unreachable, ErrorKind::Unexpected], probe(&plain, Tier::Ping).await).map(drop)
}

async fn unix_socket() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_password("a-long/p@ssword")).await?;
    let service: Arc<dyn Service> = Arc::new(Redis::from_url(&redis.url())?);
    redis.command(&["SET", "k", "v"]).await?;
    let seen = probe(&service, Tier::Vitals).await?;
    check(seen.value("memory_used_bytes").is_some_and(|bytes| bytes > 0.0), || format!("{seen:?}"))?;
    let keys: Vec<_> = seen.measurements.iter().filter(|measurement| measurement.name == "keys_count").collect();
    check(keys.len() == 1 && keys[0].labels["db"] == "0", || format!("{keys:?}"))?;
    same("role", &Some("master"), &seen.info.get("role").map(String::as_str))
}

/// Reloading its own data slowly makes a server answer as it does after a start.
async fn loading() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_setting("loading-process-events-interval-bytes", "1024")).await?;
    let service: Arc<dyn Service> = Arc::new(Redis::from_url(&redis.url())?);
    redis.command(&["DEBUG", "POPULATE", "3000", "key", "100"]).await?;
    redis.command(&["CONFIG", "SET", "key-load-delay", "1000"]).await?;
    let reload = async { redis.command(&["DEBUG", "RELOAD"]).await };
    let look = wait_until("the probe says starting", Duration::from_secs(60), async || {
        probe(&service, Tier::Vitals).await.err().filter(|error| error.kind() == ErrorKind::Starting)
    });
    let (reloaded, error) = tokio::join!(reload, look);
    reloaded?;
    same("code", &Some("LOADING"), &error?.code())?;
    probe(&service, Tier::Vitals).await.map(drop).map_err(Into::into)
}

async fn saturated() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_setting("maxclients", "2")).await?;
    let warm: Arc<dyn Service> = Arc::new(Redis::from_url(&redis.url())?);
    probe(&warm, Tier::Vitals).await?;
    let mut other = UnixStream::connect(redis.socket()).await?;
    other.write_all(b"PING\r\n").await?;
    let mut pong = [0; 7];
    other.read_exact(&mut pong).await?;

    let fresh: Arc<dyn Service> = Arc::new(Redis::from_url(&redis.url())?);
    refused("a client too many", &[ErrorKind::Saturated], probe(&fresh, Tier::Vitals).await)?;
    let seen = probe(&warm, Tier::Vitals).await?;
    let found = Thresholds::new().verdict(&warm.health_check().expect("a check").rules(), &seen).findings;
    check(found.iter().any(|finding| finding.code == "redis.clients.near_max"), || format!("{found:?}"))
}

async fn returns() -> Outcome {
    let mut redis = redis().await?;
    let service: Arc<dyn Service> = Arc::new(Redis::from_url(&redis.url())?);
    probe(&service, Tier::Ping).await?;
    redis.stop().await?;
    refused("a stopped server", &[ErrorKind::Unreachable], probe(&service, Tier::Ping).await)?;
    redis.start().await?;
    probe(&service, Tier::Ping).await?;
    // The warm connection died with the server; the next probe must not stumble over it.
    redis.stop().await?;
    redis.start().await?;
    probe(&service, Tier::Ping).await.map(drop).map_err(Into::into)
}
