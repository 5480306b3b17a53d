//! Ports: real listeners of this process.

use stackkit_checks::TcpCheck;
use stackkit_core::{ErrorKind, Phase, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{codes, is_ready, probe, probe_in_vain};

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn a_listening_port_is_ready_and_the_connection_is_closed_cleanly() {
    let (listener, port) = listener().await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail.internal ESMTP\r\n").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(|_| rest)
    });
    let check = TcpCheck::new("mail", "127.0.0.1", port).with_send("NOOP\r\n").with_banner("220 ");
    let seen = probe(&check).await.unwrap();
    assert!(is_ready(&check, &seen), "{seen:?}");
    assert!(seen.value("connect_ms").is_some() && seen.value("banner_ms").is_some());
    let received = server.join_next().await.unwrap().unwrap().expect("closed by the end of the stream, not by a reset");
    assert_eq!(received, b"NOOP\r\n");
}

#[tokio::test]
async fn another_banner_is_a_finding() {
    let (listener, port) = listener().await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-canary\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    let check = TcpCheck::new("mail", "127.0.0.1", port).with_banner("220 ");
    let seen = probe(&check).await.unwrap();
    assert_eq!(codes(&seen), ["tcp.banner.mismatch"]);
    assert!(!is_ready(&check, &seen) && !format!("{seen:?}").contains("canary"));
}

#[tokio::test]
async fn a_port_that_refuses_is_unreachable_at_once() {
    let (listener, port) = listener().await;
    drop(listener);
    let (error, took) = probe_in_vain(&TcpCheck::new("x", "127.0.0.1", port)).await;
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Unreachable, Some(Phase::Connect)), "after {took:?}");
}

#[tokio::test]
async fn a_silent_server_meets_the_deadline() {
    let (listener, port) = listener().await;
    let (error, _) = probe_in_vain(&TcpCheck::new("x", "127.0.0.1", port).with_banner("+OK")).await;
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Timeout, Some(Phase::Query)));
    drop(listener);
}

#[tokio::test]
async fn a_server_that_hangs_up_before_its_banner_is_unreachable() {
    let (listener, port) = listener().await;
    let mut server = JoinSet::new();
    server.spawn(async move { drop(listener.accept().await) });
    let (error, _) = probe_in_vain(&TcpCheck::new("x", "127.0.0.1", port).with_banner("+OK")).await;
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Unreachable, Some(Phase::Query)));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_of_the_phase_dns() {
    // RFC 6761: no resolver answers for `.invalid`.
    let check = TcpCheck::new("x", "stackkit.invalid", 80);
    assert_eq!(probe(&check).await.unwrap_err().phase(), Some(Phase::Dns));
}

#[test]
fn every_fault_of_the_configuration_is_told_at_once() {
    let check = TcpCheck::new("a b", "", 0).with_banner(vec![0; 2000]);
    let found: Vec<String> = check.faults().into_iter().map(|fault| fault.code).collect();
    assert_eq!(found, ["tcp.id", "tcp.host", "tcp.port", "tcp.banner"]);
    for bad in ["http://a:1", "tcp://a", "tcp://:1", "tcp://a:x", "tcp://a:1/path", "tcp://u:p@a:1", "tcp://a:99999"] {
        assert!(TcpCheck::from_url(bad).is_err(), "{bad} was accepted");
    }
}
