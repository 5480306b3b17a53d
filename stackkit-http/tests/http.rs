//! The routes over a monitor whose services are scripted; requests go straight into the router.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as the test does")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use stackkit_core::health::{Axis, Finding, Severity};
use stackkit_core::{
    Clock, Endpoint, Error, ErrorKind, HealthCheck, Monitor, Observation, Phase, ProbeContext, Result, Service,
    ServiceExt, ServiceId, Stack, StackEntry, async_trait,
};
use stackkit_http::{Details, RouterOptions, router, router_with};
use tower::ServiceExt as _;

/// Stands for a password that a driver puts into its error text.
const CANARY: &str = "canary-hunter2";
/// The most that a test waits for a state; everything here takes microseconds.
const DEADLINE: Duration = Duration::from_secs(60);
const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Warned,
    Down,
    Silent,
}

#[derive(Debug)]
struct Script {
    id: ServiceId,
    mood: Arc<Mutex<Mood>>,
    probes: Arc<AtomicUsize>,
}

impl Script {
    fn new(id: &str, mood: Mood) -> Self {
        Self { id: ServiceId::new(id).unwrap(), mood: Arc::new(Mutex::new(mood)), probes: Arc::default() }
    }
}

impl Service for Script {
    fn id(&self) -> &ServiceId {
        &self.id
    }
    fn kind(&self) -> &'static str {
        "script"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::new("script", "store.internal", 7700)
    }
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Script {
    async fn probe(&self, _cx: &ProbeContext) -> Result<Observation> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock().unwrap();
        let observation = Observation::new().gauge("memory_used_bytes", 1024.0).info("version", "1.2");
        match mood {
            Mood::Well => Ok(observation),
            Mood::Warned => Ok(observation.unavailable("hit_ratio", "no requests yet").finding(Finding::new(
                "script.disk.near",
                Axis::Risk,
                Severity::Warning,
                "the disk is 86 % full",
            ))),
            Mood::Down => Err(Error::new(ErrorKind::Unreachable, "nothing listens")
                .with_operation("connect")
                .with_phase(Phase::Connect)
                .with_context("host", "store.internal")
                .with_source(std::io::Error::other(format!("refused for {CANARY}")))),
            Mood::Silent => std::future::pending().await,
        }
    }
}

fn stack(services: impl IntoIterator<Item = StackEntry>) -> Stack {
    let clock = Clock::fixed("2026-11-21T06:15:30Z".parse().unwrap());
    services.into_iter().fold(Stack::builder("shop").clock(clock), |stack, entry| stack.service(entry)).build().unwrap()
}

/// A monitor that has seen every service at least once.
async fn probed(stack: &Stack) -> Monitor {
    let monitor = Monitor::start(stack);
    until(&monitor, |monitor| monitor.report().services.iter().all(|service| service.checked_at.is_some())).await;
    monitor
}

async fn until(monitor: &Monitor, condition: impl Fn(&Monitor) -> bool) {
    let wait = async {
        let mut look = tokio::time::interval(Duration::from_millis(1));
        while !condition(monitor) {
            look.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the state is reached");
}

async fn send(app: &Router, method: &str, path: &str) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

async fn get(app: &Router, path: &str) -> (StatusCode, String) {
    let response = send(app, "GET", path).await;
    let status = response.status();
    let body = to_bytes(response.into_body(), BODY_BYTES_MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Compares with a released file, which is never edited; a later version of the schema gets a file of its own.
fn assert_golden(body: &str, golden: &str) {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    assert_eq!(body, golden, "the body is:\n{body:#}");
}

fn shop() -> Stack {
    stack([
        Script::new("postgres", Mood::Well).into(),
        Script::new("uploads", Mood::Warned).into(),
        Script::new("cache", Mood::Down).optional(),
    ])
}

#[tokio::test(start_paused = true)]
async fn health_is_the_golden_file() {
    let monitor = probed(&shop()).await;
    let (status, body) = get(&router(&monitor), "/health").await;
    assert_eq!(status, StatusCode::OK);
    assert_golden(&body, include_str!("golden/health-v1.json"));
}

#[tokio::test(start_paused = true)]
async fn verbose_health_is_the_golden_file() {
    let monitor = probed(&shop()).await;
    let (status, body) = get(&router(&monitor), "/health?verbose").await;
    assert_eq!(status, StatusCode::OK);
    assert_golden(&body, include_str!("golden/health-v1-verbose.json"));
}

#[tokio::test(start_paused = true)]
async fn verbose_readyz_has_a_line_for_each_service() {
    let monitor = probed(&shop()).await;
    let (status, body) = get(&router(&monitor), "/readyz?verbose").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        "[+]postgres ok\n\
         [+]uploads degraded: script.disk.near\n\
         [-]cache (optional) unhealthy: connect: nothing listens (host=store.internal)\n\
         readyz check passed\n"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_ready_before_the_first_probe() {
    let monitor = Monitor::start(&stack([Script::new("postgres", Mood::Silent).into()]));
    let app = router(&monitor);
    assert_eq!(get(&app, "/livez").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(get(&app, "/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()));
    let (status, body) = get(&app, "/readyz?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "[-]postgres unknown: no probe has ended yet\nreadyz check failed\n");
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_a_required_service_down_and_up() {
    let service = Script::new("cache", Mood::Well);
    let mood = service.mood.clone();
    let monitor = probed(&stack([service.into()])).await;
    let app = router(&monitor);
    assert_eq!(get(&app, "/readyz").await.0, StatusCode::OK);
    *mood.lock().unwrap() = Mood::Down;
    until(&monitor, |monitor| !monitor.report().ready).await;
    assert_eq!(get(&app, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&app, "/health").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&app, "/livez").await.0, StatusCode::OK);
    *mood.lock().unwrap() = Mood::Well;
    until(&monitor, |monitor| monitor.report().ready).await;
    assert_eq!(get(&app, "/readyz").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_router_without_its_monitor_does_not_stay_green() {
    let monitor = probed(&stack([Script::new("postgres", Mood::Well).into()])).await;
    let app = router(&monitor);
    drop(monitor);
    tokio::time::advance(Duration::from_secs(3600)).await;
    let (status, body) = get(&app, "/readyz?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "[-]postgres unknown: the last probe is too old\nreadyz check failed\n");
}

#[tokio::test(start_paused = true)]
async fn details_can_be_forbidden() {
    let monitor = probed(&shop()).await;
    let app = router_with(&monitor, RouterOptions::new().with_details(Details::Never));
    assert_eq!(get(&app, "/readyz?verbose").await, get(&app, "/readyz").await);
    assert_eq!(get(&app, "/health?verbose").await, get(&app, "/health").await);
    assert!(!get(&app, "/health?verbose").await.1.contains("store.internal"));
}

#[tokio::test(start_paused = true)]
async fn no_answer_carries_driver_text() {
    let monitor = probed(&shop()).await;
    for path in ["/livez", "/readyz", "/health", "/livez?verbose", "/readyz?verbose", "/health?verbose"] {
        let (_, body) = get(&router(&monitor), path).await;
        assert!(!body.contains(CANARY), "{path}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_probe_nothing() {
    let service = Script::new("postgres", Mood::Well);
    let probes = service.probes.clone();
    let monitor = probed(&stack([service.into()])).await;
    let app = router(&monitor);
    let before = probes.load(Ordering::Relaxed);
    for _ in 0..1000 {
        assert_eq!(get(&app, "/health?verbose").await.0, StatusCode::OK);
    }
    assert_eq!(probes.load(Ordering::Relaxed), before, "time stands still, so only a request can have probed");
}

#[tokio::test(start_paused = true)]
async fn headers_methods_and_head() {
    let monitor = probed(&shop()).await;
    let app = router(&monitor);
    for (path, content_type) in [
        ("/livez", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/health", "application/json"),
    ] {
        let head = send(&app, "HEAD", path).await;
        assert_eq!(head.status(), StatusCode::OK, "{path}");
        let header = |name| head.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("content-type").as_deref(), Some(content_type), "{path}");
        assert_eq!(header("cache-control").as_deref(), Some("no-store"), "{path}");
        let length = header("content-length");
        assert_eq!(length, Some(get(&app, path).await.1.len().to_string()), "{path}");
        assert!(to_bytes(head.into_body(), BODY_BYTES_MAX).await.unwrap().is_empty(), "{path}");
        assert_eq!(send(&app, "POST", path).await.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}
