//! The check of an application, with the network between failing.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use stackkit::checks::HttpCheck;
use stackkit::{ErrorKind, Phase, Stack};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::health_faults::proxy::{Mode, Proxy};
use crate::health_faults::{Failure, TRIES, assert_in_time, fails, intervals, ready, run, stack_of};
use crate::tool::Test;

pub(crate) const TESTS: &[Test] = &[Test::new("an_application_behind_a_failing_network", || run(matrix()))];

const ROWS: &[(&str, Mode, Failure)] = &[
    ("refused", Mode::Refuse, Failure::new(ErrorKind::Unreachable, &[Phase::Connect])),
    ("black hole", Mode::BlackHole, Failure::new(ErrorKind::Timeout, &[Phase::Connect])),
    ("accepts, then hangs", Mode::Hang, Failure::new(ErrorKind::Timeout, &[Phase::Query])),
    ("reset before the answer", Mode::Reset(0), Failure::new(ErrorKind::Unreachable, &[Phase::Query])),
    ("reset within the answer", Mode::Reset(12), Failure::new(ErrorKind::Unreachable, &[Phase::Query])),
    ("too slow", Mode::Delay(Duration::from_secs(2)), Failure::new(ErrorKind::Timeout, &[Phase::Query])),
];

async fn matrix() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut proxy = Proxy::start(listener.local_addr().unwrap().port()).await;
    let mut server = JoinSet::new();
    let router = Router::new().route("/ok", get(async || "well"));
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    for (name, mode, expected) in ROWS {
        let mut tries = Vec::new();
        for _ in 0..TRIES {
            let held = application(&proxy);
            ready(&held).await;
            proxy.set(*mode).await;
            tries.push(fails(&application(&proxy), *expected, &format!("http, {name}")).await);
            // Whatever it says of a connection that it has, it is not ready.
            assert!(!held.check_now(&[]).await.ready, "http, {name}, warm");
            proxy.set(Mode::Pass).await;
            ready(&held).await;
        }
        assert_in_time(&tries, &format!("http, {name}"));
    }
}

fn application(proxy: &Proxy) -> Stack {
    let url = format!("http://127.0.0.1:{}/ok", proxy.port());
    stack_of(std::sync::Arc::new(HttpCheck::new("store", url)), intervals())
}
