//! Faults of this machine: a mount that hangs, a clock that jumps.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use stackkit::health::Status;
use stackkit::{
    Clock, Endpoint, Error, ErrorKind, HealthCheck, Monitor, Observation, ProbeContext, Result, Service, ServiceExt,
    ServiceId, Stack, async_trait,
};
use stackkit_fixtures::wait_until;

use crate::health_faults::{MARGIN, PATIENCE, TIMEOUT, TRIES, assert_in_time, intervals, ready, run};
use crate::tool::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new("a_mount_that_hangs_is_seen_and_holds_one_thread", || run(hung_mount())),
    Test::new("a_wall_clock_that_jumps_changes_no_verdict", || run(clock_step())),
];

/// A check that reads a file, in its own thread of the runtime: what a badly written check does.
#[derive(Debug)]
struct Reads {
    id: ServiceId,
    path: PathBuf,
    probes: Arc<AtomicUsize>,
}

impl Service for Reads {
    fn id(&self) -> &ServiceId {
        &self.id
    }
    fn kind(&self) -> &'static str {
        "mount"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::local("file", self.path.display().to_string())
    }
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Reads {
    async fn probe(&self, _cx: &ProbeContext) -> Result<Observation> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        std::fs::read(&self.path).map_err(|error| Error::io("read", error))?;
        Ok(Observation::new())
    }
}

/// Opening a FIFO blocks, uninterruptibly for the caller, until somebody writes: as a mount whose server is gone does.
async fn hung_mount() {
    let folder = tempfile::tempdir().unwrap();
    let mut tries = Vec::new();
    for number in 0..TRIES {
        let path = folder.path().join(number.to_string());
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let probes = Arc::new(AtomicUsize::new(0));
        let reads = Reads { id: ServiceId::new("store").unwrap(), path: path.clone(), probes: probes.clone() };
        let stack = Stack::builder("shop").service(reads.with_intervals(intervals())).build().unwrap();
        let began = Clock::system().instant();
        let report = stack.check_now(&[]).await;
        tries.push(began.elapsed());
        // Freed first, so that a failed assertion does not hang with it.
        let again = stack.check_now(&[]).await;
        std::fs::write(&path, "answer").unwrap();
        for report in [&report, &again] {
            let service = report.service("store").unwrap();
            assert_eq!(service.failure.as_ref().map(|failure| failure.kind), Some(ErrorKind::Timeout), "{service:?}");
            assert!(service.stuck_since.is_some() && service.status == Status::Unhealthy, "{service:?}");
        }
        assert_eq!(probes.load(Ordering::SeqCst), 1, "a second thread hangs beside the first");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "answer").unwrap();
        ready(&stack).await;
        assert_eq!(stack.check_now(&[]).await.service("store").unwrap().stuck_since, None);
    }
    assert_in_time(&tries, "a mount that hangs");
}

/// Staleness, intervals and deadlines follow the monotonic clock; wall time is for people.
async fn clock_step() {
    let start: Timestamp = "2026-11-21T06:15:30Z".parse().unwrap();
    let clock = Clock::fixed(start);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "answer").unwrap();
    let probes = Arc::new(AtomicUsize::new(0));
    let reads = Reads { id: ServiceId::new("store").unwrap(), path: path.clone(), probes: probes.clone() };
    let poll = Duration::from_millis(20);
    let service = reads.with_intervals(intervals().with_poll(poll).with_poll_failing(poll));
    let stack = Stack::builder("shop").clock(clock.clone()).service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    monitor.wait_ready(PATIENCE).await.unwrap();
    let mut changes = monitor.changes();
    for step in [24, -48, 24 * 365, -24 * 365 * 30].map(SignedDuration::from_hours) {
        clock.set(clock.now() + step);
        let report = monitor.report();
        assert!(report.ready && report.status == Status::Healthy, "{step}: {report}");
        let before = probes.load(Ordering::SeqCst);
        let went_on = async || (probes.load(Ordering::SeqCst) >= before + 3).then_some(());
        wait_until("probing goes on", PATIENCE, went_on).await.unwrap();
        let report = monitor.report();
        assert!(report.ready && report.status == Status::Healthy, "{step}: {report}");
        let ratio = report.service("store").unwrap().availability.hour_ratio;
        assert!(ratio.is_none_or(|ratio| ratio > 0.99), "{step}: {ratio:?}");
    }
    let told = tokio::time::timeout(MARGIN, changes.next()).await;
    assert!(told.is_err(), "nothing has changed: {told:?}");
    // A fault is seen as soon as ever.
    std::fs::remove_file(&path).unwrap();
    let change = tokio::time::timeout(TIMEOUT + PATIENCE, changes.next()).await.unwrap().unwrap();
    assert_eq!((change.from, change.to), (Status::Healthy, Status::Unhealthy));
}
