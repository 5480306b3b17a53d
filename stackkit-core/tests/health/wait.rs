//! Waiting until a stack is ready.

use std::time::Duration;

use stackkit_core::{Error, ErrorKind, Monitor, Phase, ServiceExt, Stack};
use tokio::time::Instant;

use super::{Answer, DOWN, plain, scripted, stack};

#[tokio::test(start_paused = true)]
async fn wait_ready_waits_for_a_starting_server() {
    let starting = Answer::Fails(ErrorKind::Starting);
    let (service, log) = scripted("a", [starting.clone(), starting.clone(), starting, Answer::Healthy]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let started = Instant::now();
    assert!(monitor.wait_ready(Duration::from_secs(60)).await.unwrap().ready);
    assert!(started.elapsed() < Duration::from_millis(200), "start-up polls are close together");
    assert_eq!(log.probes(), 4);
}

#[tokio::test(start_paused = true)]
async fn wait_ready_fails_at_once_on_a_wrong_password() {
    let (service, log) = scripted("a", [Answer::Fails(ErrorKind::Unauthenticated)]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let started = Instant::now();
    let error = monitor.wait_ready(Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(error.to_string().contains("mend this: a: "), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(log.probes(), 1, "a wrong password is not tried again at once");
}

#[tokio::test(start_paused = true)]
async fn wait_ready_names_what_is_missing() {
    let (down, _) = scripted("down", [Answer::Fails(ErrorKind::Unreachable)]);
    let (up, _) = scripted("up", [Answer::Healthy]);
    let stack = Stack::builder("s").service(down).service(up).build().unwrap();
    let error = Monitor::start(&stack).wait_ready(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("down") && !error.to_string().contains("up:"), "{error}");
}

fn coded(kind: ErrorKind, phase: Phase, code: &'static str) -> Answer {
    let error = move || Error::new(kind, "as scripted").with_phase(phase).with_code(code);
    Answer::Own(std::sync::Arc::new(move |_cx| Err(error())))
}

#[tokio::test(start_paused = true)]
async fn at_its_deadline_it_says_attempts_kind_phase_code_and_time_of_each() {
    let (db, log) = scripted("db", [coded(ErrorKind::Unreachable, Phase::Connect, "ECONNREFUSED")]);
    let (app, _) = scripted("app", [DOWN]);
    let (slow, _) = scripted("slow", [Answer::Hangs]);
    let monitor = Monitor::start(&stack([db.into(), app.after(["db"]), slow.into()]));
    let error = monitor.wait_ready(Duration::from_millis(2500)).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let db = format!("db: unhealthy for 2.5 s after {} probes, unreachable at connect, ECONNREFUSED: ", log.probes());
    assert!(text.contains(&db), "{db} is not in: {text}");
    assert!(text.contains("app: unknown for ") && text.contains(" because of db, unreachable: "), "{text}");
    assert!(text.contains("slow: unknown, no probe has ended yet"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_tells_its_code_once() {
    let (db, _) = scripted("db", [coded(ErrorKind::Unauthenticated, Phase::Auth, "28P01")]);
    let error = Monitor::start(&stack([db])).wait_ready(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.code(), Some("28P01"));
    assert_eq!(error.to_string().matches("28P01").count(), 1, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_waits_for_what_it_needs() {
    // A database that a migration makes: missing until its server is up and the migration has run.
    let (db, db_log) = scripted("db", [DOWN]);
    let (app, app_log) = scripted("app", [Answer::Fails(ErrorKind::NotFound)]);
    let monitor = Monitor::start(&stack([db.into(), app.after(["db"])]));
    let error = monitor.wait_ready(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    db_log.say(Answer::Healthy);
    app_log.say(Answer::Healthy);
    let since = Instant::now();
    monitor.wait_ready(Duration::from_secs(60)).await.unwrap();
    assert!(
        since.elapsed() < Duration::from_secs(6),
        "it is looked at as soon as what it needs is well: {:?}",
        since.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_of_an_optional_cause_ends_the_waiting() {
    let (db, _) = scripted("db", [Answer::Fails(ErrorKind::Unauthenticated)]);
    let (app, _) = scripted("app", [DOWN]);
    let monitor = Monitor::start(&stack([db.optional(), app.after(["db"])]));
    let since = Instant::now();
    let error = monitor.wait_ready(Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_one_waits_for_what_it_needs_and_for_no_other() {
    let (db, db_log) = scripted("db", [DOWN]);
    let (app, _) = plain("app");
    let (other, _) = scripted("other", [DOWN]);
    let monitor = Monitor::start(&stack([db.optional(), app.after(["db"]), other.into()]));
    let error = monitor.wait_ready_of(["app"], Duration::from_secs(2)).await.unwrap_err();
    assert!(error.to_string().contains("db: unhealthy") && !error.to_string().contains("other"), "{error}");
    db_log.say(Answer::Healthy);
    assert!(!monitor.wait_ready_of(["app"], Duration::from_secs(60)).await.unwrap().ready, "the other one is down");
    let error = monitor.wait_ready_of(["nobody"], Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("there are: db, app, other"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_drains_is_not_waited_for() {
    let (service, _) = plain("a");
    let monitor = Monitor::start(&stack([service]));
    monitor.begin_drain();
    let since = Instant::now();
    let error = monitor.wait_ready(Duration::from_secs(60)).await.unwrap_err();
    assert_eq!((error.kind(), since.elapsed()), (ErrorKind::Cancelled, Duration::ZERO));
}
