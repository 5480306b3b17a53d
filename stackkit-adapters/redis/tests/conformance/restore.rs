//! Expiries, hints, other versions, and what is refused before the first write.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::Trial;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, ArtifactSpec, RestoreContext, RestoreOptions,
    RestoreReport, TargetState,
};
use stackkit_core::{ErrorKind, Result, Service};
use stackkit_fixtures::conformance::{Dumped, MemoryBackup, Outcome, check, dump, refused, restore, same, trial};
use stackkit_fixtures::{RedisFixture, RedisOptions, redis, redis_with, wait_until};
use stackkit_redis::Redis;
use stackkit_redis::rdb::Writer;

use crate::data::{content, every_type, signal};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("redis::every_encoding_survives", "redis", every_encoding),
        trial("redis::expiries_are_absolute", "redis", expiries),
        trial("redis::an_expiry_does_not_make_a_plan_stale", "redis", expiry_and_plan),
        trial("redis::use_hints_survive", "redis", hints),
        trial("redis::a_value_of_megabytes_survives", "redis", big_values),
        trial("redis::what_the_target_can_not_hold_is_refused_first", "redis", refused_first),
        trial("redis::a_target_without_room_keeps_its_data", "redis", without_room),
        trial("redis::a_value_that_the_server_refuses_leaves_a_partial_target", "redis", partial),
        trial("redis::bytes_that_change_after_they_were_checked_are_found", "redis", changing),
        trial("redis::keys_that_others_write_meanwhile_are_found", "redis", intruder),
        trial("redis::a_server_killed_during_a_restore_is_partial", "redis", killed),
        trial("redis::functions_are_replaced", "redis", functions),
        trial("redis::a_replica_is_no_target", "redis", replica),
    ]
}

fn service(redis: &RedisFixture) -> Arc<dyn Service> {
    Arc::new(Redis::from_url(&redis.url()).expect("a URL of the fixture"))
}

/// A backup of one file made by hand.
fn backup(file: Vec<u8>) -> Result<MemoryBackup> {
    let spec = ArtifactSpec::new(ArtifactName::new("dump.rdb")?, "redis-rdb");
    let size = u64::try_from(file.len()).expect("a small file");
    Ok(MemoryBackup::new(vec![(ArtifactInfo::new(spec, size, ""), file.into())]))
}

async fn apply(redis: &RedisFixture, file: Vec<u8>) -> Result<RestoreReport> {
    let (service, backup) = (service(redis), backup(file)?);
    let provider = service.backup_provider().expect("a provider");
    let plan = provider.plan_restore(&backup, &RestoreOptions::new()).await?;
    provider.restore(plan, &backup, &RestoreContext::new()).await
}

async fn every_encoding() -> Outcome {
    // Both ways to store a string, and the values of the suite's own seed are below what gets compressed.
    for compression in ["yes", "no"] {
        let redis = redis_with(RedisOptions::new().with_setting("rdbcompression", compression)).await?;
        every_type(&redis).await?;
        let before = content(&redis).await?;
        let dumped = dump(&service(&redis)).await?;
        for command in [&["FLUSHALL"][..], &["FUNCTION", "FLUSH"]] {
            redis.command(command).await?;
        }
        check(content(&redis).await? != before, || "wiping does nothing".to_owned())?;
        let report = restore(&service(&redis), &dumped).await?;
        same("warnings", &Vec::<String>::new(), &report.warnings)?;
        same("content", &before, &content(&redis).await?)?;
        for (key, expires_at) in [("later", "4102444800123"), ("stream:empty", "4102444800456"), ("int8", "-1")] {
            same(key, &expires_at.to_owned(), &redis.command(&["PEXPIRETIME", key]).await?.text())?;
        }
    }
    Ok(())
}

async fn expiries() -> Outcome {
    let redis = redis().await?;
    redis.command(&["SET", "later", "v", "PXAT", "4102444800123"]).await?;
    redis.command(&["SET", "soon", "v", "PX", "1500"]).await?;
    redis.command(&["SET", "always", "v"]).await?;
    let dumped = dump(&service(&redis)).await?;
    same("keys in the dump", &3, &dumped.report.census.count("keys.0"))?;
    wait_until("the key expired", Duration::from_secs(30), async || {
        (redis.command(&["EXISTS", "soon"]).await.ok()?.text() == "0").then_some(())
    })
    .await?;
    redis.command(&["SET", "other", "v"]).await?;
    let report = restore(&service(&redis), &dumped).await?;
    same("keys restored", &2, &report.census.count("keys.0"))?;
    check(report.warnings.iter().any(|line| line.starts_with("1 keys had expired")), || {
        format!("{:?}", report.warnings)
    })?;
    same("expiry", &"4102444800123".to_owned(), &redis.command(&["PEXPIRETIME", "later"]).await?.text())?;
    same("no expiry", &"-1".to_owned(), &redis.command(&["PEXPIRETIME", "always"]).await?.text())
}

async fn expiry_and_plan() -> Outcome {
    let redis = redis().await?;
    redis.command(&["SET", "always", "v"]).await?;
    let dumped = dump(&service(&redis)).await?;
    redis.command(&["SET", "soon", "v", "PX", "1000"]).await?;
    let service = service(&redis);
    let provider = service.backup_provider().expect("a provider");
    let plan = provider.plan_restore(&dumped.backup, &RestoreOptions::new()).await?;
    wait_until("the key expired", Duration::from_secs(30), async || {
        (redis.command(&["DBSIZE"]).await.ok()?.text() == "1").then_some(())
    })
    .await?;
    provider.restore(plan, &dumped.backup, &RestoreContext::new()).await.map(drop).map_err(Into::into)
}

async fn hints() -> Outcome {
    for (policy, object) in [("allkeys-lru", "IDLETIME"), ("allkeys-lfu", "FREQ")] {
        let redis = redis_with(RedisOptions::new().with_setting("maxmemory-policy", policy)).await?;
        let hint = if object == "FREQ" { b"\xf9\x64".to_vec() } else { b"\xf8\x43\xe8".to_vec() };
        let file = Writer::new(9).select(0).raw(&hint).record(0, b"k", b"\x01v").finish();
        apply(&redis, file).await?;
        let number: u64 = redis.command(&["OBJECT", object, "k"]).await?.text().parse().unwrap_or(0);
        let around = if object == "FREQ" { 90..=100 } else { 1000..=1060 };
        check(around.contains(&number), || format!("{object} is {number}"))?;
    }
    Ok(())
}

async fn big_values() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_setting("rdbcompression", "no")).await?;
    for (key, fill) in [("a", b'a'), ("b", b'b')] {
        redis.command(&[b"SET".to_vec(), key.into(), vec![fill; 9 << 20]]).await?;
        redis.command(&[b"RPUSH".to_vec(), format!("list:{key}").into(), vec![fill; 3 << 20], b"x".to_vec()]).await?;
    }
    let dumped = dump(&service(&redis)).await?;
    let before = content(&redis).await?;
    redis.command(&["FLUSHALL"]).await?;
    restore(&service(&redis), &dumped).await?;
    same("content", &before, &content(&redis).await?)
}

async fn refused_first() -> Outcome {
    let options = RedisOptions::new().with_setting("databases", "2").with_setting("proto-max-bulk-len", "1mb");
    let redis = redis_with(options).await?;
    redis.command(&["SET", "precious", "v"]).await?;
    let before = content(&redis).await?;
    let with = |build: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new(10);
        writer.select(0).record(0, b"fine", b"\x01v");
        build(&mut writer);
        writer.finish()
    };
    let too_large = vec![b'x'; 2 << 20];
    let damaged = {
        let mut file = with(&|_| {});
        let at = file.len() - 12;
        file[at] ^= 1;
        file
    };
    let value_too_large = {
        let mut value = Writer::new(10);
        value.string(&too_large);
        value.finish()[9..][..too_large.len() + 5].to_vec()
    };
    let cases = [
        ("database 5", ErrorKind::Incompatible, with(&|writer| _ = writer.select(5).record(0, b"k", b"\x01v"))),
        ("a long value", ErrorKind::Incompatible, with(&|writer| _ = writer.record(0, b"k", &value_too_large))),
        ("a type of rdb 11", ErrorKind::Unsupported, with(&|writer| _ = writer.record(20, b"k", b"\x01v"))),
        ("a module's value", ErrorKind::Incompatible, with(&|writer| _ = writer.record(7, b"k", b"\x05\x00"))),
        ("valkey", ErrorKind::Unsupported, b"VALKEY080 and what follows".to_vec()),
        ("version 13", ErrorKind::Unsupported, Writer::new(13).finish()),
        ("no rdb", ErrorKind::Integrity, b"not an rdb file at all".to_vec()),
        ("damage", ErrorKind::Integrity, damaged),
    ];
    for (what, kind, file) in cases {
        let error = refused(what, &[kind], apply(&redis, file).await)?;
        check(matches!(error.target(), None | Some(TargetState::Old)), || format!("{what}: {error:?}"))?;
        same(what, &before, &content(&redis).await?)?;
    }
    Ok(())
}

async fn without_room() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_setting("maxmemory", "8mb")).await?;
    redis.command(&["SET", "precious", "v"]).await?;
    let before = content(&redis).await?;
    let file = Writer::new(10).aux("used-mem", "50000000").select(0).record(0, b"k", b"\x01v").finish();
    let error = refused("a restore", &[ErrorKind::Incompatible], apply(&redis, file).await)?;
    check(error.to_string().contains("maxmemory"), || format!("the error does not say why: {error}"))?;
    same("target", &Some(TargetState::Old), &error.target())?;
    same("content", &before, &content(&redis).await?)
}

/// The file is whole and well-formed, but inside of one value is nonsense that only the server can see.
async fn partial() -> Outcome {
    let redis = redis().await?;
    redis.command(&["SET", "old", "v"]).await?;
    let mut writer = Writer::new(10);
    writer.select(0).record(0, b"first", b"\x01v").record(16, b"k", b"\x05wrong").record(0, b"last", b"\x01v");
    let error = refused("a nonsense value", &[ErrorKind::Unexpected], apply(&redis, writer.finish()).await)?;
    same("target", &Some(TargetState::Partial), &error.target())
}

/// Sound when it is read for the first time, and another file of the same shape from then on.
struct Changing {
    sound: MemoryBackup,
    changed: MemoryBackup,
    opened: AtomicBool,
}

#[async_trait]
impl ArtifactSource for Changing {
    fn artifacts(&self) -> &[ArtifactInfo] {
        self.sound.artifacts()
    }

    async fn open(&self, name: &ArtifactName) -> Result<ArtifactReader> {
        match self.opened.swap(true, Ordering::SeqCst) {
            false => self.sound.open(name).await,
            true => self.changed.open(name).await,
        }
    }

    async fn open_range(&self, name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        self.sound.open_range(name, plain_bytes).await
    }
}

async fn changing() -> Outcome {
    let redis = redis().await?;
    let sound = Writer::new(10).select(0).record(0, b"k", b"\x04good").finish();
    let mut changed = sound.clone();
    let at = changed.windows(4).position(|word| word == b"good").expect("the value");
    changed[at] = b'f';
    let source = Changing { sound: backup(sound)?, changed: backup(changed)?, opened: AtomicBool::new(false) };
    let service = service(&redis);
    let provider = service.backup_provider().expect("a provider");
    let plan = provider.plan_restore(&source, &RestoreOptions::new()).await?;
    let restored = provider.restore(plan, &source, &RestoreContext::new()).await;
    let error = refused("changed bytes", &[ErrorKind::Integrity], restored)?;
    same("target", &Some(TargetState::Partial), &error.target())
}

/// A server with so many keys that a restore of them can be met half-way, and their dump.
async fn many_keys() -> Result<(RedisFixture, Dumped)> {
    let redis = redis().await?;
    redis.command(&["DEBUG", "POPULATE", "200000", "key", "100"]).await?;
    let dumped = dump(&service(&redis)).await?;
    redis.command(&["FLUSHALL"]).await?;
    Ok((redis, dumped))
}

async fn half_way(target: &RedisFixture) -> Result<()> {
    wait_until("keys are restored", Duration::from_secs(30), async || {
        let keys: u64 = target.command(&["DBSIZE"]).await.ok()?.text().parse().ok()?;
        (keys > 100).then_some(())
    })
    .await
}

async fn intruder() -> Outcome {
    let (target, dumped) = many_keys().await?;
    let write = async {
        half_way(&target).await?;
        target.command(&["SET", "of another", "v"]).await
    };
    let service = service(&target);
    let (restored, written) = tokio::join!(restore(&service, &dumped), write);
    written?;
    let error = refused("a restore", &[ErrorKind::Integrity], restored)?;
    same("target", &Some(TargetState::Partial), &error.target())?;
    check(error.to_string().contains("expected 200000, found 200001"), || format!("{error}"))
}

async fn killed() -> Outcome {
    let (target, dumped) = many_keys().await?;
    let kill = async {
        half_way(&target).await?;
        signal(&target, "-KILL").await
    };
    let service = service(&target);
    let (restored, killed) = tokio::join!(restore(&service, &dumped), kill);
    killed?;
    let error = refused("a restore", &[ErrorKind::Unreachable], restored)?;
    same("target", &Some(TargetState::Partial), &error.target())
}

async fn functions() -> Outcome {
    let redis = redis().await?;
    every_type(&redis).await?;
    let before = content(&redis).await?;
    let dumped = dump(&service(&redis)).await?;
    same("libraries", &1, &dumped.report.census.count("functions.libraries"))?;
    let other = "#!lua name=other\nredis.register_function('g', function() return 2 end)";
    redis.command(&["FUNCTION", "LOAD", other]).await?;
    restore(&service(&redis), &dumped).await?;
    same("content", &before, &content(&redis).await?)
}

async fn replica() -> Outcome {
    let redis = redis().await?;
    redis.command(&["SET", "k", "v"]).await?;
    let dumped = dump(&service(&redis)).await?;
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await?;
    let error = refused("a restore", &[ErrorKind::Incompatible], restore(&service(&redis), &dumped).await)?;
    same("target", &Some(TargetState::Old), &error.target())
}
