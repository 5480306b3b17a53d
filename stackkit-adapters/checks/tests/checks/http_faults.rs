//! Web services that fail: each fault has its kind, its phase, and ends in time.

use std::time::Duration;

use stackkit_checks::HttpCheck;
use stackkit_core::health::Tier;
use stackkit_core::{ErrorKind, HealthCheck, Phase, Stack};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::server::{OK, Server, read_request};
use crate::support::{codes, is_ready, open_files, probe, probe_in_vain, within};

async fn refusing_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Accepts, keeps the connection, and says nothing.
async fn hanging_server() -> Server {
    Server::start(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

fn check(port: u16) -> HttpCheck {
    HttpCheck::new("web", format!("http://127.0.0.1:{port}/?token=canary-query")).with_bearer("canary-bearer")
}

/// Probes in vain, and looks for secrets in whatever it left.
async fn fault_of(check: &HttpCheck) -> (ErrorKind, Option<Phase>) {
    let (error, _) = probe_in_vain(check).await;
    let shown = format!("{error} {error:?} {} {check:?}", error.chain());
    assert!(!shown.contains("canary"), "a secret is shown: {shown}");
    (error.kind(), error.phase())
}

#[tokio::test]
async fn refused() {
    assert_eq!(fault_of(&check(refusing_port().await)).await, (ErrorKind::Unreachable, Some(Phase::Connect)));
}

#[tokio::test]
async fn black_hole() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Connections that nobody accepts fill the queue; then the system drops what comes.
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 100, "the queue has no end");
    }
    assert_eq!(fault_of(&check(address.port())).await, (ErrorKind::Timeout, Some(Phase::Connect)));
}

#[tokio::test]
async fn accepts_then_hangs() {
    let server = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    assert_eq!(fault_of(&check(server.port)).await, (ErrorKind::Timeout, Some(Phase::Query)));
}

#[tokio::test]
async fn hangs_in_the_tls_handshake() {
    let server = hanging_server().await;
    let check = HttpCheck::new("web", format!("https://127.0.0.1:{}/", server.port));
    let authority = crate::http_tls::any_authority();
    let check = check.with_ca_file(authority.path());
    assert_eq!(fault_of(&check).await, (ErrorKind::Timeout, Some(Phase::Tls)));
}

#[tokio::test]
async fn hangs_up_without_an_answer() {
    let server = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
    })
    .await;
    assert_eq!(fault_of(&check(server.port)).await, (ErrorKind::Unreachable, Some(Phase::Query)));
}

#[tokio::test]
async fn reset_in_mid_answer() {
    let server = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
        // What was sent must have arrived: a reset throws away what the peer has not read.
        tokio::task::yield_now().await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let (kind, phase) = fault_of(&check(server.port)).await;
    assert_eq!(kind, ErrorKind::Unreachable);
    assert!(matches!(phase, Some(Phase::Query | Phase::Decode)), "{phase:?}");
}

#[tokio::test]
async fn ends_in_mid_answer() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 100\r\n\r\nhalf").await;
    assert_eq!(fault_of(&check(server.port)).await, (ErrorKind::Unreachable, Some(Phase::Decode)));
}

#[tokio::test]
async fn slow_body() {
    let server = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        while stream.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    assert_eq!(fault_of(&check(server.port)).await, (ErrorKind::Timeout, Some(Phase::Decode)));
}

#[tokio::test]
async fn no_http() {
    let server = Server::answering("SSH-2.0-canary\r\n\r\n").await;
    assert_eq!(fault_of(&check(server.port)).await, (ErrorKind::Unexpected, Some(Phase::Decode)));
}

#[tokio::test]
async fn huge_body() {
    // It never ends: only who stops reading gets on.
    let server = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await;
    let plain = check(server.port);
    let seen = probe(&plain).await.unwrap();
    assert!(is_ready(&plain, &seen) && seen.value("response_bytes").is_none(), "{seen:?}");
    probe(&plain).await.unwrap();
    assert_eq!(server.connections(), 2, "a connection with an unread rest is not kept");
    let judged = check(server.port).with_json("/status", "ok");
    assert_eq!(codes(&probe(&judged).await.unwrap()), ["http.body.too_large"]);
}

#[tokio::test]
async fn a_probe_that_is_given_up_leaves_nothing_to_the_next() {
    let server = Server::start(|mut stream, requests| async move {
        let first = requests.lock().unwrap().is_empty();
        while let Some(head) = read_request(&mut stream).await {
            requests.lock().unwrap().push(head);
            match first {
                true => std::future::pending().await,
                false => stream.write_all(OK.as_bytes()).await.unwrap(),
            }
        }
    })
    .await;
    let check = check(server.port);
    let cx = within(Duration::from_millis(50), Tier::Ping);
    assert!(timeout(Duration::from_millis(20), check.probe(&cx)).await.is_err() || server.requests().is_empty());
    assert!(is_ready(&check, &probe(&check).await.unwrap()));
}

#[tokio::test]
async fn no_view_of_a_failure_shows_a_secret() {
    let busy = Server::answering("HTTP/1.1 500 canary\r\nx-canary: canary\r\ncontent-length: 6\r\n\r\ncanary").await;
    let locked = Server::answering("HTTP/1.1 401 canary\r\ncontent-length: 6\r\n\r\ncanary").await;
    let stack = Stack::builder("shop")
        .service(check(refusing_port().await).with_id("refused"))
        .service(check(busy.port).with_id("busy").with_json("/canary", "canary").with_body_containing("canary"))
        .service(check(locked.port).with_id("locked"))
        .build()
        .unwrap();
    let report = stack.check_now(&[]).await;
    let shown = format!("{report:?} {} {stack:?}", serde_json::to_string(&report).unwrap());
    assert!(!report.ready && shown.contains("http.status.unexpected"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn a_thousand_failing_probes_leave_no_file_open() {
    /// What the other tests of this process may open meanwhile.
    const OTHERS_MAX: usize = 200;
    let refusing = check(refusing_port().await);
    let closing = Server::start(|_stream, _| std::future::ready(())).await;
    let closing = check(closing.port);
    let hanging = hanging_server().await;
    // The server's own ends stay open: it hangs on to them.
    let hanging_check = check(hanging.port);
    let before = open_files();
    for round in 0..1000 {
        match round % 20 {
            0 => {
                let cx = within(Duration::from_millis(5), Tier::Ping);
                assert!(hanging_check.probe(&cx).await.is_err());
            }
            1..=10 => assert!(refusing.probe(&within(crate::support::PATIENCE, Tier::Ping)).await.is_err()),
            _ => assert!(closing.probe(&within(crate::support::PATIENCE, Tier::Ping)).await.is_err()),
        }
    }
    let held_by_the_server = hanging.connections();
    let after = open_files();
    assert!(after <= before + held_by_the_server + OTHERS_MAX, "{before} open files became {after}");
}
