//! A stack whose services are scripted, and requests that go straight into the router.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use stackkit_core::health::{
    Axis, Finding, Measurement, MeasurementKind, MeasurementValue, Metric, Rule, Severity, Tier,
};
use stackkit_core::{
    Clock, Endpoint, Error, ErrorKind, HealthCheck, Monitor, Observation, Phase, ProbeContext, Result, Service,
    ServiceExt, ServiceId, Stack, StackEntry, async_trait,
};
use tower::ServiceExt as _;

/// Stands for a password that a driver puts into its error text.
pub(crate) const CANARY: &str = "canary-hunter2";
/// The most that a test waits for a state; everything here takes microseconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

/// What its services measure.
pub(crate) const METRICS: &[Metric] = &[
    Metric::gauge("memory_used_bytes", "INFO memory: used_memory", "Bytes that are used").on(Tier::Ping),
    Metric::gauge("hit_ratio", "INFO stats", "Hits of all reads").on(Tier::Ping),
    Metric::counter("evictions_count", "INFO stats: evicted_keys", "Keys thrown away").on(Tier::Ping),
    Metric::gauge("fork_ms", "INFO stats: latest_fork_usec", "The latest fork \\ \"took\"\nso long").on(Tier::Ping),
    Metric::gauge("table_bytes", "pg_class", "Bytes of a table").on(Tier::Ping).labelled(&["table"]),
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    Well,
    Warned,
    Down,
    Silent,
    /// Names that a text format must escape, and many of them.
    Hostile,
}

#[derive(Debug)]
pub(crate) struct Script {
    id: ServiceId,
    kind: &'static str,
    pub(crate) mood: Arc<Mutex<Mood>>,
    pub(crate) probes: Arc<AtomicUsize>,
    tiers: &'static [Tier],
}

impl Script {
    pub(crate) fn new(id: &str, mood: Mood) -> Self {
        Self {
            id: ServiceId::new(id).unwrap(),
            kind: "script",
            mood: Arc::new(Mutex::new(mood)),
            probes: Arc::default(),
            tiers: &[Tier::Ping],
        }
    }

    pub(crate) fn of_kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// One that looks at this machine only, as the group `live` asks for.
    pub(crate) fn local(self) -> Self {
        Self { tiers: &[Tier::Process], ..self }
    }
}

impl Service for Script {
    fn id(&self) -> &ServiceId {
        &self.id
    }
    fn kind(&self) -> &'static str {
        self.kind
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
            Mood::Hostile => Ok(hostile(observation)),
        }
    }

    fn tiers(&self) -> &'static [Tier] {
        self.tiers
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        vec![Rule::above("fork_ms", "script.fork.slow").warning(1000.0).saying("forks are slow", "use less memory")]
    }
}

/// Every kind of unit, and labels as no catalogue would have them.
fn hostile(observation: Observation) -> Observation {
    let table = |name: &str, bytes: u32| {
        let value = MeasurementValue::Value(f64::from(bytes));
        Measurement::new("table_bytes", MeasurementKind::Gauge, value).with_label("table", name)
    };
    let seen = observation.counter("evictions_count", 7.0).gauge("fork_ms", 1250.0).gauge("stray_percent", 12.5);
    let seen = (0..200).map(|at| table(&format!("t{at}"), at)).fold(seen, Observation::measurement);
    ["say \"hi\"", "back\\slash", "two\nlines", "Grüße 🦀", "a=\"b\",c"]
        .into_iter()
        .fold(seen, |seen, name| seen.measurement(table(name, 1_000_000)))
}

pub(crate) fn stack(services: impl IntoIterator<Item = StackEntry>) -> Stack {
    let clock = Clock::fixed("2026-11-21T06:15:30Z".parse().unwrap());
    services.into_iter().fold(Stack::builder("shop").clock(clock), |stack, entry| stack.service(entry)).build().unwrap()
}

pub(crate) fn shop() -> Stack {
    stack([
        Script::new("postgres", Mood::Well).into(),
        Script::new("uploads", Mood::Warned).into(),
        Script::new("cache", Mood::Down).optional(),
    ])
}

/// A monitor that has seen every service at least once.
pub(crate) async fn probed(stack: &Stack) -> Monitor {
    let monitor = Monitor::start(stack);
    until(&monitor, |monitor| monitor.report().services.iter().all(|service| service.checked_at.is_some())).await;
    monitor
}

pub(crate) async fn until(monitor: &Monitor, condition: impl Fn(&Monitor) -> bool) {
    let wait = async {
        let mut look = tokio::time::interval(Duration::from_millis(1));
        while !condition(monitor) {
            look.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the state is reached");
}

pub(crate) async fn send(app: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

pub(crate) async fn get(app: &Router, path: &str) -> (StatusCode, String) {
    get_with(app, path, &[]).await
}

pub(crate) async fn get_with(app: &Router, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let response = send(app, "GET", path, headers).await;
    let status = response.status();
    let body = to_bytes(response.into_body(), BODY_BYTES_MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) fn header(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}
