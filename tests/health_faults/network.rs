//! Faults between the stack and a server that is well.

use std::time::Duration;

use stackkit::{ErrorKind, Phase};

use crate::health_faults::proxy::Mode;
use crate::health_faults::{Failure, Kind, Site, TIMEOUT, TRIES, assert_in_time, fails, ready, run};
use crate::tool::Test;

use ErrorKind::{Timeout, Unreachable};

pub(crate) const TESTS: &[Test] = &[
    Test::new("postgres_behind_a_failing_network", || run(matrix(Kind::Postgres))).needs(&["postgres"]),
    Test::new("redis_behind_a_failing_network", || run(matrix(Kind::Redis))).needs(&["redis"]),
];

/// One row of the matrix: a fault, and what is said of it by a service without and by one with a connection.
struct Row {
    name: &'static str,
    mode: Mode,
    cold: Failure,
    warm: Failure,
}

const ROWS: &[Row] = &[
    Row {
        name: "refused",
        mode: Mode::Refuse,
        cold: Failure::new(Unreachable, &[Phase::Connect]),
        // Whether the connection is known to be gone before it is used is a race; if so, a new one is tried.
        warm: Failure::new(Unreachable, &[Phase::Query, Phase::Connect]),
    },
    Row {
        name: "black hole",
        mode: Mode::BlackHole,
        cold: Failure::new(Timeout, &[Phase::Connect]),
        warm: Failure::new(Timeout, &[Phase::Query]),
    },
    Row {
        name: "accepts, then hangs",
        mode: Mode::Hang,
        cold: Failure::new(Timeout, &[Phase::Auth]),
        warm: Failure::new(Timeout, &[Phase::Query]),
    },
    Row {
        name: "reset before the first byte of an answer",
        mode: Mode::Reset(0),
        cold: Failure::new(Unreachable, &[Phase::Auth]),
        warm: Failure::new(Unreachable, &[Phase::Query]),
    },
    Row {
        name: "reset within an answer",
        mode: Mode::Reset(3),
        cold: Failure::new(Unreachable, &[Phase::Auth]),
        warm: Failure::new(Unreachable, &[Phase::Query]),
    },
    Row {
        name: "slower than the deadline",
        mode: Mode::Delay(Duration::from_secs(2)),
        cold: Failure::new(Timeout, &[Phase::Auth]),
        warm: Failure::new(Timeout, &[Phase::Query]),
    },
];

async fn matrix(kind: Kind) {
    let mut site = Site::start(kind).await;
    for row in ROWS {
        play(&mut site, row, &format!("{kind:?}, {}", row.name)).await;
    }
    // A slow network alone is no fault.
    site.proxy.set(Mode::Delay(TIMEOUT / 50)).await;
    let held = site.warm_stack().await;
    let before = site.proxy.accepted();
    for _ in 0..TRIES {
        assert!(held.check_now(&[]).await.ready);
    }
    assert_eq!(site.proxy.accepted(), before, "{kind:?}: one connection is enough for many probes");
}

async fn play(site: &mut Site, row: &Row, name: &str) {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let held = site.warm_stack().await;
        site.proxy.set(row.mode).await;
        warm.push(fails(&held, row.warm, &format!("{name}, warm")).await);
        cold.push(fails(&site.stack(), row.cold, &format!("{name}, cold")).await);
        site.proxy.set(Mode::Pass).await;
        // What failed is not in the way of the next probe.
        ready(&held).await;
    }
    assert_in_time(&warm, &format!("{name}, warm"));
    assert_in_time(&cold, &format!("{name}, cold"));
}
