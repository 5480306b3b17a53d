//! A canary password and a canary token stand in no view of any failing service.

use std::collections::BTreeMap;
use std::path::Path;

use stackkit::checks::{HttpCheck, WebhookSink};
use stackkit::health::{ChannelSink, CommandSink, Event, LogSink, MonitorOptions};
use stackkit::http::{Details, RouterOptions, router_with};
use stackkit::{Monitor, Service, ServiceExt, ServiceId, Stack, StackBuilder, service_with_id};
use stackkit_fixtures::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::health_faults::machine::Stopped;
use crate::health_faults::proxy::{Mode, Proxy};
use crate::health_faults::{Kind, PASSWORD, PATIENCE, Site, TIMEOUT, intervals};
use crate::secrets::{Log, assert_clean};
use crate::tool::Test;

pub(crate) const TESTS: &[Test] =
    &[Test::new("no_view_of_any_failure_shows_a_secret", no_view_shows_a_secret).needs(&["postgres", "redis"])];

/// What opens the operators' details, and what the check of an application sends.
const TOKEN: &str = "canary-5d0c2e-bearer";
/// In a password that is wrong: typed into the wrong field, it may be the right one of another server.
const WRONG: &str = "canary-91aa03-wrong";
const SECRETS: &[&str] = &[PASSWORD, TOKEN, WRONG];

/// The modes of the matrix, each with a proxy of its own.
const MODES: &[(&str, Mode)] = &[
    ("well", Mode::Pass),
    ("refused", Mode::Refuse),
    ("black-hole", Mode::BlackHole),
    ("hangs", Mode::Hang),
    ("reset", Mode::Reset(0)),
    ("reset-within", Mode::Reset(3)),
];

/// Every view, and the forms that a client can ask for.
const PATHS: &[&str] = &[
    "/livez?verbose",
    "/readyz",
    "/readyz?verbose",
    "/startupz?verbose",
    "/groupz/ready?verbose",
    "/health",
    "/metrics",
    "/status",
    "/status/events",
];

fn no_view_shows_a_secret() {
    let log = Log::default();
    // One thread, so that all that is logged is logged on it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let guard = tracing::subscriber::set_default(log.clone());
    let told = runtime.block_on(provoke());
    drop(guard);
    assert!(log.text().contains("probe failed"), "nothing was logged: the test would test nothing");
    assert_clean("the log", &log.text(), SECRETS);
    for (place, text) in told {
        assert!(!text.is_empty(), "{place} is empty: the test would test nothing");
        assert_clean(&place, &text, SECRETS);
    }
}

/// Makes both stores fail in every way at once; gives every text that is told of it, by where it is told.
async fn provoke() -> BTreeMap<String, String> {
    let (postgres, redis) = (Site::start(Kind::Postgres).await, Site::start(Kind::Redis).await);
    let stopped = Site::start(Kind::Redis).await;
    let mut proxies = Vec::new();
    let mut stack = Stack::builder("shop");
    for (kind, site) in [("db", &postgres), ("cache", &redis)] {
        for (name, mode) in MODES {
            let mut proxy = Proxy::start(site.upstream_port()).await;
            proxy.set(*mode).await;
            let url = site.url_at(proxy.port());
            stack = with(stack, &format!("{kind}-{name}"), &url);
            stack = with_http(stack, &format!("web-{kind}-{name}"), proxy.port());
            proxies.push(proxy);
        }
        stack = with(stack, &format!("{kind}-wrong-password"), &site.url().replace(PASSWORD, WRONG));
    }
    stack = with(stack, "db-nowhere", &format!("{}/nowhere", postgres.url().strip_suffix("/postgres").unwrap()));
    stack = with(stack, "cache-stopped", &stopped.url());
    let _stopped = Stopped::stop(stopped.redis_server().pid().unwrap());
    watch(&stack.build().unwrap()).await
}

fn with(stack: StackBuilder, id: &str, url: &str) -> StackBuilder {
    assert!(SECRETS.iter().any(|secret| url.contains(secret)), "the test would test nothing");
    stack.service(service_with_id(&ServiceId::new(id).unwrap(), url).unwrap().with_intervals(intervals()))
}

/// What answers is no HTTP, which is one more way to fail.
fn with_http(stack: StackBuilder, id: &str, port: u16) -> StackBuilder {
    let check = HttpCheck::new(id, format!("http://127.0.0.1:{port}/?secret={TOKEN}")).with_bearer(TOKEN);
    let check = check.with_secret_header("x-api-key", WRONG);
    let _: &dyn Service = &check;
    stack.service(check.with_intervals(intervals()))
}

async fn watch(stack: &Stack) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("told");
    let (channel, events) = ChannelSink::new(1);
    let script = format!("env >> {}", file.display());
    let (posted, webhook) = receiver().await;
    let options = MonitorOptions::new().with_sink(LogSink::new()).with_sink(channel);
    let options = options.with_sink(CommandSink::new("/bin/sh", ["-c", &script])).with_sink(webhook);
    let monitor = Monitor::start_with(stack, options);
    let ended = async || monitor.report().services.iter().all(|service| service.checked_at.is_some()).then_some(());
    wait_until("each service was probed", PATIENCE, ended).await.unwrap();
    let mut told = views(&monitor).await;
    told.extend(errors(stack, &monitor).await);
    told.insert("events".to_owned(), heard(events).await);
    let is_told = async || file.exists().then_some(());
    wait_until("the command was told", PATIENCE, is_told).await.unwrap();
    told.insert("the command's environment".to_owned(), own_variables(&file));
    told.insert("what was posted".to_owned(), posted.await_one().await);
    told
}

/// What a command is told, without what it inherits.
fn own_variables(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().filter(|line| line.starts_with("STACKKIT_")).collect::<Vec<_>>().join("\n")
}

async fn errors(stack: &Stack, monitor: &Monitor) -> BTreeMap<String, String> {
    let error = monitor.wait_ready(TIMEOUT).await.unwrap_err();
    let slow = monitor.wait_ready_of(["db-hangs", "cache-hangs"], TIMEOUT).await.unwrap_err();
    let report = stack.check_now(&[]).await;
    let histories = report.services.iter().map(|service| format!("{:?}", monitor.history(service.id.as_str())));
    [
        ("the errors", format!("{error} {error:?} {} {slow} {slow:?} {}", error.chain(), slow.chain())),
        ("the report", format!("{report} {report:?} {}", serde_json::to_string(&report).unwrap())),
        ("the handles", format!("{stack:?} {monitor:?} {:?}", monitor.snapshot())),
        ("the histories", histories.collect()),
    ]
    .map(|(place, text)| (place.to_owned(), text))
    .into()
}

/// The events so far: one of every service that changed.
async fn heard(mut events: mpsc::Receiver<Event>) -> String {
    let mut told = String::new();
    while let Ok(Some(event)) = tokio::time::timeout(TIMEOUT, events.recv()).await {
        told += &format!("{event} {event:?} {}\n", serde_json::to_string(&event).unwrap());
    }
    told
}

/// Every answer, to those who have the token and those who have not.
async fn views(monitor: &Monitor) -> BTreeMap<String, String> {
    let router = router_with(monitor, RouterOptions::new().with_details(Details::Token(TOKEN.into())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let mut told = BTreeMap::new();
    let mut paths: Vec<String> = PATHS.iter().map(ToString::to_string).collect();
    for service in &monitor.report().services {
        paths.push(format!("/readyz/{}", service.id));
        paths.push(format!("/health/{}", service.id));
    }
    for path in paths {
        for token in ["", "wrong", TOKEN] {
            let accepts =
                ["*/*", "application/health+json", "application/openmetrics-text", "application/json", "text/html"];
            for accept in accepts {
                let answer = get(port, &path, token, accept).await;
                told.insert(format!("{path} as {accept} with the token `{token}`"), answer);
            }
        }
    }
    let all = told.get(&format!("/health as */* with the token `{TOKEN}`")).unwrap();
    assert!(all.contains("28P01") && all.contains("WRONGPASS"), "the details are hidden: {all}");
    told
}

/// The whole answer; of a stream what comes within a moment.
async fn get(port: u16, path: &str, token: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\naccept: {accept}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(TIMEOUT / 2, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// What a webhook's server got.
struct Posted(mpsc::Receiver<String>, #[expect(dead_code, reason = "ends the server when it is dropped")] JoinSet<()>);

impl Posted {
    async fn await_one(mut self) -> String {
        tokio::time::timeout(PATIENCE, self.0.recv()).await.unwrap().unwrap()
    }
}

/// A server that takes posts, and a sink that posts to it. What stands in its URL is a secret too, but it is sent.
async fn receiver() -> (Posted, WebhookSink) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, posted) = mpsc::channel(64);
    let router = axum::Router::new().route(
        "/hook",
        axum::routing::post(async move |body: String| {
            let _ = sender.try_send(body);
        }),
    );
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (Posted(posted, server), WebhookSink::new(url).unwrap().with_bearer(TOKEN).unwrap())
}
