//! Redis servers that can't serve, or not as they should.

use std::path::Path;
use std::sync::Arc;

use stackkit::health::Status;
use stackkit::{ErrorKind, Monitor, Phase, Redis, RedisConfig};
use stackkit_fixtures::{RedisOptions, wait_until};

use crate::health_faults::machine::{EXPIRED, Stopped, VALID, certificate};
use crate::health_faults::{
    Failure, PASSWORD, PATIENCE, Site, TIMEOUT, TRIES, assert_in_time, fails, fails_in_time, intervals, ready, run,
    stack, stack_of,
};
use crate::tool::{SmallDisk, Test};

pub(crate) const TESTS: &[Test] = &[
    Test::new("redis_refuses_the_client", || run(refuses())).needs(&["redis"]),
    Test::new("redis_is_loading", || run(loading())).needs(&["redis"]),
    Test::new("redis_is_out_of_connections", || run(saturated())).needs(&["redis"]),
    Test::new("redis_is_a_replica_without_its_master", || run(replica())).needs(&["redis"]),
    Test::new("redis_is_blocked", || run(blocked())).needs(&["redis"]),
    Test::new("redis_is_stopped", || run(stopped())).needs(&["redis"]),
    Test::new("redis_has_an_expired_certificate", || run(expired())).needs(&["redis"]),
    Test::new("redis_can_not_save_to_a_full_disk", || run(full_disk())).needs(&["redis", "root"]),
];

async fn refuses() {
    let site = Site::redis(RedisOptions::new()).await;
    let wrong = stack(&site.url().replace(PASSWORD, "another-password-4b1e"));
    let expected = Failure::new(ErrorKind::Unauthenticated, &[Phase::Auth]).code("WRONGPASS");
    fails_in_time(&wrong, expected, "redis, wrong password").await;
    let error = Monitor::start(&wrong).wait_ready(PATIENCE).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unauthenticated, Some("WRONGPASS")), "{error:?}");
    let none = stack(&site.url().replace(&format!(":{PASSWORD}@"), ""));
    let expected = Failure::new(ErrorKind::Unauthenticated, &[Phase::Auth]).code("NOAUTH");
    fails_in_time(&none, expected, "redis, no password").await;
}

/// Keys that it takes long to load: each waits for [`LOAD_DELAY_US`].
const LOAD_KEYS: &str = "20000";
const LOAD_DELAY_US: &str = "1000";

async fn loading() {
    let options = RedisOptions::new().with_setting("key-load-delay", LOAD_DELAY_US);
    let mut site = Site::redis(options.with_setting("loading-process-events-interval-bytes", "1024")).await;
    let url = site.url();
    site.redis_server().command(&["DEBUG", "POPULATE", LOAD_KEYS, "key", "100"]).await.unwrap();
    site.stop().await;
    let check = async {
        let stack = stack(&url);
        let is_up = async || {
            let report = stack.check_now(&[]).await;
            let failure = report.service("store")?.failure.as_ref()?;
            (failure.kind == ErrorKind::Starting).then_some(())
        };
        wait_until("it answers that it is loading", PATIENCE, is_up).await.unwrap();
        let expected = Failure::new(ErrorKind::Starting, &[Phase::Query]).code("LOADING");
        fails_in_time(&stack, expected, "redis, loading").await;
    };
    tokio::select! {
        () = site.restart() => panic!("it was not to be ready so soon"),
        () = check => {}
    }
}

async fn saturated() {
    let site = Site::redis(RedisOptions::new().with_setting("maxclients", "8")).await;
    let monitor = Monitor::start(&site.stack());
    monitor.wait_ready(PATIENCE).await.unwrap();
    let _others = site.fill().await;
    let expected = Failure::new(ErrorKind::Saturated, &[Phase::Auth, Phase::Query]).code("ERR");
    fails_in_time(&site.stack(), expected, "redis, no connection left").await;
    let found = async || {
        let report = monitor.report();
        let near = report.service("store")?.findings().any(|finding| finding.code.starts_with("redis.clients."));
        near.then_some(report)
    };
    let report = wait_until("the monitor says that it is full", PATIENCE, found).await.unwrap();
    let service = report.service("store").unwrap();
    assert_eq!((service.failure.as_ref(), service.axes.reach), (None, Status::Healthy), "{service:?}");
}

async fn replica() {
    let site = Site::redis(RedisOptions::new()).await;
    let nobody = stackkit_fixtures::RefusedPort::bind().unwrap();
    let port = nobody.address().port().to_string();
    site.redis_server().command(&["REPLICAOF", "127.0.0.1", &port]).await.unwrap();
    let report = site.warm_stack().await.check_now(&[]).await;
    let service = report.service("store").unwrap();
    assert_eq!((service.failure.as_ref(), service.status), (None, Status::Degraded), "{service:?}");
    assert!(service.findings().any(|finding| finding.code == "redis.link.down"), "{service:?}");
    assert!(report.ready, "a replica answers reads: {report}");
}

async fn blocked() {
    let site = Site::redis(RedisOptions::new()).await;
    let mut tries = Vec::new();
    for _ in 0..TRIES {
        let stack = site.warm_stack().await;
        let seconds = (TIMEOUT * 3).as_secs_f64().to_string();
        let sleep = ["DEBUG", "SLEEP", &seconds];
        let probes = async {
            // From here on it sleeps, or will before it reads what comes.
            let asleep = async || is_asleep(&site).await;
            wait_until("the server sleeps", PATIENCE, asleep).await.unwrap();
            let warm = Failure::new(ErrorKind::Timeout, &[Phase::Query]);
            tries.push(fails(&stack, warm, "redis, blocked").await);
            let cold = Failure::new(ErrorKind::Timeout, &[Phase::Auth]);
            tries.push(fails(&site.stack(), cold, "redis, blocked, without a connection").await);
        };
        let (slept, ()) = tokio::join!(site.redis_server().command(&sleep), probes);
        slept.unwrap();
        ready(&stack).await;
    }
    assert_in_time(&tries, "redis, blocked");
}

/// A sleeping server leaves bytes in its socket's queue.
async fn is_asleep(site: &Site) -> Option<()> {
    let answer = site.redis_server().command(&["PING"]);
    tokio::time::timeout(TIMEOUT / 10, answer).await.is_err().then_some(())
}

async fn stopped() {
    let site = Site::redis(RedisOptions::new()).await;
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let stack = site.warm_stack().await;
        let stopped = Stopped::stop(site.redis_server().pid().unwrap());
        let expected = Failure::new(ErrorKind::Timeout, &[Phase::Query]);
        warm.push(fails(&stack, expected, "redis, stopped").await);
        let expected = Failure::new(ErrorKind::Timeout, &[Phase::Auth]);
        cold.push(fails(&site.stack(), expected, "redis, stopped, without a connection").await);
        drop(stopped);
        ready(&stack).await;
    }
    assert_in_time(&warm, "redis, stopped");
    assert_in_time(&cold, "redis, stopped, without a connection");
}

async fn expired() {
    for until in [VALID, EXPIRED] {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let (authority, key) = certificate(until);
        std::fs::write(file("crt"), authority).unwrap();
        std::fs::write(file("key"), key).unwrap();
        let site = Site::redis(RedisOptions::new().with_tls(file("crt"), file("key"))).await;
        let port = site.redis_server().tls_url().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        let config = |authority: &Path| {
            let config = RedisConfig::new("localhost", port).with_tls(true).with_ca_file(authority);
            stack_of(Arc::new(Redis::new(config.with_password(PASSWORD)).with_id("store")), intervals())
        };
        let stack = config(&file("crt"));
        if until == VALID {
            ready(&stack).await;
        } else {
            let expected = Failure::new(ErrorKind::Config, &[Phase::Tls]);
            fails_in_time(&stack, expected, "redis, expired certificate").await;
        }
    }
}

async fn full_disk() {
    let site = Site::redis(RedisOptions::new().with_setting("enable-protected-configs", "yes")).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let disk = folder.path().join("disk");
    let _disk = SmallDisk::mount(&disk, "64k");
    std::fs::set_permissions(&disk, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let redis = site.redis_server();
    redis.command(&["CONFIG", "SET", "dir", disk.to_str().unwrap()]).await.unwrap();
    redis.command(&["CONFIG", "SET", "rdbcompression", "no"]).await.unwrap();
    redis.command(&["DEBUG", "POPULATE", "2000", "key", "1000"]).await.unwrap();
    let stack = site.warm_stack().await;
    redis.command(&["BGSAVE"]).await.unwrap();
    let found = async || {
        let report = stack.check_now(&[]).await;
        let failed = report.service("store")?.findings().any(|finding| finding.code.starts_with("redis.bgsave"));
        failed.then_some(report)
    };
    let report = wait_until("the failed save is seen", PATIENCE, found).await;
    let info = redis.command(&["INFO", "persistence"]).await.unwrap().text();
    let report = report.unwrap_or_else(|error| panic!("{error}: {info}"));
    let service = report.service("store").unwrap();
    assert_eq!(service.failure, None, "{service:?}");
    assert_ne!(service.status, Status::Healthy, "{service:?}");
    let refused = redis.command(&["SET", "k", "v"]).await.unwrap_err();
    assert_eq!(refused.code(), Some("MISCONF"), "the server stopped to take writes, as the finding says: {service:?}");
}
