//! Both framings, broken disks, replicas that go.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use stackkit_core::backup::{ArtifactName, ArtifactSource, DumpContext};
use stackkit_core::{ErrorKind, Service};
use stackkit_fixtures::conformance::{MemorySink, Outcome, SinkFault, check, dump, refused, same, trial};
use stackkit_fixtures::{RedisFixture, RedisOptions, redis, redis_with, wait_until};
use stackkit_redis::rdb::{Event, Reader};
use stackkit_redis::{Redis, RedisConfig};

use crate::data::{check_rdb, content, every_type, info, signal};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("redis::small_data_comes_from_the_servers_disk", "redis", small),
        trial("redis::data_is_streamed_where_that_costs_no_delay", "redis", streamed),
        trial("redis::a_stream_that_nobody_reads_does_not_block_another_for_ever", "redis", blocked),
        trial("redis::a_server_that_stops_half_way_is_a_timeout_and_no_artifact", "redis", frozen),
        trial("redis::a_dump_under_writes_is_of_one_moment", "redis", one_moment),
        trial("redis::a_failed_save_is_told_and_then_worked_around", "redis", failed_save),
        trial("redis::a_dump_without_checksum_warns", "redis", without_checksum),
        trial("redis::a_dropped_dump_is_no_replica", "redis", dropped),
        trial("redis::a_replica_without_its_master_is_busy", "redis", orphan),
    ]
}

fn service(redis: &RedisFixture) -> Arc<dyn Service> {
    Arc::new(Redis::from_url(&redis.url()).expect("a URL of the fixture"))
}

/// Where the server saves.
fn saved(redis: &RedisFixture) -> PathBuf {
    redis.socket().with_file_name("dump.rdb")
}

async fn verified_by_the_vendor(dumped: &stackkit_fixtures::conformance::Dumped) -> Outcome<Vec<u8>> {
    let bytes = dumped.backup.bytes(&ArtifactName::new("dump.rdb")?)?.to_vec();
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("dump.rdb");
    std::fs::write(&file, &bytes)?;
    check_rdb(&file).await?;
    Ok(bytes)
}

/// A server writes a file only for a replica that did not announce `eof`; so there is no wait for other replicas.
async fn small() -> Outcome {
    let redis = redis().await?;
    check(!saved(&redis).exists(), || "the server has saved before".to_owned())?;
    let dumped = dump(&service(&redis)).await?;
    let bytes = verified_by_the_vendor(&dumped).await?;
    check(std::fs::read(saved(&redis))? == bytes, || "the artifact is not the server's file".to_owned())?;
    same("census", &0, &dumped.report.census.counts.len())?;
    every_type(&redis).await?;
    verified_by_the_vendor(&dump(&service(&redis)).await?).await.map(drop)
}

async fn streamed() -> Outcome {
    let settings =
        RedisOptions::new().with_setting("repl-diskless-sync-delay", "0").with_setting("rdbcompression", "no");
    let redis = redis_with(settings).await?;
    redis.command(&["DEBUG", "POPULATE", "100000", "key", "800"]).await?;
    let dumped = dump(&service(&redis)).await?;
    check(!saved(&redis).exists(), || "the server wrote a file".to_owned())?;
    same("keys", &100_000, &dumped.report.census.count("types.0.string"))?;
    let bytes = verified_by_the_vendor(&dumped).await?;
    check(bytes.len() > 80_000_000, || format!("{} bytes", bytes.len()))
}

/// A server streams one save at a time.
async fn blocked() -> Outcome {
    let settings =
        RedisOptions::new().with_setting("repl-diskless-sync-delay", "0").with_setting("rdbcompression", "no");
    let redis = redis_with(settings).await?;
    redis.command(&["DEBUG", "POPULATE", "50000", "key", "800"]).await?;
    let service = service(&redis);
    let provider = service.backup_provider().expect("a provider");
    let unread = provider.begin(&DumpContext::new()).await?;
    let config = RedisConfig::unix(redis.socket()).with_sync_timeout(Duration::from_secs(2));
    let other = Redis::new(config);
    let begun = other.backup_provider().expect("a provider").begin(&DumpContext::new()).await;
    refused("a second stream", &[ErrorKind::Busy], begun.map(drop))?;
    let sink = MemorySink::new(SinkFault::None);
    same("keys", &50_000, &unread.run(&sink).await?.census.count("keys.0"))
}

/// A transaction sets two counters to the same number, over and over; a dump between its halves would tear them.
async fn one_moment() -> Outcome {
    let redis = redis().await?;
    redis.command(&["DEBUG", "POPULATE", "20000", "key", "100"]).await?;
    let written = AtomicU32::new(0);
    let writer = async {
        loop {
            let number = (written.fetch_add(1, Ordering::SeqCst) + 1).to_string();
            let transaction = [vec!["MULTI"], vec!["SET", "a", &number], vec!["SET", "b", &number], vec!["EXEC"]];
            if let Err(error) = redis.pipeline(transaction).await {
                return error;
            }
        }
    };
    let service = service(&redis);
    let rounds = async {
        for _ in 0..5 {
            let begun = service.backup_provider().expect("a provider").begin(&DumpContext::new()).await?;
            let before = written.load(Ordering::SeqCst);
            let sink = MemorySink::new(SinkFault::Slow);
            begun.run(&sink).await?;
            let backup = sink.backup();
            let [a, b] = counters(backup.bytes(&ArtifactName::new("dump.rdb")?)?);
            same("the counters", &a, &b)?;
            check(a <= before, || format!("{a} was written after the point, at which it was {before}"))?;
        }
        Ok(())
    };
    tokio::select! {
        error = writer => Err(error.into()),
        outcome = rounds => outcome,
    }
}

/// What the keys `a` and `b` hold in a file: small numbers, which are stored as such.
fn counters(file: &[u8]) -> [u32; 2] {
    let (mut name, mut found) = (Vec::new(), [0; 2]);
    let mut reader = Reader::new();
    let read = reader.feed(file, &mut |event| match event {
        Event::Key(key) => name = key.name.to_vec(),
        Event::Value(bytes) => {
            let value = match *bytes {
                [0xc0, low] => u32::from(low),
                [0xc1, low, high] => u32::from(u16::from_le_bytes([low, high])),
                [0xc2, a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
                _ => 0,
            };
            match name.as_slice() {
                b"a" => found[0] = value,
                b"b" => found[1] = value,
                _ => {}
            }
        }
        _ => {}
    });
    read.expect("a sound file");
    found
}

async fn failed_save() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_setting("repl-diskless-sync-delay", "1")).await?;
    every_type(&redis).await?;
    // A directory in the place of the file: renaming over it fails even for a server of root.
    std::fs::create_dir_all(saved(&redis).join("in-the-way"))?;
    std::fs::set_permissions(saved(&redis), PermissionsExt::from_mode(0o755))?;
    let error = refused("a dump", &[ErrorKind::Io], dump(&service(&redis)).await)?;
    check(error.to_string().contains("background save"), || format!("the error does not say why: {error}"))?;
    same("status", &"err".to_owned(), &info(&redis, "rdb_last_bgsave_status").await?)?;
    let dumped = dump(&service(&redis)).await?;
    verified_by_the_vendor(&dumped).await?;
    check(dumped.report.census.count("keys.0") > 20, || format!("{:?}", dumped.report.census))
}

async fn without_checksum() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_setting("rdbchecksum", "no")).await?;
    redis.command(&["SET", "k", "v"]).await?;
    let dumped = dump(&service(&redis)).await?;
    same("keys", &1, &dumped.report.census.count("keys.0"))?;
    check(dumped.report.warnings.iter().any(|line| line.contains("checksum")), || format!("{:?}", dumped.report))
}

async fn dropped() -> Outcome {
    let redis = redis().await?;
    every_type(&redis).await?;
    let before = content(&redis).await?;
    let service = service(&redis);
    let provider = service.backup_provider().expect("a provider");
    let begun = provider.begin(&DumpContext::new()).await?;
    let position = begun.point().position.clone().unwrap_or_default();
    let (id, offset) = position.split_once(':').unwrap_or_default();
    check(id.len() == 40 && offset.parse::<u64>().is_ok(), || format!("position {position:?}"))?;
    let sink = MemorySink::new(SinkFault::StallAt(2));
    tokio::select! {
        () = sink.stalled() => {}
        _ended = begun.run(&sink) => return check(false, || "the dump did not wait".to_owned()),
    }
    wait_until("no replica is left", Duration::from_secs(30), async || {
        (info(&redis, "connected_slaves").await.ok()? == "0").then_some(())
    })
    .await?;
    same("content", &before, &content(&redis).await?)
}

async fn orphan() -> Outcome {
    let replica = redis().await?;
    let gone = stackkit_fixtures::RefusedPort::bind()?;
    let port = gone.address().port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await?;
    let error = refused("a dump", &[ErrorKind::Busy], dump(&service(&replica)).await)?;
    check(error.to_string().contains("link to its master"), || format!("{error}"))?;
    let seen = stackkit_fixtures::conformance::probe(&service(&replica), stackkit_core::health::Tier::Vitals).await?;
    check(seen.findings.iter().any(|finding| finding.code == "redis.link.down"), || format!("{:?}", seen.findings))
}

/// It neither sends nor closes: without a limit that would be waited for as long as for a slow one.
async fn frozen() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_setting("rdbcompression", "no")).await?;
    redis.command(&["DEBUG", "POPULATE", "2000", "key", "20000"]).await?;
    let impatient = Redis::new(RedisConfig::unix(redis.socket()).with_stall_timeout(Duration::from_secs(1)));
    let provider = impatient.backup_provider().expect("a provider");
    let dump = provider.begin(&DumpContext::new()).await?;
    let sink = MemorySink::new(SinkFault::Slow);
    let freeze = async {
        wait_until("the dump is under way", Duration::from_secs(30), async || (sink.calls() > 1).then_some(())).await?;
        signal(&redis, "-STOP").await
    };
    let (dumped, frozen) = tokio::join!(dump.run(&sink), freeze);
    signal(&redis, "-CONT").await?;
    frozen?;
    refused("a dump", &[ErrorKind::Timeout], dumped.map(drop))?;
    check(sink.backup().artifacts().is_empty(), || "half a file became an artifact".to_owned())
}
