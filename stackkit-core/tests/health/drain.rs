//! Drain and maintenance.

use std::time::Duration;

use stackkit_core::health::{LIVE, READY, STARTUP, Status};
use stackkit_core::{ErrorKind, Intervals, Monitor, ServiceExt};
use tokio::time::timeout;

use super::{Answer, DOWN, entry, pass, plain, stack, status, until, within_an_hour};

const AT_ONCE: fn() -> Intervals = || Intervals::new().with_fall(1);

#[tokio::test(start_paused = true)]
async fn a_drain_turns_readiness_off_at_once_and_nothing_else() {
    let (service, log) = plain("a");
    let monitor = Monitor::start(&stack([service]));
    until(&monitor, |report| report.ready).await;
    monitor.begin_drain();
    let report = monitor.report();
    assert!(report.draining && !report.ready, "without any await in between");
    let passing = |name: &str| report.group(name).unwrap().passing;
    assert!(!passing(READY) && passing(LIVE) && passing(STARTUP));
    assert_eq!(report.status, Status::Healthy, "the services are well");
    let before = log.probes();
    pass(Duration::from_secs(60)).await;
    assert!(log.probes() > before + 2, "probing goes on");
    assert!(!monitor.report().ready, "for good");
    assert!(monitor.report().to_string().starts_with("s: healthy, not ready, draining"));
}

#[tokio::test(start_paused = true)]
async fn a_service_in_maintenance_counts_for_nothing_and_is_not_told() {
    let (service, log) = plain("a");
    let (other, _) = plain("other");
    let monitor = Monitor::start(&stack([service.with_intervals(AT_ONCE()), other.into()]));
    until(&monitor, |report| report.ready).await;
    let mut changes = monitor.changes();
    monitor.begin_maintenance("a", Duration::from_secs(600)).unwrap();
    log.say(DOWN);
    let down = until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    assert!(entry(&down, "a").maintenance_until.is_some());
    assert_eq!((down.status, down.ready), (Status::Healthy, true), "it is shown, and counts for nothing");
    assert!(timeout(Duration::from_secs(500), changes.next()).await.is_err(), "and it is not told");
    let ended = within_an_hour(changes.next()).await.unwrap();
    assert_eq!((ended.from, ended.to), (Status::Healthy, Status::Unhealthy), "what it came to is told at its end");
    let report = monitor.report();
    assert_eq!((entry(&report, "a").maintenance_until, report.ready), (None, false));
}

#[tokio::test(start_paused = true)]
async fn a_maintenance_that_changed_nothing_ends_in_silence() {
    let (service, log) = plain("a");
    let monitor = Monitor::start(&stack([service.with_intervals(AT_ONCE())]));
    until(&monitor, |report| report.ready).await;
    let mut changes = monitor.changes();
    monitor.begin_maintenance("a", Duration::from_secs(600)).unwrap();
    log.say(DOWN);
    until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    log.say(Answer::Healthy);
    until(&monitor, |report| status(report, "a") == Status::Healthy).await;
    monitor.end_maintenance("a").unwrap();
    assert_eq!(entry(&monitor.report(), "a").maintenance_until, None);
    assert!(timeout(Duration::from_secs(900), changes.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_second_announcement_sets_another_end_and_nobody_else_is_meant() {
    let (service, _) = plain("a");
    let monitor = Monitor::start(&stack([service]));
    until(&monitor, |report| report.ready).await;
    monitor.begin_maintenance("a", Duration::from_secs(600)).unwrap();
    let first = entry(&monitor.report(), "a").maintenance_until.unwrap();
    monitor.begin_maintenance("a", Duration::from_secs(60)).unwrap();
    assert!(entry(&monitor.report(), "a").maintenance_until.unwrap() < first);
    until(&monitor, |report| entry(report, "a").maintenance_until.is_none()).await;
    assert_eq!(monitor.begin_maintenance("b", Duration::MAX).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(monitor.end_maintenance("b").unwrap_err().kind(), ErrorKind::NotFound);
    monitor.begin_maintenance("a", Duration::MAX).unwrap();
}
