//! Probes that do not let go: on real threads and real time.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use stackkit_core::health::Status;
use stackkit_core::{ErrorKind, Intervals, Monitor, Observation, ProbeContext, ServiceExt, Stack};
use tokio::time::{Instant, interval, timeout};

use super::{Answer, codes, entry, scripted, stack, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_thread_stays_the_only_one() {
    let (release, until) = mpsc::channel();
    let (blocking, log) = scripted("a", [Answer::Blocks(Arc::new(Mutex::new(until))), Answer::Healthy]);
    let mut intervals = Intervals::new().with_timeout(Duration::from_millis(10));
    intervals.inventory_timeout = Duration::from_millis(10);
    let stack = Stack::builder("s").service(blocking.with_intervals(intervals)).build().unwrap();
    for _ in 0..4 {
        let report = timeout(Duration::from_secs(20), stack.check_now(&[])).await.expect("the runtime is blocked");
        assert_eq!(report.service("a").unwrap().failure.as_ref().unwrap().kind, ErrorKind::Timeout);
    }
    assert_eq!(log.probes(), 1, "a second probe would block a second thread");
    drop(release);
    let healthy = async {
        let mut tick = interval(Duration::from_millis(5));
        while !stack.check_now(&[]).await.ready {
            tick.tick().await;
        }
    };
    timeout(Duration::from_secs(20), healthy).await.expect("the probe let go of its thread, but nothing probes again");
}

/// A service whose next probe blocks its thread until the sender is dropped.
fn blocking() -> (mpsc::Sender<()>, Answer) {
    let (release, until) = mpsc::channel();
    (release, Answer::Blocks(Arc::new(Mutex::new(until))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_probe_is_reported_with_its_time_and_its_end() {
    let (release, blocks) = blocking();
    let (service, log) = scripted("a", [blocks, Answer::Healthy]);
    let intervals =
        Intervals::new().with_timeout(Duration::from_millis(50)).with_poll_failing(Duration::from_millis(20));
    let since = Instant::now();
    let monitor = Monitor::start(&stack([service.with_intervals(intervals)]));
    let stuck = until(&monitor, |report| entry(report, "a").stuck_since.is_some()).await;
    assert!(since.elapsed() < Duration::from_millis(50 + 1000), "{:?}", since.elapsed());
    assert_eq!(codes(&stuck, "a"), ["health.stuck"]);
    assert_eq!(entry(&stuck, "a").status, Status::Unhealthy);
    let told = |report: &stackkit_core::Report| {
        entry(report, "a").failure.as_ref().is_some_and(|failure| failure.message.contains("has held its thread for "))
    };
    until(&monitor, told).await;
    assert_eq!((log.probes(), log.resets()), (1, 0), "nothing is called beside it");
    drop(release);
    let free = until(&monitor, |report| report.ready).await;
    assert_eq!(entry(&free, "a").stuck_since, None);
    assert_eq!(log.resets(), 1, "what was stuck is dropped before the next probe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_probe_whose_caller_went_away_stays_the_only_one() {
    let (release, blocks) = blocking();
    let (service, log) = scripted("a", [blocks, Answer::Healthy]);
    let stack = stack([service]);
    for _ in 0..3 {
        // A handler with a deadline of its own gives up before the probe's.
        let _ = timeout(Duration::from_millis(100), stack.check_now(&[])).await;
    }
    assert_eq!(log.probes(), 1);
    let report = timeout(Duration::from_secs(20), stack.check_now(&[])).await.unwrap();
    assert_eq!(entry(&report, "a").failure.as_ref().unwrap().kind, ErrorKind::Timeout);
    assert!(entry(&report, "a").stuck_since.is_some());
    drop(release);
}

#[tokio::test]
async fn an_answer_long_after_the_deadline_is_none() {
    // The only thread of the runtime is blocked, so no timer can end the probe.
    let blocks = |_: &ProbeContext| {
        let (_kept, nothing) = mpsc::channel::<()>();
        let _ = nothing.recv_timeout(Duration::from_millis(1200));
        Ok(Observation::new())
    };
    let (service, log) = scripted("a", [Answer::Own(Arc::new(blocks)), Answer::Healthy]);
    let stack = stack([service.with_intervals(Intervals::new().with_timeout(Duration::from_millis(10)))]);
    let report = stack.check_now(&[]).await;
    let failure = entry(&report, "a").failure.as_ref().unwrap();
    assert_eq!(failure.kind, ErrorKind::Timeout);
    assert!(failure.message.contains("long after"), "{failure:?}");
    assert!(stack.check_now(&[]).await.ready);
    assert_eq!(log.resets(), 1, "what it left is dropped");
}
