//! A probe that is cancelled while the server works delays nothing that comes after it.

use std::time::Duration;

use stackkit::health::Status;
use stackkit::{Clock, Monitor};
use stackkit_fixtures::wait_until;

use crate::health_faults::machine::Stopped;
use crate::health_faults::proxy::Mode;
use crate::health_faults::{
    Kind, MARGIN, PATIENCE, Site, TIMEOUT, TRIES, assert_in_time, intervals, run, stack_of, store_at,
};
use crate::tool::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new("a_cancelled_probe_of_postgres_delays_nothing", || run(check(Kind::Postgres))).needs(&["postgres"]),
    Test::new("a_cancelled_probe_of_redis_delays_nothing", || run(check(Kind::Redis))).needs(&["redis"]),
    Test::new("a_backend_that_works_on_delays_nothing", || run(backend())).needs(&["postgres"]),
    Test::new("a_monitor_sees_postgres_go_and_return", || run(returns(Kind::Postgres))).needs(&["postgres"]),
    Test::new("a_monitor_sees_redis_go_and_return", || run(returns(Kind::Redis))).needs(&["redis"]),
];

/// When the caller loses patience: long enough that the question is under way.
const CANCELLED_AFTER: Duration = Duration::from_millis(50);
/// Later than any probe of these tests waits.
const LATE: Duration = Duration::from_secs(20);

/// The answer to a cancelled probe comes, much later; nobody waits for it, or takes it for the next answer.
async fn check(kind: Kind) {
    let mut site = Site::start(kind).await;
    let mut tries = Vec::new();
    for _ in 0..TRIES {
        let stack = site.warm_stack().await;
        site.proxy.set(Mode::Delay(LATE)).await;
        let cancelled = tokio::time::timeout(CANCELLED_AFTER, stack.check_now(&[])).await;
        assert!(cancelled.is_err(), "{kind:?}: it answered before it could be cancelled");
        site.proxy.set(Mode::Pass).await;
        let began = Clock::system().instant();
        let report = stack.check_now(&[]).await;
        tries.push(began.elapsed());
        assert!(report.ready, "{report}");
    }
    assert_in_time(&tries, "the probe after a cancelled one");
}

/// A backend that hangs within a query is left alone with it.
async fn backend() {
    let site = Site::start(Kind::Postgres).await;
    let stack = site.warm_stack().await;
    let sql = "select pid from pg_stat_activity where application_name = 'stackkit'";
    let rows = site.postgres_server().query_in("postgres", sql).await.unwrap();
    let _stopped = Stopped::stop(rows[0][0].as_ref().unwrap().parse().unwrap());
    assert!(tokio::time::timeout(CANCELLED_AFTER, stack.check_now(&[])).await.is_err());
    let began = Clock::system().instant();
    let report = stack.check_now(&[]).await;
    assert!(report.ready && began.elapsed() <= TIMEOUT + MARGIN, "{:?} {report}", began.elapsed());
}

/// What polls in the background sees a hang within the deadline, and the return within the poll.
async fn returns(kind: Kind) {
    let mut site = Site::start(kind).await;
    let poll = TIMEOUT / 5;
    let intervals = intervals().with_poll(poll).with_poll_failing(poll);
    let monitor = Monitor::start(&stack_of(store_at(&site.url()), intervals));
    monitor.wait_ready(PATIENCE).await.unwrap();
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        for (mode, ready, times) in [(Mode::Hang, false, &mut gone), (Mode::Pass, true, &mut back)] {
            site.proxy.set(mode).await;
            let began = Clock::system().instant();
            let turned = async || (monitor.report().ready == ready).then_some(());
            wait_until("the monitor sees it", PATIENCE, turned).await.unwrap();
            times.push(began.elapsed());
        }
    }
    // Degraded perhaps: once an inventory was taken, a fixture's own settings (no fsync, a superuser) are risks.
    let report = monitor.report();
    let service = report.service("store").unwrap();
    assert_eq!(service.failure, None, "{report}");
    assert_eq!((service.axes.reach, service.axes.ready), (Status::Healthy, Status::Healthy), "{report}");
    // A poll, which may be 10 % longer than its interval, and then the deadline.
    let wait = poll + poll / 10 + TIMEOUT + MARGIN;
    assert!(gone.iter().min().unwrap() <= &wait, "{kind:?}: gone after {gone:?}");
    // At most the probe that hangs and the pause after it, which grows up to five times.
    let wait = TIMEOUT + MARGIN + poll * 6;
    assert!(back.iter().min().unwrap() <= &wait, "{kind:?}: back after {back:?}");
}
