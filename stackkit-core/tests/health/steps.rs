//! Somebody sets the clock; and what is recorded over hours.

use std::time::Duration;

use super::{Answer, DOWN, entry, pass, plain, stack, status, until};
use jiff::Timestamp;
use stackkit_core::health::{HISTORY_MINUTES, History, Status};
use stackkit_core::{Clock, Intervals, Monitor, ServiceExt, Stack};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn start() -> Timestamp {
    "2026-11-21T06:00:00Z".parse().unwrap()
}

/// Lets both clocks go for a time.
async fn both_pass(clock: &Clock, time: Duration) {
    for _ in 0..time.as_secs() {
        pass(SECOND).await;
        clock.advance(SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_clock_changes_no_verdict_no_age_and_no_history() {
    for step in [-10 * 3600, 10 * 3600] {
        let clock = Clock::fixed(start());
        let (service, log) = plain("a");
        let service = service.with_intervals(Intervals::new().with_fall(1));
        let monitor = Monitor::start(&Stack::builder("s").clock(clock.clone()).service(service).build().unwrap());
        until(&monitor, |report| report.ready).await;
        both_pass(&clock, HOUR / 4).await;
        log.say(DOWN);
        until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
        log.say(Answer::Healthy);
        until(&monitor, |report| report.ready).await;
        both_pass(&clock, HOUR / 4).await;
        let mut changes = monitor.changes();
        let before = monitor.history("a").unwrap();
        monitor.begin_maintenance("a", HOUR).unwrap();

        clock.set(clock.now().checked_add(jiff::SignedDuration::from_secs(step)).unwrap());
        assert!(monitor.report().ready, "a step makes nothing stale");
        both_pass(&clock, Duration::from_secs(60)).await;
        let report = monitor.report();
        assert!(report.ready);
        assert!(tokio::time::timeout(Duration::ZERO, changes.next()).await.is_err(), "nothing is told");
        let age = |at: Timestamp| clock.now().duration_since(at).as_secs();
        let since = age(entry(&report, "a").since);
        assert!((15 * 60..18 * 60).contains(&since), "it has been so for a quarter of an hour: {since}");
        assert!((0..=20).contains(&age(entry(&report, "a").checked_at.unwrap())));
        assert!(entry(&report, "a").maintenance_until.is_some(), "it ends by the time that passes");

        let after = monitor.history("a").unwrap();
        assert!((0..=2).contains(&(after.minutes.len() - before.minutes.len())));
        let last = age(after.changes.last().unwrap().at);
        assert!((15 * 60..18 * 60).contains(&last), "{last}");
        let minute = age(after.minutes[0].at);
        assert!((30 * 60..36 * 60).contains(&minute), "{minute}");
    }
}

fn ready_ratio(history: &History) -> f64 {
    history.availability.hour_ratio.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_in_the_history_for_its_time() {
    let (service, log) = plain("a");
    let monitor = Monitor::start(&stack([service.with_intervals(Intervals::new().with_fall(1))]));
    until(&monitor, |report| report.ready).await;
    pass(HOUR / 2).await;
    assert_eq!(ready_ratio(&monitor.history("a").unwrap()), 1.0);
    log.say(DOWN);
    pass(HOUR / 4).await;
    log.say(Answer::Healthy);
    pass(HOUR / 4).await;
    let history = monitor.history("a").unwrap();
    assert!((0.73..0.77).contains(&ready_ratio(&history)), "a quarter was lost: {:?}", history.availability);
    let changes: Vec<Status> = history.changes.iter().map(|change| change.to).collect();
    assert_eq!(changes, [Status::Healthy, Status::Unhealthy, Status::Healthy]);
    let down = history.minutes.iter().filter(|minute| minute.status == Some(Status::Unhealthy)).count();
    assert!((14..=17).contains(&down), "{down}");
    pass(HOUR * 2).await;
    let history = monitor.history("a").unwrap();
    assert_eq!(ready_ratio(&history), 1.0, "it is more than an hour ago");
    assert!((0.90..0.93).contains(&history.availability.day_ratio.unwrap()), "{:?}", history.availability);
    assert_eq!(entry(&monitor.report(), "a").availability.hour_ratio, Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_looked_at_rarely_is_known_all_the_time() {
    let (service, log) = plain("a");
    let monitor = Monitor::start(&stack([service.with_intervals(Intervals::new().with_poll(HOUR / 6))]));
    until(&monitor, |report| report.ready).await;
    pass(HOUR * 2 + Duration::from_secs(30)).await;
    let history = monitor.history("a").unwrap();
    assert!(log.probes() < 16);
    assert!(history.minutes.iter().all(|minute| minute.status == Some(Status::Healthy)), "{history:?}");
    assert_eq!(ready_ratio(&history), 1.0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_after_the_monitor_is_gone_and_that_is_no_outage() {
    let (service, _) = plain("a");
    let monitor = Monitor::start(&stack([service]));
    until(&monitor, |report| report.ready).await;
    pass(HOUR).await;
    let snapshot = monitor.snapshot();
    drop(monitor);
    pass(HOUR * 3).await;
    let history = snapshot.history("a").unwrap();
    assert_eq!(history.minutes.last().unwrap().status, None);
    assert_eq!(history.availability.day_ratio, Some(1.0));
    assert_eq!(history.availability.hour_ratio, None);
    assert!(history.minutes.len() <= HISTORY_MINUTES && snapshot.history("b").is_none());
}
