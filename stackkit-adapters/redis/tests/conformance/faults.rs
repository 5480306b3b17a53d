//! What goes wrong, how it is named, and how soon.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use stackkit_core::health::{Axis, Severity, Status, Tier};
use stackkit_core::{Clock, Error, ErrorKind, Observation, Phase, ProbeContext, Result, Service};
use stackkit_fixtures::conformance::{Outcome, check, probe, refused, same, trial};
use stackkit_fixtures::{RedisFixture, RedisOptions, RefusedPort, redis, redis_with, wait_until};
use stackkit_redis::{Redis, RedisConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::health::{checks, found, status};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("redis::a_failed_save_that_stops_writes_is_unready", "redis", failed_save),
        trial("redis::no_password_where_one_is_asked_for", "redis", no_password),
        trial("redis::a_long_script_is_busy", "redis", long_script),
        trial("redis::a_stale_replica_that_refuses_reads_is_busy", "redis", stale_replica),
        trial("redis::a_blocked_server_times_out_and_the_next_probe_is_not_delayed", "redis", blocked),
        trial("redis::a_reset_in_the_middle_of_a_reply", "redis", reset_in_reply),
    ]
}

/// The deadline of the probes here.
const TIMEOUT: Duration = Duration::from_millis(300);
/// How much later than its deadline a failure may be seen.
const DETECTION_SLACK: Duration = Duration::from_millis(50);
/// How long a busy machine may keep the test itself from running.
const MACHINE_SLACK: Duration = Duration::from_millis(250);
const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// Probes as the runner does: dropped at the deadline, reset after a timeout.
async fn timed(service: &Arc<dyn Service>, tier: Tier) -> Outcome<Result<Observation>> {
    let clock = Clock::system();
    let start = clock.instant();
    let cx = ProbeContext::new(tier, start + TIMEOUT);
    let dropped = |_elapsed| Err(Error::new(ErrorKind::Timeout, "dropped at its deadline"));
    let seen = tokio::time::timeout_at(cx.deadline(), checks(service).probe(&cx)).await.unwrap_or_else(dropped);
    let took = clock.instant() - start;
    let limit = TIMEOUT + DETECTION_SLACK + MACHINE_SLACK;
    check(took <= limit, || format!("it took {took:?}, the deadline was {TIMEOUT:?}"))?;
    if seen.as_ref().is_err_and(|error| error.kind() == ErrorKind::Timeout) {
        checks(service).reset().await;
    }
    Ok(seen)
}

/// Fails unless a probe is refused so, in time.
async fn fails(service: &Arc<dyn Service>, tier: Tier, expected: (ErrorKind, Phase, Option<&str>)) -> Outcome {
    let error = refused("the probe", &[expected.0], timed(service, tier).await?)?;
    same("phase", &Some(expected.1), &error.phase())?;
    same("code", &expected.2, &error.code())
}

async fn failed_save() -> Outcome {
    let redis = redis().await?;
    let service: Arc<dyn Service> = Arc::new(redis.service()?);
    let limited = |reads_only| {
        let user = RedisConfig::unix(redis.socket()).with_username("prober").with_password("a-long/p@ssword");
        Arc::new(Redis::new(user.with_reads_only(reads_only))) as Arc<dyn Service>
    };
    redis.command(&["ACL", "SETUSER", "prober", "on", ">a-long/p@ssword", "+ping", "+info"]).await?;
    // A directory in the place of the file: renaming over it fails even for a server of root, as a full disk would.
    let file = redis.socket().with_file_name("dump.rdb");
    std::fs::create_dir_all(file.join("in-the-way"))?;
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
    redis.command(&["SET", "k", "v"]).await?;
    redis.command(&["BGSAVE"]).await?;
    let seen = wait_until("the save fails", WAIT_LIMIT, async || {
        let seen = probe(&service, Tier::Vitals).await.ok()?;
        (seen.value("bgsave_failed_bool") == Some(1.0)).then_some(seen)
    })
    .await?;
    let error = refused("a write", &[], redis.command(&["SET", "k", "v"]).await.map(drop))?;
    same("code", &Some("MISCONF"), &error.code())?;
    same("stops writes", &Some(1.0), &seen.value("bgsave_stops_writes_bool"))?;
    same("finding", &(Axis::Ready, Severity::Critical), &found(&service, &seen, "redis.bgsave.failed")?)?;
    same("status", &Status::Unhealthy, &status(&service, &seen))?;
    timed(&service, Tier::Ping).await??;
    // Without any right to read settings it is known too; for who only reads it is a risk.
    let seen = probe(&limited(false), Tier::Vitals).await?;
    same("status without rights", &Status::Unhealthy, &status(&limited(false), &seen))?;
    let seen = probe(&limited(true), Tier::Vitals).await?;
    same("status of a reader", &Status::Degraded, &status(&limited(true), &seen))?;

    redis.command(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await?;
    let seen = probe(&service, Tier::Vitals).await?;
    same("finding", &(Axis::Risk, Severity::Critical), &found(&service, &seen, "redis.bgsave.failed")?)?;

    std::fs::remove_dir_all(&file)?;
    redis.command(&["BGSAVE"]).await?;
    wait_until("the save succeeds", WAIT_LIMIT, async || {
        let seen = probe(&service, Tier::Vitals).await.ok()?;
        (seen.value("bgsave_failed_bool") == Some(0.0) && status(&service, &seen) == Status::Healthy).then_some(())
    })
    .await
    .map_err(Into::into)
}

async fn no_password() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_password("a-long/p@ssword")).await?;
    let service: Arc<dyn Service> = Arc::new(Redis::new(RedisConfig::unix(redis.socket())));
    fails(&service, Tier::Vitals, (ErrorKind::Unauthenticated, Phase::Auth, Some("NOAUTH"))).await
}

async fn long_script() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_setting("lua-time-limit", "20")).await?;
    let service: Arc<dyn Service> = Arc::new(redis.service()?);
    probe(&service, Tier::Vitals).await?;
    let script = async { redis.command(&["EVAL", "while true do end", "0"]).await };
    let look = async {
        let busy = async || match timed(&service, Tier::Vitals).await {
            Ok(Err(error)) if error.kind() == ErrorKind::Busy => Some(error),
            _ => None,
        };
        let error = wait_until("the probe says busy", WAIT_LIMIT, busy).await?;
        same("code", &Some("BUSY"), &error.code())?;
        same("phase", &Some(Phase::Query), &error.phase())?;
        // A connection of its own is let in, and told the same.
        let fresh: Arc<dyn Service> = Arc::new(redis.service()?);
        let outcome = fails(&fresh, Tier::Ping, (ErrorKind::Busy, Phase::Query, Some("BUSY"))).await;
        redis.command(&["SCRIPT", "KILL"]).await?;
        outcome
    };
    let (_killed, looked) = tokio::join!(script, look);
    looked?;
    timed(&service, Tier::Vitals).await?.map(drop).map_err(Into::into)
}

async fn stale_replica() -> Outcome {
    let replica = redis_with(RedisOptions::new().with_setting("replica-serve-stale-data", "no")).await?;
    let service: Arc<dyn Service> = Arc::new(replica.service()?);
    let gone = RefusedPort::bind()?;
    replica.command(&["REPLICAOF", "127.0.0.1", &gone.address().port().to_string()]).await?;
    fails(&service, Tier::Vitals, (ErrorKind::Busy, Phase::Query, Some("MASTERDOWN"))).await
}

/// The ids of the connections of stackkit.
async fn connections(redis: &RedisFixture) -> Result<Vec<String>> {
    let clients = redis.command(&["CLIENT", "LIST"]).await?.text();
    let ours = clients.lines().filter(|line| line.contains("name=stackkit"));
    Ok(ours.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

async fn blocked() -> Outcome {
    let redis = redis().await?;
    let service: Arc<dyn Service> = Arc::new(redis.service()?);
    probe(&service, Tier::Vitals).await?;
    let before = connections(&redis).await?;
    same("connections", &1, &before.len())?;
    let block = async { redis.command(&["DEBUG", "SLEEP", "2"]).await };
    let look = async {
        wait_until("the server is blocked", WAIT_LIMIT, async || timed(&service, Tier::Ping).await.ok()?.err()).await?;
        // The kernel accepts for it; nobody reads the name or the password.
        fails(&service, Tier::Vitals, (ErrorKind::Timeout, Phase::Auth, None)).await
    };
    let (slept, looked) = tokio::join!(block, look);
    slept?;
    looked?;
    // At once: nothing of the block is left in its way.
    timed(&service, Tier::Vitals).await??;
    let after = connections(&redis).await?;
    check(after.len() == 1 && after != before, || format!("connections {before:?}, then {after:?}"))
}

async fn reset_in_reply() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let service: Arc<dyn Service> = Arc::new(Redis::new(RedisConfig::new("127.0.0.1", listener.local_addr()?.port())));
    let server = async {
        let (mut stream, _) = listener.accept().await?;
        // The name, then PING and INFO.
        let mut request = [0; 512];
        let _name = stream.read(&mut request).await?;
        stream.write_all(b"+OK\r\n").await?;
        let _vitals = stream.read(&mut request).await?;
        stream.write_all(b"+PONG\r\n$3000\r\n# Server\r\nredis_ver").await?;
        // Unread bytes at a close make the kernel send a reset; so does this, for sure.
        stream.set_zero_linger()?;
        drop(stream);
        Ok::<_, std::io::Error>(())
    };
    let (served, seen) = tokio::join!(server, timed(&service, Tier::Vitals));
    served?;
    let error = refused("the probe", &[ErrorKind::Unreachable], seen?)?;
    same("phase", &Some(Phase::Query), &error.phase())
}
