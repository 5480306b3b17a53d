//! The fault matrix of the health engine: what a stack says of real servers that fail in every way that can be provoked
//! here, and how soon.

mod canary;
mod cancelled;
mod http;
mod local;
mod machine;
mod network;
mod postgres;
mod proxy;
mod redis;
pub(crate) mod soak;

use std::sync::Arc;
use std::time::Duration;

use stackkit::health::{ServiceReport, Status};
use stackkit::{Clock, ErrorKind, Intervals, Phase, Service, ServiceExt, ServiceId, Stack, service_with_id};
use stackkit_fixtures::{PostgresOptions, PostgresServer, RedisFixture, RedisOptions, postgres_server, redis_with};

use crate::tool::Test;
use proxy::Proxy;

/// The deadline of every probe of the matrix.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How much longer than the deadline a fault may stay unseen.
const MARGIN: Duration = Duration::from_millis(50);
/// The best of so many tries is measured: on a machine that others load too, one try may wait for a processor for longer
/// than [`MARGIN`].
const TRIES: usize = 3;
/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(30);
/// The password of every server here.
const PASSWORD: &str = "canary-4b1e77-password";

/// What this folder tests.
pub(crate) fn tests() -> impl Iterator<Item = &'static Test> {
    let modules = [
        network::TESTS,
        http::TESTS,
        postgres::TESTS,
        redis::TESTS,
        local::TESTS,
        cancelled::TESTS,
        soak::TESTS,
        canary::TESTS,
    ];
    modules.into_iter().flatten()
}

/// Runs one test.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

/// A store that asks for a password, and a proxy before it.
struct Site {
    store: Store,
    proxy: Proxy,
}

enum Store {
    Postgres(PostgresServer),
    Redis(RedisFixture),
}

/// The stores of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    Redis,
}

impl Site {
    async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => Self::postgres(PostgresOptions::new()).await,
            Kind::Redis => Self::redis(RedisOptions::new()).await,
        }
    }

    async fn postgres(options: PostgresOptions) -> Self {
        let server = postgres_server(options.with_tcp(PASSWORD)).await.unwrap();
        let proxy = Proxy::start(server.port()).await;
        Self { store: Store::Postgres(server), proxy }
    }

    async fn redis(options: RedisOptions) -> Self {
        let server = redis_with(options.with_tcp().with_password(PASSWORD)).await.unwrap();
        let proxy = Proxy::start(server.port().unwrap()).await;
        Self { store: Store::Redis(server), proxy }
    }

    /// The URL over the proxy.
    fn url(&self) -> String {
        self.url_at(self.proxy.port())
    }

    /// The URL over another proxy.
    fn url_at(&self, port: u16) -> String {
        let url = match &self.store {
            Store::Postgres(server) => server.tcp_url_of("postgres").unwrap(),
            Store::Redis(server) => server.tcp_url().unwrap(),
        };
        url.replace(&format!("127.0.0.1:{}", self.upstream_port()), &format!("127.0.0.1:{port}"))
    }

    /// The server's own port.
    fn upstream_port(&self) -> u16 {
        match &self.store {
            Store::Postgres(server) => server.port(),
            Store::Redis(server) => server.port().unwrap(),
        }
    }

    fn postgres_server(&self) -> &PostgresServer {
        match &self.store {
            Store::Postgres(server) => server,
            Store::Redis(_) => panic!("this is a Redis"),
        }
    }

    fn redis_server(&self) -> &RedisFixture {
        match &self.store {
            Store::Redis(server) => server,
            Store::Postgres(_) => panic!("this is a PostgreSQL"),
        }
    }

    /// Stops the server; the proxy stays.
    async fn stop(&mut self) {
        match &mut self.store {
            Store::Postgres(server) => server.stop().await.unwrap(),
            Store::Redis(server) => server.stop().await.unwrap(),
        }
    }

    /// Starts the server again, and waits until it is ready.
    async fn restart(&mut self) {
        match &mut self.store {
            Store::Postgres(server) => server.start().await.unwrap(),
            Store::Redis(server) => server.start().await.unwrap(),
        }
    }

    /// A stack of that one service, without a connection yet.
    fn stack(&self) -> Stack {
        stack(&self.url())
    }

    /// Takes every connection that is left, until the server says that there is none.
    async fn fill(&self) -> Vec<Stack> {
        let mut others = Vec::new();
        let full = loop {
            // Each takes one connection and keeps it.
            let other = self.stack();
            let report = other.check_now(&[]).await;
            if let Some(failure) = report.service("store").unwrap().failure.clone() {
                break failure;
            }
            others.push(other);
        };
        assert_eq!(full.kind, ErrorKind::Saturated, "{full:?}");
        assert!(others.len() >= 4, "it was full before it began: {}", others.len());
        others
    }

    /// A stack whose service has a connection that was good a moment ago.
    async fn warm_stack(&self) -> Stack {
        let stack = self.stack();
        ready(&stack).await;
        stack
    }
}

/// A stack of the service at `url`, called `store`: one failure is enough to be unhealthy.
fn stack(url: &str) -> Stack {
    stack_of(store_at(url), intervals())
}

fn store_at(url: &str) -> Arc<dyn Service> {
    service_with_id(&ServiceId::new("store").unwrap(), url).unwrap()
}

fn stack_of(service: Arc<dyn Service>, intervals: Intervals) -> Stack {
    Stack::builder("shop").service(service.with_intervals(intervals)).build().unwrap()
}

fn intervals() -> Intervals {
    Intervals::new().with_timeout(TIMEOUT).with_inventory_timeout(TIMEOUT).with_fall(1)
}

/// Waits until the stack is ready; a busy machine may need more than one probe.
async fn ready(stack: &Stack) {
    let what = "the stack is ready";
    let check = async || stack.check_now(&[]).await.ready.then_some(());
    stackkit_fixtures::wait_until(what, PATIENCE, check).await.unwrap();
}

/// What a failed probe must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failure {
    kind: ErrorKind,
    /// One of these.
    phases: &'static [Phase],
    code: Option<&'static str>,
}

impl Failure {
    const fn new(kind: ErrorKind, phases: &'static [Phase]) -> Self {
        Self { kind, phases, code: None }
    }

    const fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
}

/// Probes once, and expects that failure in a report that is not ready; gives the time that it took.
async fn fails(stack: &Stack, expected: Failure, row: &str) -> Duration {
    let began = Clock::system().instant();
    let report = stack.check_now(&[]).await;
    let took = began.elapsed();
    let service = report.service("store").unwrap();
    assert_failed(service, expected, row);
    assert!(!report.ready && report.status == Status::Unhealthy, "{row}: {report}");
    took
}

/// Probes several times, and expects that failure each time, and in time.
async fn fails_in_time(stack: &Stack, expected: Failure, row: &str) {
    let mut tries = Vec::new();
    for _ in 0..TRIES {
        tries.push(fails(stack, expected, row).await);
    }
    assert_in_time(&tries, row);
}

fn assert_failed(service: &ServiceReport, expected: Failure, row: &str) {
    let failure = service.failure.as_ref().unwrap_or_else(|| panic!("{row}: nothing failed: {service:?}"));
    assert_eq!((failure.kind, failure.code.as_deref()), (expected.kind, expected.code), "{row}: {failure:?}");
    assert!(failure.phase.is_some_and(|phase| expected.phases.contains(&phase)), "{row}: {failure:?}");
    assert_eq!(service.status, Status::Unhealthy, "{row}: {failure:?}");
    assert!(!failure.message.contains(PASSWORD), "{row}: {failure:?}");
}

fn assert_in_time(tries: &[Duration], row: &str) {
    let best = tries.iter().min().unwrap();
    assert!(*best <= TIMEOUT + MARGIN, "{row}: seen after {tries:?}, the deadline is {TIMEOUT:?}");
}
