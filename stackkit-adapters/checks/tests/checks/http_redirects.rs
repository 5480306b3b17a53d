//! Redirects: off, or followed with care.

use stackkit_checks::HttpCheck;

use crate::server::{OK, Server};
use crate::support::{codes, is_ready, probe};

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

#[tokio::test]
async fn a_redirect_is_a_status_unless_it_is_followed() {
    let end = Server::answering(OK).await;
    let start = Server::answering(redirect(&end.url("/end"))).await;
    let check = HttpCheck::new("web", start.url("/"));
    assert_eq!(codes(&probe(&check).await.unwrap()), ["http.status.unexpected"]);
    assert_eq!(end.connections(), 0, "nobody asked to follow");
    let follows = HttpCheck::new("web", start.url("/")).with_redirects(1);
    let seen = probe(&follows).await.unwrap();
    assert!(is_ready(&follows, &seen), "{seen:?}");
    assert!(end.requests()[0].starts_with("GET /end "));
}

#[tokio::test]
async fn secrets_stay_with_their_server() {
    let end = Server::answering(OK).await;
    let start = Server::answering(redirect(&end.url("/"))).await;
    let check = HttpCheck::new("web", start.url("/"))
        .with_bearer("canary")
        .with_secret_header("x-api-key", "canary")
        .with_header("x-probe", "stackkit")
        .with_redirects(3);
    probe(&check).await.unwrap();
    assert!(start.requests()[0].contains("canary"), "its own server gets them");
    let request = end.requests().remove(0);
    assert!(!request.contains("canary") && request.contains("x-probe: stackkit"), "{request}");
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let server = Server::answering(redirect("/again")).await;
    let check = HttpCheck::new("web", server.url("/")).with_redirects(5);
    assert_eq!(codes(&probe(&check).await.unwrap()), ["http.status.unexpected"]);
    assert_eq!((server.requests().len(), server.connections()), (6, 1));
}
