//! The documents that are made of the checks' catalogues, and what Prometheus' own tool says of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stackkit::checks::{DiskCheck, ExecCheck, Heartbeat, HeartbeatCheck, HttpCheck, PoolCheck, ProcessCheck, TcpCheck};
use stackkit::http::catalogue::{Catalogue, alert_rules, dashboard, markdown};
use stackkit::{
    BackupFreshness, Endpoint, Monitor, Postgres, Redis, Repository, RepositoryOptions, Service, Stack, Volume,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::tool::{Test, shell};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("the_documents_are_what_the_catalogues_say", the_documents_are_what_the_catalogues_say),
    Test::new("no_two_metrics_have_one_name", no_two_metrics_have_one_name),
    Test::new("prometheus_takes_the_alert_rules", prometheus_takes_the_alert_rules).needs(&["promtool"]),
    Test::new("prometheus_takes_the_metrics_of_real_stores", prometheus_takes_the_metrics_of_real_stores)
        .needs(&["promtool", "postgres", "redis"]),
];

/// Set, the documents are written instead of compared.
const WRITE: &str = "STACKKIT_WRITE_DOCS";
/// How long the stores' first probes of every tier may take on a busy machine.
const SEEN_DEADLINE: Duration = Duration::from_secs(60);

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test)
}

/// Every kind of service that the workspace has, none of which is ever asked anything.
fn catalogues() -> Vec<Catalogue> {
    let repository =
        run(Repository::open_or_create("memory:catalogue", RepositoryOptions::new().unencrypted())).unwrap();
    let nothing = Path::new("/nonexistent");
    let services: [Box<dyn Service>; 11] = [
        Box::new(Postgres::from_url("postgres://localhost/shop").unwrap()),
        Box::new(Redis::from_url("redis://localhost").unwrap()),
        Box::new(Volume::new("uploads", nothing)),
        Box::new(BackupFreshness::new(repository, "shop")),
        Box::new(HttpCheck::new("web", "http://localhost/")),
        Box::new(TcpCheck::new("port", "localhost", 1)),
        Box::new(ExecCheck::new("command", nothing)),
        Box::new(HeartbeatCheck::new("worker", Heartbeat::new(), Duration::from_secs(60))),
        Box::new(PoolCheck::new("pool", Endpoint::new("pool", "localhost", 1), async || Ok(()))),
        Box::new(DiskCheck::new("disk", nothing)),
        Box::new(ProcessCheck::this("process")),
    ];
    services.iter().map(|service| Catalogue::of(service.as_ref()).expect("it has a health check")).collect()
}

fn the_documents_are_what_the_catalogues_say() {
    let catalogues = catalogues();
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
    for (name, text) in [
        ("metrics.md", markdown(&catalogues)),
        ("alerts.yml", alert_rules(&catalogues)),
        ("grafana-dashboard.json", dashboard(&catalogues)),
    ] {
        let path = docs.join(name);
        if std::env::var_os(WRITE).is_some() {
            std::fs::create_dir_all(&docs).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = found.lines().zip(text.lines()).position(|(found, text)| found != text);
        let command = format!("{WRITE}=1 cargo test --test stack -- catalogue::the_documents");
        assert!(
            found == text,
            "docs/{name} is not what the code says, from line {differs:?} on; write it by\n{command}"
        );
    }
}

fn no_two_metrics_have_one_name() {
    let page = markdown(&catalogues());
    let mut names = BTreeSet::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("| `stackkit_")) {
        let name = line.split('`').next().unwrap();
        assert!(names.insert(name), "two metrics are called stackkit_{name}");
    }
    assert!(names.len() > 100, "the page has {} metrics only", names.len());
}

fn prometheus_takes_the_alert_rules() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts.yml");
    std::fs::write(&path, alert_rules(&catalogues())).unwrap();
    shell(&format!("promtool check rules --lint-fatal '{}'", path.display()));
}

fn prometheus_takes_the_metrics_of_real_stores() {
    let folder = tempfile::tempdir().unwrap();
    let text = run(async {
        let (postgres, redis) =
            (stackkit_fixtures::postgres().await.unwrap(), stackkit_fixtures::redis().await.unwrap());
        let stack = Stack::builder("shop")
            .service(Postgres::from_url(&postgres.url()).unwrap())
            .service(Redis::from_url(&redis.url()).unwrap().with_id("cache"))
            .service(Volume::new("uploads", folder.path()))
            .service(ProcessCheck::this("process"));
        let monitor = Monitor::start(&stack.build().unwrap());
        let seen = async {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while !monitor.report().services.iter().all(|service| service.tiers.len() > 1 || service.kind == "process")
            {
                tick.tick().await;
            }
        };
        tokio::time::timeout(SEEN_DEADLINE, seen).await.expect("every tier is probed");
        metrics(&monitor).await
    });
    for name in
        ["stackkit_postgresql_", "stackkit_redis_", "stackkit_volume_", "stackkit_probe_duration_seconds_bucket"]
    {
        assert!(text.contains(name), "{name} is missing in\n{text}");
    }
    assert!(!text.contains("Not in the catalogue"), "{text}");
    let path = folder.path().join("metrics");
    std::fs::write(&path, &text).unwrap();
    shell(&format!("promtool check metrics < '{}' 2>&1", path.display()));
}

/// What `/metrics` answers an operator.
async fn metrics(monitor: &Monitor) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = stackkit::http::operator_router(monitor);
    let _server = AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: shop\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    body.to_owned()
}
