//! Failing a thousand times leaves nothing behind, and ten thousand readers cause one probe.

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stackkit::{
    Endpoint, HealthCheck, Intervals, Monitor, Observation, ProbeContext, Result, Service, ServiceExt, ServiceId,
    Stack, async_trait, service_with_id,
};
use stackkit_fixtures::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::health_faults::proxy::Mode;
use crate::health_faults::{Kind, PASSWORD, PATIENCE, Site, Store, run};
use crate::tool::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new("a_thousand_failures_of_postgres_leave_nothing", || in_a_child("postgres")).needs(&["postgres"]),
    Test::new("a_thousand_failures_of_redis_leave_nothing", || in_a_child("redis")).needs(&["redis"]),
    Test::new("ten_thousand_readers_cause_one_probe", || run(readers())),
];

/// Names the store in the environment of a process that does nothing else: other tests open files too.
pub(crate) const CHILD: &str = "STACKKIT_TEST_SOAK";

#[expect(clippy::disallowed_methods, reason = "this very program, as a process of its own")]
fn in_a_child(store: &str) {
    let output = Command::new(std::env::current_exe().unwrap()).env(CHILD, store).output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("rounds are over").count(), FAULTS.len(), "{told}");
}

/// The process of one store.
pub(crate) fn child(store: &str) {
    run(soak(if store == "postgres" { Kind::Postgres } else { Kind::Redis }));
}

/// How the probes fail.
const FAULTS: &[(&str, Mode)] = &[
    ("refused", Mode::Refuse),
    ("black hole", Mode::BlackHole),
    ("accepts, then hangs", Mode::Hang),
    ("reset within the first answer", Mode::Reset(3)),
    // Not much slower: the proxy keeps what it delays.
    ("slower than the deadline", Mode::Delay(Duration::from_millis(60))),
    ("wrong password", Mode::Pass),
];
/// So many services are probed at once, each with a connection of its own.
const SERVICES: usize = 20;
/// Probes of each: 1 000 in all.
const ROUNDS: usize = 50;
/// Rounds before the first count: allocators, buffers and histories have their size then.
const SETTLING_ROUNDS: usize = 10;
/// The deadline: long enough to be refused, also by a server that computes a hash for each.
const SHORT: Duration = Duration::from_millis(40);
/// How much the memory may grow in a thousand failures: 4 KiB each would be a leak of one buffer.
const GROWTH_MAX_KIB: u64 = 4 * 1024;

async fn soak(kind: Kind) {
    let mut site = Site::start(kind).await;
    let connections = server_connections(&site).await;
    for (name, mode) in FAULTS {
        let url = match *name {
            "wrong password" => site.url().replace(PASSWORD, "another-password-4b1e"),
            _ => site.url(),
        };
        let stack = many(&url);
        site.proxy.set(*mode).await;
        fail(&stack, SETTLING_ROUNDS).await;
        let before = Resources::now();
        fail(&stack, ROUNDS).await;
        let settled = async || (Resources::now().files <= before.files).then_some(());
        let is_settled = wait_until("the files are closed", PATIENCE, settled).await;
        let after = Resources::now();
        is_settled.unwrap_or_else(|error| panic!("{name}: {error}: {before}, then {after}"));
        assert!(after.memory_kib <= before.memory_kib + GROWTH_MAX_KIB, "{name}: {before}, then {after}");
        site.proxy.set(Mode::Pass).await;
        drop(stack);
        let closed = async || (server_connections(&site).await <= connections).then_some(());
        wait_until("the server has no connection left over", PATIENCE, closed).await.unwrap();
        tell(&format!("{name}: {ROUNDS} rounds are over: {before}, then {after}"));
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn tell(text: &str) {
    println!("{text}");
}

/// Many services at one address.
fn many(url: &str) -> Stack {
    let intervals = Intervals::new().with_timeout(SHORT).with_inventory_timeout(SHORT);
    let mut stack = Stack::builder("soak");
    for number in 0..SERVICES {
        let id = ServiceId::new(format!("store-{number}")).unwrap();
        stack = stack.service(service_with_id(&id, url).unwrap().with_intervals(intervals));
    }
    stack.build().unwrap()
}

async fn fail(stack: &Stack, rounds: usize) {
    for _ in 0..rounds {
        let report = stack.check_now(&[]).await;
        assert!(report.services.iter().all(|service| service.failure.is_some()), "{report}");
    }
}

async fn server_connections(site: &Site) -> usize {
    match &site.store {
        Store::Postgres(server) => {
            let sql = "select count(*) from pg_stat_activity where application_name = 'stackkit'";
            server.query_in("postgres", sql).await.unwrap()[0][0].as_ref().unwrap().parse().unwrap()
        }
        Store::Redis(server) => server.command(&["CLIENT", "LIST"]).await.unwrap().text().lines().count(),
    }
}

/// What this process holds.
#[derive(Debug, Clone, Copy)]
struct Resources {
    files: usize,
    memory_kib: u64,
}

impl Resources {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory_kib = memory.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        Self { files: std::fs::read_dir("/proc/self/fd").unwrap().count(), memory_kib }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {} KiB", self.files, self.memory_kib)
    }
}

/// A check that counts how often it is asked.
#[derive(Debug)]
struct Counts(ServiceId, Arc<AtomicUsize>);

impl Service for Counts {
    fn id(&self) -> &ServiceId {
        &self.0
    }
    fn kind(&self) -> &'static str {
        "counts"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::new("counts", "localhost", 1)
    }
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Counts {
    async fn probe(&self, _cx: &ProbeContext) -> Result<Observation> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(Observation::new())
    }
}

/// Readers of the value, and as many of the endpoint.
const READERS: usize = 10_000;
const HTTP_CONNECTIONS: usize = 64;

async fn readers() {
    let probes = Arc::new(AtomicUsize::new(0));
    let service = Counts(ServiceId::new("counts").unwrap(), probes.clone());
    let service = service.with_intervals(Intervals::new().with_poll(Duration::from_secs(3600)));
    let monitor = Arc::new(Monitor::start(&Stack::builder("shop").service(service).build().unwrap()));
    monitor.wait_ready(PATIENCE).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = stackkit::http::router(&monitor);
    let mut tasks = JoinSet::new();
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    for _ in 0..READERS {
        let monitor = monitor.clone();
        tasks.spawn(async move { usize::from(monitor.report().ready) });
    }
    for _ in 0..HTTP_CONNECTIONS {
        tasks.spawn(async move { ask(TcpStream::connect(address).await.unwrap()).await });
    }
    let answers: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!(answers, READERS + READERS.div_ceil(HTTP_CONNECTIONS) * HTTP_CONNECTIONS);
    assert_eq!(probes.load(Ordering::SeqCst), 1);
}

/// Asks again and again over one connection; gives the number of good answers.
async fn ask(mut stream: TcpStream) -> usize {
    let mut good = 0;
    let mut answer = vec![0; 4096];
    for _ in 0..READERS.div_ceil(HTTP_CONNECTIONS) {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        // An answer is one small segment.
        let count = stream.read(&mut answer).await.unwrap();
        good += usize::from(answer[..count].starts_with(b"HTTP/1.1 200"));
    }
    good
}
