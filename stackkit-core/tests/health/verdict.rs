//! What one look at a stack says.

use std::time::Duration;

use stackkit_core::health::{Axis, LIVE, Limit, Metric, READY, Rule, STARTUP, Status, Thresholds, Tier};
use stackkit_core::{ErrorKind, Intervals, Monitor, ServiceExt, Stack};
use tokio::time::{Instant, advance};

use super::{Answer, DOWN, codes, entry, plain, scripted, stack, status, until};

#[tokio::test(start_paused = true)]
async fn check_now_probes_all_at_once_and_a_hang_ends_at_its_deadline() {
    let (hanging, log) = scripted("hanging", [Answer::Hangs]);
    let (healthy, _) = scripted("healthy", [Answer::Healthy]);
    let stack = Stack::builder("s").service(hanging).service(healthy.optional()).build().unwrap();
    let started = Instant::now();
    // In a task, as a handler of a server is: the future must be `Send`.
    let report = tokio::spawn(async move { stack.check_now(&[]).await }).await.unwrap();
    // With the moment that is left to a probe that keeps its deadline, to say in which phase it waited.
    let took = started.elapsed().checked_sub(Intervals::default().timeout).unwrap();
    assert!(took <= Duration::from_millis(20), "{took:?}");
    assert_eq!(status(&report, "hanging"), Status::Unhealthy);
    assert_eq!(status(&report, "healthy"), Status::Healthy);
    assert_eq!(report.service("hanging").unwrap().failure.as_ref().unwrap().kind, ErrorKind::Timeout);
    assert_eq!(log.resets(), 1, "a timeout resets the connection");
    assert!(!report.ready);
}

#[tokio::test(start_paused = true)]
async fn a_panic_stays_in_its_probe() {
    let (panicking, log) = scripted("p", [Answer::Panics]);
    let stack = Stack::builder("s").service(panicking.optional()).build().unwrap();
    let report = stack.check_now(&[]).await;
    assert_eq!(report.service("p").unwrap().failure.as_ref().unwrap().kind, ErrorKind::Unexpected);
    assert_eq!(log.resets(), 1);
    assert!(report.ready, "an optional failure leaves the stack ready");
    assert_eq!(report.status, Status::Degraded);
}

#[tokio::test(start_paused = true)]
async fn a_report_holds_no_driver_text() {
    let (failing, _) = scripted("f", [Answer::Fails(ErrorKind::Unreachable)]);
    let stack = Stack::builder("s").service(failing).build().unwrap();
    let json = serde_json::to_string(&stack.check_now(&[]).await).unwrap();
    assert!(json.contains("as scripted") && !json.contains("driver text"), "{json}");
}

#[tokio::test(start_paused = true)]
async fn thresholds_make_the_verdict() {
    let (service, _) = scripted("a", [Answer::Load(0.99)]);
    let limits = Thresholds::new().with_limit("load_ratio", Limit::FailAbove(0.95));
    let stack = Stack::builder("s").service(service.with_thresholds(limits)).build().unwrap();
    let report = stack.check_now(&[]).await;
    assert_eq!(report.status, Status::Unhealthy);
    assert_eq!(report.service("a").unwrap().exceeded.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_on_an_inventory_measurement_holds_between_inventories() {
    let (service, log) = scripted("a", [Answer::Healthy]);
    let limits = Thresholds::new().with_limit("size_bytes", Limit::WarnAbove(7.0));
    let stack = Stack::builder("s").service(service.with_thresholds(limits)).build().unwrap();
    stack.check_now(&[]).await;
    advance(Duration::from_secs(1)).await;
    let monitor = Monitor::start(&stack);
    assert_eq!(status(&monitor.report(), "a"), Status::Unknown, "a new monitor believes no old probe");
    let report = monitor.wait_ready(Duration::from_secs(60)).await.unwrap();
    assert_eq!(log.tiers.lock().unwrap().last(), Some(&Tier::Vitals));
    assert_eq!(status(&report, "a"), Status::Degraded);
}

#[test]
fn an_interval_of_zero_is_a_fault() {
    let (service, _) = scripted("a", [Answer::Healthy]);
    let intervals = Intervals::new().with_poll(Duration::ZERO).with_timeout(Duration::ZERO);
    let error = Stack::builder("s").service(service.with_intervals(intervals)).build().unwrap_err().to_string();
    assert!(error.contains("a: ping is 0") && error.contains("a: timeout is 0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_look_on_demand_says_what_it_saw_and_not_what_was_seen_before() {
    let (service, log) = plain("a");
    let stack = stack([service]);
    assert_eq!(stack.check_now(&[]).await.status, Status::Healthy);
    log.say(DOWN);
    let report = stack.check_now(&[]).await;
    assert_eq!((report.status, report.ready), (Status::Unhealthy, false), "fall is for polling");
    assert_eq!(entry(&report, "a").axes.reach, Status::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_no_is_reached_and_not_ready() {
    for (kind, reach) in [
        (ErrorKind::Unauthenticated, Status::Healthy),
        (ErrorKind::Saturated, Status::Healthy),
        (ErrorKind::Timeout, Status::Unhealthy),
    ] {
        let (service, _) = scripted("a", [Answer::Fails(kind)]);
        let axes = entry(&stack([service]).check_now(&[]).await, "a").axes;
        assert_eq!((axes.reach, axes.ready), (reach, Status::Unhealthy), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_critical_risk_degrades_and_fails_readiness_only_if_asked() {
    let rule = || Rule::above("load_ratio", "a.load").critical(0.9).on(Axis::Risk).saying("busy", "rest");
    let (service, _) = scripted("a", [Answer::Load(0.95)]);
    let (strict, _) = scripted("strict", [Answer::Load(0.95)]);
    let strict = strict.ruled(rule()).with_thresholds(Thresholds::new().with_risk_failing_readiness());
    let report = stack([service.ruled(rule()).optional(), strict]).check_now(&[]).await;
    assert_eq!((status(&report, "a"), status(&report, "strict")), (Status::Degraded, Status::Unhealthy));
    assert_eq!(entry(&report, "a").axes.risk, Status::Unhealthy);
    assert_eq!(codes(&report, "a"), ["a.load"]);
}

#[tokio::test(start_paused = true)]
async fn criticality_says_what_a_failure_means() {
    for (entry, status, ready) in [
        (scripted("a", [DOWN]).0.into(), Status::Unhealthy, false),
        (scripted("a", [DOWN]).0.optional(), Status::Degraded, true),
        (scripted("a", [DOWN]).0.informational(), Status::Healthy, true),
    ] {
        let report = stack([entry]).check_now(&[]).await;
        assert_eq!((report.status, report.ready), (status, ready));
    }
}

#[tokio::test(start_paused = true)]
async fn groups_pass_by_their_own_members() {
    let (process, process_log) = plain("process");
    let (worker, worker_log) = plain("worker");
    let (api, _) = plain("api");
    let monitor = Monitor::start(&stack([
        process.on(&[Tier::Process]).in_groups([LIVE]),
        worker.in_groups(["jobs", STARTUP]),
        api.in_groups([READY]),
    ]));
    let passing = |name: &str| monitor.report().group(name).unwrap().passing;
    assert!(passing(LIVE) && !passing(READY) && !passing(STARTUP) && !passing("jobs"), "nothing was probed yet");
    until(&monitor, |report| report.status == Status::Healthy).await;
    assert!(passing(LIVE) && passing(READY) && passing(STARTUP) && passing("jobs"));
    process_log.say(DOWN);
    worker_log.say(DOWN);
    let fell = |id| move |report: &stackkit_core::Report| status(report, id) == Status::Unhealthy;
    until(&monitor, fell("worker")).await;
    until(&monitor, fell("process")).await;
    assert!(!passing(LIVE) && !passing("jobs"));
    assert!(passing(STARTUP), "what has started has started");
    assert!(passing(READY) && monitor.report().ready, "neither is in the group ready");
}

#[test]
fn what_asks_a_server_cant_be_in_the_group_live() {
    let (ping, _) = plain("ping");
    let error = Stack::builder("s").service(ping.in_groups([LIVE])).build().unwrap_err().to_string();
    assert!(error.contains("stack.live.remote") && error.contains("ping is in the group live"), "{error}");
    let (mixed, _) = plain("mixed");
    let mixed = mixed.on(&[Tier::Process, Tier::Ping]).in_groups([LIVE]);
    assert!(Stack::builder("s").service(mixed).build().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_report_prints_what_is_to_be_known() {
    let (db, _) = scripted("db", [DOWN]);
    let (app, _) = scripted("app", [DOWN]);
    let text = stack([db.into(), app.after(["db"])]).check_now(&[]).await.to_string();
    assert!(text.starts_with("s: unhealthy, not ready\n"), "{text}");
    assert!(text.contains("unreachable: db: as scripted") && text.contains("because of db"), "{text}");
}

const LOAD: Metric = Metric::gauge("load_ratio", "proc.loadavg", "How busy it is");

#[tokio::test(start_paused = true)]
async fn a_measurement_says_where_it_was_read() {
    let (service, _) = scripted("a", [Answer::Load(0.5)]);
    let report = stack([service.measuring(&[LOAD])]).check_now(&[]).await;
    let seen = entry(&report, "a").observation.as_ref().unwrap();
    assert_eq!(seen.measurements[0].source.as_deref(), Some("proc.loadavg"));
}

#[test]
fn a_threshold_on_nothing_is_a_warning_no_number_and_no_tier_are_faults() {
    let limited = |name: &str| {
        let service = scripted("a", [Answer::Healthy]).0.measuring(&[LOAD]);
        let limits = Thresholds::new().with_limit(name, Limit::WarnAbove(0.5));
        Stack::builder("s").service(service.with_thresholds(limits)).build().unwrap()
    };
    assert_eq!(limited("load_ratio").warnings().len(), 0);
    assert_eq!(limited("laod_ratio").warnings()[0].code, "stack.threshold.unknown");
    let (odd, _) = plain("odd");
    let odd = odd.with_thresholds(Thresholds::new().with_limit("load_ratio", Limit::FailAbove(f64::NAN)));
    let error = Stack::builder("s").service(odd).build().unwrap_err().to_string();
    assert!(
        error.contains("the limit of load_ratio is not a number") && error.contains("stack.threshold.nan"),
        "{error}"
    );
    let (none, _) = plain("none");
    assert!(Stack::builder("s").service(none.on(&[])).build().unwrap_err().to_string().contains("stack.tiers.none"));
}
