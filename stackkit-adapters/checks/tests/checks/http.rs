//! Web services that answer.

use serde_json::json;
use stackkit_checks::HttpCheck;
use stackkit_core::{ErrorKind, HealthCheck, Phase, Service};

use crate::server::{OK, Server, read_request};
use crate::support::{codes, is_ready, probe};

fn json_body(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nx-role: primary\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_service_that_answers_is_ready_and_measured() {
    let server = Server::answering(OK).await;
    let check = HttpCheck::new("web", server.url("/health?full=1"));
    let seen = probe(&check).await.unwrap();
    assert!(is_ready(&check, &seen), "{seen:?}");
    assert_eq!((seen.value("response_bytes"), seen.info["status_code"].as_str()), (Some(2.0), "200"));
    assert!(seen.value("response_ms").is_some());
    let request = server.requests().remove(0);
    assert!(request.starts_with("GET /health?full=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: 127.0.0.1:{}\r\n", server.port)), "{request}");
}

#[tokio::test]
async fn one_connection_is_kept_until_it_is_reset_or_the_server_closes_it() {
    let server = Server::answering(OK).await;
    let check = HttpCheck::new("web", server.url("/"));
    for _ in 0..20 {
        probe(&check).await.unwrap();
    }
    assert_eq!((server.connections(), server.requests().len()), (1, 20));
    check.reset().await;
    probe(&check).await.unwrap();
    assert_eq!(server.connections(), 2);
    let closing = Server::answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let check = HttpCheck::new("web", closing.url("/"));
    for connections in 1..=3 {
        assert!(is_ready(&check, &probe(&check).await.unwrap()));
        assert_eq!(closing.connections(), connections);
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_server_gave_up_is_no_failure() {
    // One answer a connection, without saying that it ends: as a server whose idle time is over.
    let server = Server::start(|mut stream, requests| async move {
        let Some(head) = read_request(&mut stream).await else { return };
        requests.lock().unwrap().push(head);
        tokio::io::AsyncWriteExt::write_all(&mut stream, OK.as_bytes()).await.unwrap();
    })
    .await;
    let check = HttpCheck::new("web", server.url("/"));
    for probes in 1..=5 {
        assert!(is_ready(&check, &probe(&check).await.unwrap()), "probe {probes}");
    }
    assert_eq!((server.connections(), server.requests().len()), (5, 5));
}

#[tokio::test]
async fn another_status_is_a_finding_with_its_number() {
    let server = Server::answering("HTTP/1.1 503 canary\r\ncontent-length: 6\r\n\r\ncanary").await;
    let check = HttpCheck::new("web", server.url("/"));
    let seen = probe(&check).await.unwrap();
    assert_eq!((codes(&seen), is_ready(&check, &seen)), (vec!["http.status.unexpected"], false));
    assert_eq!(seen.findings[0].message, "the server answers with status 503");
    assert_eq!(seen.info["status_code"], "503");
    assert!(!format!("{seen:?}").contains("canary"), "the server's text is not shown");
    let accepted = HttpCheck::new("web", server.url("/")).with_statuses([200, 503]);
    assert!(is_ready(&accepted, &probe(&accepted).await.unwrap()));
}

#[tokio::test]
async fn refused_credentials_are_errors() {
    for (status, kind) in [(401, ErrorKind::Unauthenticated), (403, ErrorKind::PermissionDenied)] {
        let server = Server::answering(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n")).await;
        let error = probe(&HttpCheck::new("web", server.url("/"))).await.unwrap_err();
        assert_eq!((error.kind(), error.phase(), error.code()), (kind, Some(Phase::Auth), Some(&*status.to_string())));
        let accepted = HttpCheck::new("web", server.url("/")).with_statuses([status]);
        assert!(probe(&accepted).await.is_ok());
    }
}

#[tokio::test]
async fn bodies_and_headers_are_judged() {
    let server = Server::answering(json_body(r#"{"status": "ok", "checks": [{"ready": true}]}"#)).await;
    let check = || HttpCheck::new("web", server.url("/"));
    let good = check()
        .with_json("/status", "ok")
        .with_json("/checks/0", json!({"ready": true}))
        .with_body_containing("ready")
        .with_expected_header("X-Role", "primary");
    let seen = probe(&good).await.unwrap();
    assert!(is_ready(&good, &seen), "{seen:?}");
    let bad =
        check().with_json("/status", "down").with_body_containing("sorry").with_expected_header("x-role", "replica");
    let seen = probe(&bad).await.unwrap();
    assert_eq!(codes(&seen), ["http.header.mismatch", "http.body.mismatch", "http.body.mismatch"]);
}

#[tokio::test]
async fn methods_bodies_and_headers_are_sent() {
    let server = Server::answering(OK).await;
    let check = HttpCheck::new("web", server.url("/query"))
        .with_method("POST")
        .with_header("content-type", "application/json")
        .with_bearer("t0ken")
        .with_body("{}");
    for _ in 0..2 {
        probe(&check).await.unwrap();
    }
    let request = server.requests().remove(0);
    for part in ["POST /query ", "authorization: Bearer t0ken\r\n", "content-type: application/json\r\n", "\r\n\r\n{}"]
    {
        assert!(request.contains(part), "{part} is not in {request}");
    }
    assert_eq!(server.connections(), 2, "what may change something is never sent on a connection that may be dead");
    let head = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    let check = HttpCheck::new("web", head.url("/")).with_method("HEAD");
    assert_eq!(probe(&check).await.unwrap().value("response_bytes"), Some(0.0));
}

#[test]
fn every_fault_of_the_configuration_is_told_at_once() {
    let check = HttpCheck::new("a b", "http://user:canary@host/")
        .with_method("G T")
        .with_statuses([99])
        .with_expected_header("a b", "")
        .with_json("status", "ok")
        .with_header("x", "canary\n");
    let faults = check.faults();
    let found: Vec<&str> = faults.iter().map(|fault| fault.code.as_str()).collect();
    let wanted = [
        "http.id",
        "http.url",
        "http.method",
        "http.statuses",
        "http.expected_header",
        "http.json_pointer",
        "http.header",
    ];
    assert_eq!(found, wanted);
    assert!(!format!("{faults:?}").contains("canary"), "{faults:?}");
    let plain = HttpCheck::new("web", "http://shop.internal/").with_bearer("x");
    assert_eq!(plain.faults()[0].code, "http.secret.plain");
    assert!(HttpCheck::new("web", "http://127.0.0.1/").with_bearer("x").faults().is_empty());
}
