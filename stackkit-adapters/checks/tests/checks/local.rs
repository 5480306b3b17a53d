//! What this machine tells by itself: heartbeats, disks, processes; and pools and closures.

use std::time::Duration;

use stackkit_checks::{DiskCheck, FnCheck, Heartbeat, HeartbeatCheck, PoolCheck, ProcessCheck};
use stackkit_core::health::{LIVE, Metric, Rule, Status, Tier};
use stackkit_core::process::Tool;
use stackkit_core::{Endpoint, Error, ErrorKind, Observation, Phase, Service, ServiceExt, Stack};

use crate::support::{PATIENCE, codes, is_ready, open_files, probe, probe_in_vain, verdict};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_heartbeat_is_missing_then_there_then_late() {
    let heartbeat = Heartbeat::new();
    let check = HeartbeatCheck::new("worker", heartbeat.clone(), HOUR);
    let seen = probe(&check).await.unwrap();
    assert_eq!((codes(&seen), is_ready(&check, &seen)), (vec!["heartbeat.missing"], false));
    heartbeat.beat();
    assert!(is_ready(&check, &probe(&check).await.unwrap()));
    let strict = HeartbeatCheck::new("worker", heartbeat.clone(), Duration::from_nanos(1));
    let late = verdict(&strict, &probe(&strict).await.unwrap());
    assert_eq!((late.ready, late.findings[0].code.as_ref()), (Status::Unhealthy, "heartbeat.late"));
    assert_eq!(late.findings[0].metric.as_deref(), Some("heartbeat_age_seconds"));
}

#[tokio::test]
async fn a_heartbeat_file_is_missing_then_there_then_old() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("worker.alive");
    let check = HeartbeatCheck::of_file("worker", &path, HOUR);
    assert_eq!(codes(&probe(&check).await.unwrap()), ["heartbeat.missing"]);
    let file = std::fs::File::create(&path).unwrap();
    let seen = probe(&check).await.unwrap();
    assert!(is_ready(&check, &seen) && seen.value("heartbeat_age_seconds").is_some());
    file.set_modified(std::time::UNIX_EPOCH + HOUR).unwrap();
    let first_look = HeartbeatCheck::of_file("worker", &path, HOUR);
    assert!(!is_ready(&first_look, &probe(&first_look).await.unwrap()), "the file is half a century old");
}

#[tokio::test]
async fn what_asks_no_server_may_be_in_the_group_live() {
    let stack = Stack::builder("shop")
        .service(HeartbeatCheck::new("worker", Heartbeat::new(), HOUR).in_groups([LIVE]))
        .service(DiskCheck::new("disk", "/").in_groups([LIVE]))
        .service(ProcessCheck::this("self").in_groups([LIVE]));
    stack.build().unwrap();
    let remote = Stack::builder("shop").service(stackkit_checks::TcpCheck::new("t", "a", 1).in_groups([LIVE]));
    assert!(remote.build().is_err());
}

#[tokio::test]
async fn a_disk_tells_its_space() {
    let directory = tempfile::tempdir().unwrap();
    let check = DiskCheck::new("disk", directory.path());
    let seen = probe(&check).await.unwrap();
    let stat = rustix::fs::statvfs(directory.path()).unwrap();
    assert_eq!(seen.value("capacity_bytes"), Some((stat.f_blocks * stat.f_frsize) as f64));
    assert!((0.0..=1.0).contains(&seen.value("used_ratio").unwrap()));
    let error = probe(&DiskCheck::new("disk", directory.path().join("gone"))).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, Some("disk.missing")));
    assert_eq!(DiskCheck::new("disk", "here").faults()[0].code, "disk.path.relative");
}

#[test]
fn a_full_disk_is_a_risk() {
    let check = DiskCheck::new("disk", "/");
    for (used, status) in [(0.84, Status::Healthy), (0.85, Status::Degraded), (0.95, Status::Unhealthy)] {
        let space = verdict(&check, &Observation::new().gauge("used_ratio", used));
        assert_eq!((space.risk, space.ready), (status, Status::Healthy), "{used}");
        assert_eq!(verdict(&check, &Observation::new().gauge("inodes_used_ratio", used)).risk, status);
    }
}

#[tokio::test]
async fn this_process_tells_what_it_uses() {
    let check = ProcessCheck::this("self");
    let seen = probe(&check).await.unwrap();
    assert!(is_ready(&check, &seen), "{seen:?}");
    for name in ["memory_resident_bytes", "threads_count", "uptime_seconds", "open_files_count"] {
        assert!(seen.value(name).is_some_and(|value| value > 0.0), "{name}: {seen:?}");
    }
    // Other tests open and close files meanwhile.
    let counted = seen.value("open_files_count").unwrap();
    assert!((counted - open_files() as f64).abs() < 200.0, "{counted}");
    assert_eq!(verdict(&check, &Observation::new().gauge("open_files_used_ratio", 0.96)).risk, Status::Unhealthy);
}

#[tokio::test]
async fn a_process_lives_is_a_zombie_and_is_gone() {
    let mut child = Tool::new("/bin/sh").args(["-c", "read line"]).stdin_piped().spawn().unwrap();
    let pid = child.id().unwrap();
    let check = ProcessCheck::of_pid("job", pid);
    let stdin = child.take_stdin();
    assert!(is_ready(&check, &probe(&check).await.unwrap()));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("job.pid");
    std::fs::write(&file, format!("{pid}\n")).unwrap();
    let by_file = ProcessCheck::of_pid_file("job", &file).with_program("sh");
    assert!(is_ready(&by_file, &probe(&by_file).await.unwrap()));
    let other = ProcessCheck::of_pid_file("job", &file).with_program("nginx");
    assert_eq!(codes(&probe(&other).await.unwrap()), ["process.gone"]);
    drop(stdin);
    wait_for(&check, "process.zombie").await;
    child.wait_status().await.unwrap();
    wait_for(&check, "process.gone").await;
    std::fs::write(&file, "no number").unwrap();
    assert_eq!(codes(&probe(&by_file).await.unwrap()), ["process.pid_file"]);
}

/// tokio reaps a child only when it is asked for, so the zombie stays until then.
async fn wait_for(check: &ProcessCheck, code: &str) {
    let seen = async {
        while codes(&probe(check).await.unwrap()) != [code] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{code} was never seen"));
}

#[tokio::test]
async fn a_process_of_another_user_says_which_right_is_missing() {
    // Process 1 is root's: its open files are seen by root alone, and not by every root.
    let seen = probe(&ProcessCheck::of_pid("init", 1)).await.unwrap();
    if stackkit_core::process::is_root() && seen.value("open_files_count").is_some() {
        assert!(seen.value("threads_count").is_some(), "{seen:?}");
        return;
    }
    let reason = format!("{:?}", seen.measurements);
    assert!(reason.contains("permission: run as the same user"), "{reason}");
}

#[tokio::test]
async fn a_pool_is_timed_and_one_that_gives_nothing_is_of_the_phase_checkout() {
    let pool = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
    let of_pool = pool.clone();
    let check = PoolCheck::new("pool", Endpoint::new("postgres", "db", 5432), move || {
        let pool = of_pool.clone();
        async move {
            drop(pool.acquire_owned().await?);
            Ok(())
        }
    });
    assert!(probe(&check).await.unwrap().value("checkout_ms").is_some());
    let held = pool.acquire().await.unwrap();
    let (error, _) = probe_in_vain(&check).await;
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Timeout, Some(Phase::Checkout)));
    drop(held);
    assert!(probe(&check).await.is_ok(), "a check that was given up holds no connection");
    let slow = verdict(&check, &Observation::new().gauge("checkout_ms", 150.0));
    assert_eq!((slow.risk, slow.findings[0].code.as_ref()), (Status::Degraded, "pool.checkout.slow"));
}

#[tokio::test]
async fn a_pools_error_keeps_its_kind_and_hides_its_text() {
    let failing = |error: fn() -> stackkit_core::BoxError| {
        PoolCheck::new("pool", Endpoint::new("redis", "db", 1), move || async move { Err(error()) })
    };
    let own = probe(&failing(|| Error::new(ErrorKind::Saturated, "full").into())).await.unwrap_err();
    assert_eq!((own.kind(), own.phase()), (ErrorKind::Saturated, Some(Phase::Checkout)));
    let foreign = probe(&failing(|| "canary".into())).await.unwrap_err();
    assert_eq!((foreign.kind(), foreign.phase()), (ErrorKind::Unreachable, Some(Phase::Checkout)));
    assert!(!foreign.to_string().contains("canary"));
}

#[tokio::test]
async fn a_closure_is_a_check() {
    const METRICS: &[Metric] = &[Metric::gauge("waiting_count", "the queue", "Jobs that wait")];
    let check = FnCheck::new("queue", "jobs", |cx| async move {
        assert!(cx.tier() == Tier::Vitals);
        Ok(Observation::new().gauge("waiting_count", 12.0))
    })
    .with_tiers(&[Tier::Vitals])
    .with_metrics(METRICS)
    .with_rule(Rule::above("waiting_count", "queue.long").warning(10.0));
    let seen = probe(&check).await.unwrap();
    assert_eq!(verdict(&check, &seen).findings[0].code, "queue.long");
    assert_eq!(check.endpoint().to_string(), "jobs://");
}
