//! Rise, fall, grace, flapping, staleness.

use std::time::Duration;

use stackkit_core::health::{Limit, Status, Thresholds};
use stackkit_core::{ErrorKind, Intervals, Monitor, ServiceExt, Stack};
use tokio::time::{Instant, advance, interval};

use super::{Answer, DOWN, codes, entry, plain, scripted, stack, status, until, within_an_hour};

#[tokio::test(start_paused = true)]
async fn before_the_first_probe_nothing_is_ready() {
    let (hanging, _) = scripted("h", [Answer::Hangs]);
    let stack = Stack::builder("s").service(hanging).build().unwrap();
    let monitor = Monitor::start(&stack);
    assert_eq!(monitor.report().status, Status::Unknown);
    assert!(!monitor.report().ready);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_poll_turns_unknown() {
    let (service, _) = scripted("a", [Answer::Healthy, Answer::Hangs]);
    let intervals = Intervals::new().with_timeout(Duration::from_secs(3600));
    let stack = Stack::builder("s").service(service.with_intervals(intervals)).build().unwrap();
    let monitor = Monitor::start(&stack);
    let snapshot = monitor.snapshot();
    monitor.wait_ready(Duration::from_secs(1)).await.unwrap();
    advance(Duration::from_secs(3000)).await;
    assert!(snapshot.report().ready);
    advance(Duration::from_secs(1000)).await;
    drop(monitor);
    assert_eq!(status(&snapshot.report(), "a"), Status::Unknown);
    assert!(!snapshot.report().ready);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_looked_at_rarely_does_not_grow_stale_meanwhile() {
    let (service, log) = scripted("a", [Answer::Fails(ErrorKind::Unauthenticated)]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let mut tick = interval(Duration::from_secs(1));
    tick.tick().await;
    while log.probes() < 3 {
        tick.tick().await;
        assert_eq!(status(&monitor.report(), "a"), Status::Unhealthy);
    }
}

#[tokio::test(start_paused = true)]
async fn fall_failures_in_a_row_make_it_unhealthy_and_the_axes_agree() {
    let (service, log) = plain("a");
    let monitor = Monitor::start(&stack([service]));
    until(&monitor, |report| report.ready).await;
    log.say(DOWN);
    let held = until(&monitor, |report| entry(report, "a").failure.is_some()).await;
    assert_eq!((held.status, entry(&held, "a").axes.reach), (Status::Healthy, Status::Healthy));
    let fallen = until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    assert_eq!(entry(&fallen, "a").failures_count, 3);
    assert_eq!(entry(&fallen, "a").axes.reach, Status::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn rise_successes_come_as_fast_as_failures_are_looked_at() {
    let (service, log) = plain("a");
    let intervals = Intervals::new().with_rise(4).with_fall(1).with_poll(Duration::from_secs(60));
    let monitor = Monitor::start(&stack([service.with_intervals(intervals)]));
    until(&monitor, |report| report.ready).await;
    log.say(DOWN);
    until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    log.say(Answer::Healthy);
    let since = Instant::now();
    let risen = until(&monitor, |report| status(report, "a") == Status::Healthy).await;
    assert_eq!(entry(&risen, "a").successes_count, 4);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn in_its_grace_a_service_that_was_never_up_is_unknown() {
    let (service, _) = scripted("a", [DOWN]);
    let grace = Duration::from_secs(30);
    let monitor = Monitor::start(&stack([service.with_intervals(Intervals::new().with_startup_grace(grace))]));
    let since = Instant::now();
    until(&monitor, |report| entry(report, "a").failure.is_some()).await;
    assert_eq!(monitor.report().status, Status::Unknown);
    until(&monitor, |report| report.status == Status::Unhealthy).await;
    assert!((30..36).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
}

/// Lets a service turn so often that it flaps; it is up at the end.
const TURNS: [Answer; 8] =
    [Answer::Healthy, DOWN, Answer::Healthy, DOWN, Answer::Healthy, DOWN, Answer::Healthy, Answer::Healthy];

#[tokio::test(start_paused = true)]
async fn flapping_is_found_told_once_and_over_once() {
    let (service, _) = scripted("a", TURNS);
    let service = service.on(&[stackkit_core::health::Tier::Vitals]);
    let monitor = Monitor::start(&stack([service.with_intervals(Intervals::new().with_fall(1))]));
    let mut changes = monitor.changes();
    let mut told = Vec::new();
    loop {
        let change = within_an_hour(changes.next()).await.unwrap();
        told.push((change.to, change.flapping));
        if change.flapping {
            break;
        }
    }
    let (up, down) = ((Status::Healthy, false), (Status::Unhealthy, false));
    assert_eq!(told, [up, down, up, down, up, down, (Status::Healthy, true)]);
    let flapping = monitor.report();
    assert!(entry(&flapping, "a").flapping);
    assert_eq!(codes(&flapping, "a"), ["health.flapping"]);
    let calm = within_an_hour(changes.next()).await.unwrap();
    assert_eq!((calm.to, calm.flapping), (Status::Healthy, false));
    assert_eq!(codes(&monitor.report(), "a"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn hovering_at_a_threshold_is_flapping_too() {
    let loads = [0.7, 0.9, 0.7, 0.9, 0.7, 0.9, 0.7, 0.9].map(Answer::Load);
    let (service, _) = scripted("a", loads);
    let limits = Thresholds::new().with_limit("load_ratio", Limit::WarnAbove(0.8));
    let service = service.on(&[stackkit_core::health::Tier::Vitals]).with_thresholds(limits);
    let monitor = Monitor::start(&stack([service]));
    until(&monitor, |report| entry(report, "a").flapping).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_monitor_is_gone_everything_grows_unknown_on_read() {
    let (service, _) = plain("a");
    let monitor = Monitor::start(&stack([service]));
    until(&monitor, |report| report.ready).await;
    let snapshot = monitor.snapshot();
    drop(monitor);
    assert!(snapshot.report().ready, "what was seen a moment ago still holds");
    advance(Duration::from_secs(60)).await;
    assert_eq!((snapshot.report().status, snapshot.report().ready), (Status::Unknown, false));
}

#[tokio::test(start_paused = true)]
async fn a_new_monitor_believes_no_old_failure() {
    let (service, log) = scripted("a", [Answer::Fails(ErrorKind::Unauthenticated)]);
    let stack = stack([service]);
    stack.check_now(&[]).await;
    log.say(Answer::Healthy);
    let monitor = Monitor::start(&stack);
    monitor.wait_ready(Duration::from_secs(5)).await.expect("the password was mended since");
}
