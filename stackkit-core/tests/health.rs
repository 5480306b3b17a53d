//! The health engine on a paused clock, with services that answer as a script says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use stackkit_core::health::{Limit, Status, Thresholds, Tier};
use stackkit_core::{
    Endpoint, Error, ErrorKind, HealthCheck, Intervals, Monitor, Observation, ProbeContext, Result, Service,
    ServiceExt, ServiceId, Stack, async_trait,
};
use tokio::time::{Instant, advance, interval, timeout};

#[derive(Debug, Clone)]
enum Answer {
    Healthy,
    Load(f64),
    Fails(ErrorKind),
    Hangs,
    Panics,
    /// Answers, but never counts.
    Vast,
    /// Blocks its thread until the sender is gone.
    Blocks(Arc<Mutex<mpsc::Receiver<()>>>),
}

#[derive(Debug, Default)]
struct Log {
    probes: AtomicUsize,
    resets: AtomicUsize,
    reset_panics: AtomicBool,
    tiers: Mutex<Vec<Tier>>,
}

/// Gives its answers in turn; the last one stays.
#[derive(Debug)]
struct Scripted {
    id: ServiceId,
    answers: Mutex<VecDeque<Answer>>,
    log: Arc<Log>,
}

fn scripted(id: &str, answers: impl IntoIterator<Item = Answer>) -> (Scripted, Arc<Log>) {
    let log = Arc::new(Log::default());
    let answers = Mutex::new(answers.into_iter().collect());
    (Scripted { id: ServiceId::new(id).unwrap(), answers, log: log.clone() }, log)
}

impl Service for Scripted {
    fn id(&self) -> &ServiceId {
        &self.id
    }
    fn kind(&self) -> &'static str {
        "scripted"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::new("test", "localhost", 1)
    }
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Scripted {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        self.log.probes.fetch_add(1, Ordering::SeqCst);
        self.log.tiers.lock().unwrap().push(cx.tier());
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
        };
        match answer.unwrap() {
            Answer::Healthy if cx.tier() == Tier::Inventory => Ok(Observation::new().gauge("size_bytes", 7.0)),
            Answer::Healthy => Ok(Observation::new()),
            Answer::Load(load) => Ok(Observation::new().gauge("load_ratio", load)),
            Answer::Fails(kind) => Err(Error::new(kind, "as scripted").with_source(Error::config("driver text"))),
            Answer::Vast if cx.tier() < Tier::Inventory => Ok(Observation::new()),
            Answer::Hangs | Answer::Vast => std::future::pending().await,
            Answer::Panics => panic!("as scripted"),
            Answer::Blocks(until) => {
                let _ = until.lock().unwrap().recv();
                Ok(Observation::new())
            }
        }
    }

    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Vitals, Tier::Inventory]
    }

    async fn reset(&self) {
        self.log.resets.fetch_add(1, Ordering::SeqCst);
        assert!(!self.log.reset_panics.load(Ordering::SeqCst), "as scripted");
    }
}

fn status(report: &stackkit_core::Report, id: &str) -> Status {
    report.service(id).unwrap().status
}

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
    assert_eq!(log.resets.load(Ordering::SeqCst), 1, "a timeout resets the connection");
    assert!(!report.ready);
}

#[tokio::test(start_paused = true)]
async fn a_panic_stays_in_its_probe() {
    let (panicking, log) = scripted("p", [Answer::Panics]);
    let stack = Stack::builder("s").service(panicking.optional()).build().unwrap();
    let report = stack.check_now(&[]).await;
    assert_eq!(report.service("p").unwrap().failure.as_ref().unwrap().kind, ErrorKind::Unexpected);
    assert_eq!(log.resets.load(Ordering::SeqCst), 1);
    assert!(report.ready, "an optional failure leaves the stack ready");
    assert_eq!(report.status, Status::Degraded);
}

#[tokio::test(start_paused = true)]
async fn callers_join_the_probe_that_runs() {
    let (healthy, log) = scripted("h", [Answer::Healthy]);
    let stack = Stack::builder("s").service(healthy).build().unwrap();
    let (first, second, third) = tokio::join!(stack.check_now(&[]), stack.check_now(&[]), stack.check_now(&[]));
    assert!(first.ready && second.ready && third.ready);
    let tiers = log.tiers.lock().unwrap();
    for tier in [Tier::Vitals, Tier::Inventory] {
        let count = tiers.iter().filter(|probed| **probed == tier).count();
        assert!(count <= 2, "at most the running one and one for all that waited: {tiers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_holds_no_driver_text() {
    let (failing, _) = scripted("f", [Answer::Fails(ErrorKind::Unreachable)]);
    let stack = Stack::builder("s").service(failing).build().unwrap();
    let json = serde_json::to_string(&stack.check_now(&[]).await).unwrap();
    assert!(json.contains("as scripted") && !json.contains("driver text"), "{json}");
}

#[tokio::test(start_paused = true)]
async fn before_the_first_probe_nothing_is_ready() {
    let (hanging, _) = scripted("h", [Answer::Hangs]);
    let stack = Stack::builder("s").service(hanging).build().unwrap();
    let monitor = Monitor::start(&stack);
    assert_eq!(monitor.report().status, Status::Unknown);
    assert!(!monitor.report().ready);
}

#[tokio::test(start_paused = true)]
async fn changes_tell_every_transition() {
    let script = [Answer::Healthy, Answer::Healthy, Answer::Fails(ErrorKind::Unreachable), Answer::Healthy];
    let (service, _) = scripted("a", script);
    let at_once = Intervals::new().with_fall(1);
    let stack = Stack::builder("s").service(service.with_intervals(at_once)).build().unwrap();
    let monitor = Monitor::start(&stack);
    let mut changes = monitor.changes();
    for (from, to) in
        [(Status::Unknown, Status::Healthy), (Status::Healthy, Status::Unhealthy), (Status::Unhealthy, Status::Healthy)]
    {
        let change = timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap();
        assert_eq!((change.from, change.to), (from, to));
    }
    drop(monitor);
    assert!(changes.next().await.is_none(), "the stream ends with the monitor");
}

#[tokio::test(start_paused = true)]
async fn wait_ready_waits_for_a_starting_server() {
    let starting = Answer::Fails(ErrorKind::Starting);
    let (service, log) = scripted("a", [starting.clone(), starting.clone(), starting, Answer::Healthy]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let started = Instant::now();
    assert!(monitor.wait_ready(Duration::from_secs(60)).await.unwrap().ready);
    assert!(started.elapsed() < Duration::from_millis(200), "start-up polls are close together");
    assert_eq!(log.probes.load(Ordering::SeqCst), 4);
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
    assert_eq!(log.probes.load(Ordering::SeqCst), 1, "a wrong password is not tried again at once");
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
async fn inventory_measurements_stay_between_inventories() {
    let (service, log) = scripted("a", [Answer::Healthy]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let four_probes = async {
        let mut tick = interval(Duration::from_secs(1));
        while log.probes.load(Ordering::SeqCst) < 4 {
            tick.tick().await;
        }
    };
    timeout(Duration::from_secs(60), four_probes).await.expect("the monitor stopped probing");
    assert_eq!(*log.tiers.lock().unwrap(), [Tier::Vitals, Tier::Inventory, Tier::Vitals, Tier::Vitals]);
    let report = monitor.report();
    assert_eq!(report.service("a").unwrap().observation.as_ref().unwrap().value("size_bytes"), Some(7.0));
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
async fn a_panic_of_reset_does_not_end_the_polling() {
    let (service, log) = scripted("a", [Answer::Panics, Answer::Healthy]);
    log.reset_panics.store(true, Ordering::SeqCst);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let mut changes = monitor.changes();
    for to in [Status::Unhealthy, Status::Healthy] {
        let change = timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap();
        assert_eq!(change.to, to);
    }
}

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
    assert_eq!(log.probes.load(Ordering::SeqCst), 1, "a second probe would block a second thread");
    drop(release);
    let healthy = async {
        let mut tick = interval(Duration::from_millis(5));
        while !stack.check_now(&[]).await.ready {
            tick.tick().await;
        }
    };
    timeout(Duration::from_secs(20), healthy).await.expect("the probe let go of its thread, but nothing probes again");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_looked_at_rarely_does_not_grow_stale_meanwhile() {
    let (service, log) = scripted("a", [Answer::Fails(ErrorKind::Unauthenticated)]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let mut tick = interval(Duration::from_secs(1));
    tick.tick().await;
    while log.probes.load(Ordering::SeqCst) < 3 {
        tick.tick().await;
        assert_eq!(status(&monitor.report(), "a"), Status::Unhealthy);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_inventory_does_not_make_a_service_unknown() {
    let (service, log) = scripted("a", [Answer::Healthy, Answer::Hangs]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    monitor.wait_ready(Duration::from_secs(1)).await.unwrap();
    let mut tick = interval(Duration::from_secs(1));
    while log.resets.load(Ordering::SeqCst) == 0 {
        assert_eq!(status(&monitor.report(), "a"), Status::Healthy);
        tick.tick().await;
    }
    assert_eq!(log.tiers.lock().unwrap()[1], Tier::Inventory);
}

#[tokio::test(start_paused = true)]
async fn a_store_too_large_to_be_counted_still_serves() {
    let (service, log) = scripted("a", [Answer::Vast]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let mut changes = monitor.changes();
    assert_eq!(changes.next().await.unwrap().to, Status::Healthy);
    let minutes = Duration::from_secs(5 * 60);
    assert!(timeout(minutes, changes.next()).await.is_err(), "a missing inventory made the service unready");
    assert_eq!(status(&monitor.report(), "a"), Status::Healthy);
    let inventories = log.tiers.lock().unwrap().iter().filter(|tier| **tier == Tier::Inventory).count();
    assert_eq!(inventories, 1, "the next inventory waits for its interval");
    let report = stack.check_now(&[]).await;
    let findings = &report.service("a").unwrap().observation.as_ref().unwrap().findings;
    assert_eq!(findings[0].message, "the inventory could not be taken: timeout");
    assert!(report.ready);
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

#[tokio::test(start_paused = true)]
async fn a_dropped_monitor_leaves_no_task() {
    let (hanging, _) = scripted("hanging", [Answer::Hangs]);
    let (healthy, _) = scripted("healthy", [Answer::Healthy]);
    let stack = Stack::builder("s").service(hanging).service(healthy).build().unwrap();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let monitor = Monitor::start(&stack);
    let (snapshot, changes) = (monitor.snapshot(), monitor.changes());
    tokio::task::yield_now().await;
    assert!(alive() > before);
    drop(monitor);
    let gone = async {
        while alive() > before {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(1), gone).await.expect("a task is left");
    drop((snapshot, changes));
}

#[tokio::test(start_paused = true)]
async fn the_longest_duration_means_never() {
    let (service, _) = scripted("a", [Answer::Fails(ErrorKind::Unreachable), Answer::Healthy]);
    let mut intervals = Intervals::new().with_poll(Duration::MAX).with_timeout(Duration::MAX);
    intervals.inventory = Duration::MAX;
    let stack = Stack::builder("s").service(service.with_intervals(intervals)).build().unwrap();
    assert!(Monitor::start(&stack).wait_ready(Duration::MAX).await.unwrap().ready);
}

#[test]
fn an_interval_of_zero_is_a_fault() {
    let (service, _) = scripted("a", [Answer::Healthy]);
    let intervals = Intervals::new().with_poll(Duration::ZERO).with_timeout(Duration::ZERO);
    let error = Stack::builder("s").service(service.with_intervals(intervals)).build().unwrap_err().to_string();
    assert!(error.contains("a: ping is 0") && error.contains("a: timeout is 0"), "{error}");
}
