//! Transitions of a real monitor, posted to a real receiver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use stackkit_checks::{EVENT_SCHEMA, FnCheck, WebhookSink};
use stackkit_core::health::{Event, MonitorOptions, Sink};
use stackkit_core::{Error, ErrorKind, Intervals, Monitor, Observation, Phase, RetryClass, ServiceExt, Stack};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::server::{Server, read_request};
use crate::support::PATIENCE;

const TAKEN: &str = "HTTP/1.1 204 x\r\ncontent-length: 0\r\n\r\n";
/// Retries need not be waited for here.
const NO_WAIT: Duration = Duration::from_millis(1);

/// A stack whose only service fails from the second probe on.
fn failing_stack() -> Stack {
    let failed_before = Arc::new(AtomicBool::new(false));
    let check = FnCheck::new("db", "database", move |_cx| {
        let fails = failed_before.swap(true, Ordering::SeqCst);
        async move {
            match fails {
                true => Err(Error::new(ErrorKind::Unreachable, "a \"quoted\" <reason>").with_phase(Phase::Connect)),
                false => Ok(Observation::new()),
            }
        }
    });
    let often = Intervals::new().with_poll(Duration::from_millis(20)).with_fall(1);
    Stack::builder("shop").service(check.with_intervals(often)).build().unwrap()
}

/// The event of the service turning unhealthy.
async fn event() -> Event {
    let monitor = Monitor::start(&failing_stack());
    let mut changes = monitor.changes();
    let found = async {
        loop {
            let event = changes.next_event().await.unwrap();
            if !event.transition.to.is_ready() {
                return event;
            }
        }
    };
    timeout(PATIENCE, found).await.unwrap()
}

fn body_of(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn a_monitor_posts_its_transitions() {
    let receiver = Server::answering(TAKEN).await;
    let sink = WebhookSink::new(receiver.url("/hook")).unwrap().with_bearer("t0ken").unwrap();
    let _monitor = Monitor::start_with(&failing_stack(), MonitorOptions::new().with_sink(sink));
    let unhealthy = async {
        loop {
            let requests = receiver.requests();
            match requests.iter().find(|request| body_of(request)["to"] == "unhealthy") {
                Some(request) => return request.clone(),
                None => tokio::task::yield_now().await,
            }
        }
    };
    let request = timeout(PATIENCE, unhealthy).await.unwrap();
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n") && request.contains("content-type: application/json\r\n"));
    assert!(request.contains("authorization: Bearer t0ken\r\n"));
    let body = body_of(&request);
    assert_eq!(body["schema"], EVENT_SCHEMA);
    assert_eq!((&body["stack"], &body["service"], &body["kind"]), (&json!("shop"), &json!("db"), &json!("database")));
    assert_eq!((&body["flapping"], &body["ready"]), (&json!(false), &json!(false)));
    assert!(body["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!((&body["failure"]["kind"], &body["failure"]["phase"]), (&json!("unreachable"), &json!("connect")));
}

#[tokio::test]
async fn templates_are_for_receivers_of_another_mind() {
    let event = event().await;
    let receiver = Server::answering(TAKEN).await;
    let url = receiver.url("/");
    let sinks = [
        WebhookSink::slack(url.clone()).unwrap(),
        WebhookSink::new(url.clone())
            .unwrap()
            .with_template(r#"{"t": "{{stack}}/{{service}}: {{from}} -> {{to}}"}"#)
            .unwrap(),
        WebhookSink::new(url).unwrap().with_template_fn(|event| json!([event.transition.service])),
    ];
    for sink in &sinks {
        sink.publish(&event).await.unwrap();
    }
    let bodies: Vec<Value> = receiver.requests().iter().map(|request| body_of(request)).collect();
    let text = bodies[0]["text"].as_str().unwrap();
    assert!(text.contains("db turned from") && text.contains("a \"quoted\" &lt;reason&gt;"), "{text}");
    assert_eq!(bodies[1]["t"], format!("shop/db: {} -> unhealthy", event.transition.from));
    assert_eq!(bodies[2], json!(["db"]));
}

/// Answers the first `bad` requests with a status, later ones with 204.
async fn receiver_after(bad: usize, status: u16) -> Server {
    let asked = Arc::new(AtomicUsize::new(0));
    Server::start(move |mut stream, requests| {
        let asked = asked.clone();
        async move {
            let Some(request) = read_request(&mut stream).await else { return };
            requests.lock().unwrap().push(request);
            let status = if asked.fetch_add(1, Ordering::SeqCst) < bad { status } else { 204 };
            let answer = format!("HTTP/1.1 {status} canary\r\ncontent-length: 6\r\n\r\ncanary");
            stream.write_all(answer.as_bytes()).await.ok();
        }
    })
    .await
}

#[tokio::test]
async fn a_busy_receiver_is_asked_again_and_no_more_often_than_said() {
    let event = event().await;
    for status in [408, 429, 500, 503] {
        let receiver = receiver_after(2, status).await;
        let sink = WebhookSink::new(receiver.url("/")).unwrap().with_attempts(4, NO_WAIT);
        sink.publish(&event).await.unwrap();
        assert_eq!(receiver.requests().len(), 3, "{status}");
    }
    let receiver = receiver_after(100, 503).await;
    let sink = WebhookSink::new(receiver.url("/")).unwrap().with_attempts(3, NO_WAIT);
    let error = sink.publish(&event).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.retry()), (ErrorKind::Busy, Some("503"), RetryClass::Exhausted));
    assert_eq!(receiver.requests().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let event = event().await;
    for (status, kind) in [
        (302, ErrorKind::Config),
        (400, ErrorKind::Config),
        (401, ErrorKind::Unauthenticated),
        (403, ErrorKind::PermissionDenied),
        (404, ErrorKind::NotFound),
    ] {
        let receiver = receiver_after(100, status).await;
        let sink = WebhookSink::new(receiver.url("/")).unwrap().with_attempts(4, NO_WAIT);
        assert_eq!(sink.publish(&event).await.unwrap_err().kind(), kind, "{status}");
        assert_eq!(receiver.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_is_given_up_within_the_sinks_own_time() {
    let receiver = Server::start(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let limit = Duration::from_secs(2);
    let sink = WebhookSink::new(receiver.url("/")).unwrap().with_timeout(limit).with_attempts(3, NO_WAIT);
    let event = event().await;
    let error = timeout(sink.timeout(), sink.publish(&event)).await.expect("it ends by itself").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(receiver.connections(), 3, "one that hangs leaves time for the other attempts");
}

#[tokio::test]
async fn neither_url_nor_headers_are_shown() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let receiver = receiver_after(100, 400).await;
    let event = event().await;
    for port in [port, receiver.port] {
        let sink = WebhookSink::slack(format!("http://127.0.0.1:{port}/services/canary?x=canary"))
            .unwrap()
            .with_header("x-key", "canary")
            .unwrap()
            .with_attempts(2, NO_WAIT);
        let error = sink.publish(&event).await.unwrap_err();
        let shown = format!("{sink:?} {error} {error:?} {}", error.chain());
        assert!(!shown.contains("canary"), "{shown}");
    }
    for bad in ["canary", "ftp://canary/", "http://u:canary@host/"] {
        let error = WebhookSink::new(bad).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && !format!("{error:?}").contains("canary"), "{error:?}");
    }
    let bad = WebhookSink::new("https://a/").unwrap().with_header("x-key", "canary\n").unwrap_err();
    assert!(!format!("{bad:?}").contains("canary"), "{bad:?}");
}
