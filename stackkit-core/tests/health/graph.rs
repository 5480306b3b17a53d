//! What depends on what: a cause is shown once.

use std::time::Duration;

use stackkit_core::health::Status;
use stackkit_core::{Intervals, Monitor, ServiceExt, Stack};
use tokio::time::{Instant, timeout};

use super::{Answer, DOWN, entry, plain, scripted, stack, status, until};

fn causes(report: &stackkit_core::Report, id: &str) -> Vec<String> {
    entry(report, id).caused_by.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn the_root_is_named_however_far_and_alone_is_unhealthy() {
    let (db, _) = scripted("db", [DOWN]);
    let (api, _) = scripted("api", [DOWN]);
    let (web, _) = scripted("web", [DOWN]);
    let (other, _) = scripted("other", [DOWN]);
    let report = stack([web.after(["api"]), api.after(["db"]), db.optional(), other.into()]).check_now(&[]).await;
    assert_eq!((status(&report, "db"), status(&report, "other")), (Status::Unhealthy, Status::Unhealthy));
    for id in ["web", "api"] {
        assert_eq!((status(&report, id), causes(&report, id)), (Status::Unknown, vec!["db".to_owned()]), "{id}");
    }
    assert_eq!(causes(&report, "other"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_root_behind_something_well_is_found_and_two_are_both_named() {
    let (db, _) = scripted("db", [DOWN]);
    let (queue, _) = scripted("queue", [DOWN]);
    let (cache, _) = plain("cache");
    let (app, _) = scripted("app", [DOWN]);
    let (fine, _) = plain("fine");
    let report = stack([
        db.into(),
        queue.into(),
        cache.after(["db"]),
        app.after(["cache", "queue"]),
        fine.after(["db", "queue"]),
    ])
    .check_now(&[])
    .await;
    assert_eq!(causes(&report, "app"), ["db", "queue"]);
    assert_eq!(
        (status(&report, "cache"), status(&report, "fine")),
        (Status::Healthy, Status::Healthy),
        "what works works"
    );
}

#[tokio::test(start_paused = true)]
async fn when_the_cause_heals_the_service_is_back_without_a_false_alarm() {
    let (db, db_log) = plain("db");
    let (app, app_log) = plain("app");
    let intervals = Intervals::new().with_fall(1).with_rise(2);
    let services = [db.with_intervals(intervals), app.after(["db"]).with_intervals(intervals)];
    let monitor = Monitor::start(&stack(services));
    until(&monitor, |report| report.ready).await;
    db_log.say(DOWN);
    until(&monitor, |report| status(report, "db") == Status::Unhealthy).await;
    app_log.say(DOWN);
    let blamed = until(&monitor, |report| status(report, "app") == Status::Unknown).await;
    assert_eq!(causes(&blamed, "app"), ["db"]);
    let mut changes = monitor.changes();
    app_log.say(Answer::Healthy);
    db_log.say(Answer::Healthy);
    let since = Instant::now();
    let mut told = Vec::new();
    while let Ok(Some(change)) = timeout(Duration::from_secs(120), changes.next()).await {
        told.push((change.service.to_string(), change.from, change.to));
    }
    let told: Vec<_> = told.iter().map(|(id, from, to)| (id.as_str(), *from, *to)).collect();
    assert!(told.contains(&("app", Status::Unknown, Status::Healthy)), "{told:?}");
    assert!(told.contains(&("db", Status::Unhealthy, Status::Healthy)), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(causes(&monitor.report(), "app"), [""; 0]);
    assert!(since.elapsed() > Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn what_fails_by_itself_after_its_cause_healed_is_unhealthy() {
    let (db, db_log) = scripted("db", [DOWN]);
    let (app, _) = scripted("app", [DOWN]);
    let monitor = Monitor::start(&stack([db, app].map(|service| match service.id.as_str() {
        "app" => service.after(["db"]),
        _ => service.into(),
    })));
    until(&monitor, |report| causes(report, "app") == ["db"]).await;
    db_log.say(Answer::Healthy);
    let report = until(&monitor, |report| status(report, "app") == Status::Unhealthy).await;
    assert_eq!(causes(&report, "app"), [""; 0]);
    assert_eq!(status(&report, "db"), Status::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_failure_makes_what_it_needs_be_looked_at_once_or_a_few_times_and_no_more() {
    let (db, db_log) = plain("db");
    let (app, app_log) = plain("app");
    let slow = Intervals::new().with_poll(Duration::from_secs(3600));
    let monitor = Monitor::start(&stack([db.with_intervals(slow), app.after(["db"])]));
    until(&monitor, |report| report.ready).await;
    app_log.say(DOWN);
    until(&monitor, |report| entry(report, "app").failures_count >= 20).await;
    assert!((2..=4).contains(&db_log.probes()), "{}", db_log.probes());
}

#[test]
fn circles_and_strangers_are_named_at_once() {
    let named = |id: &str, after: &[&str]| plain(id).0.after(after.iter().copied());
    let build = |entries: Vec<stackkit_core::StackEntry>| {
        entries
            .into_iter()
            .fold(Stack::builder("s"), |stack, entry| stack.service(entry))
            .build()
            .unwrap_err()
            .to_string()
    };
    let error = build(vec![named("a", &["b"]), named("b", &["c"]), named("c", &["b"]), named("d", &["x"])]);
    assert!(error.contains("in a circle: b -> c -> b"), "{error}");
    assert!(error.contains("d comes after x, which is not in the stack"), "{error}");
    assert!(build(vec![named("self", &["self"])]).contains("self -> self"));
}

#[tokio::test(start_paused = true)]
async fn a_long_chain_is_built_and_blamed_in_no_time() {
    const LENGTH: usize = 5_000;
    let link = |at: usize| {
        let (service, _) = scripted(&format!("s{at}"), [DOWN]);
        if at == 0 { service.into() } else { service.after([format!("s{}", at - 1)]) }
    };
    let stack = stack((0..LENGTH).rev().map(link));
    let report = stack.check_now(&[]).await;
    let blamed = report.services.iter().filter(|service| service.caused_by.iter().any(|cause| *cause == "s0")).count();
    assert_eq!(blamed, LENGTH - 1);
}
