//! The age of the last backup in the health report of the stack that it is a backup of.

use std::time::Duration;

use jiff::Timestamp;
use stackkit::health::{Limit, Status, Thresholds};
use stackkit::{
    BackupFreshness, Clock, Intervals, Monitor, Report, Repository, RepositoryOptions, ServiceExt, Stack, StackEntry,
    Volume,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::tool::Test;

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("a_late_backup_degrades_and_stays_ready", a_late_backup_degrades_and_stays_ready),
    Test::new("a_late_backup_makes_unready_who_asks_for_it", a_late_backup_makes_unready_who_asks_for_it),
];

/// How long a first inventory may take on a busy machine.
const SEEN_DEADLINE: Duration = Duration::from_secs(60);

/// A volume whose only backup is three days old, by the clock of the repository.
struct Site {
    _folder: tempfile::TempDir,
    volume: Volume,
    repository: Repository,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uploads = folder.path().join("uploads");
        std::fs::create_dir(&uploads).unwrap();
        std::fs::write(uploads.join("cat.png"), [7; 5000]).unwrap();
        let volume = Volume::new("uploads", uploads);
        let url = format!("file://{}", folder.path().join("repository").display());
        let options = RepositoryOptions::new().unencrypted();
        let repository = Repository::open_or_create(&url, options.clone()).await.unwrap();
        let stack = Stack::builder("shop").service(volume.clone()).build().unwrap();
        repository.backup(&stack).run().await.unwrap();
        let later = Clock::fixed(Timestamp::now() + Duration::from_secs(72 * 3600));
        let repository = Repository::open(&url, options.with_clock(later)).await.unwrap();
        Self { _folder: folder, volume, repository }
    }

    fn freshness(&self) -> BackupFreshness {
        BackupFreshness::new(self.repository.clone(), "shop").with_max_verify_age(None)
    }

    /// Watches the volume and its backups until both were looked at.
    async fn watch(&self, backups: StackEntry) -> Watched {
        let often = Intervals::new().with_poll(Duration::from_millis(20)).with_fall(1);
        let backups = backups.with_intervals(often);
        let stack = Stack::builder("shop").service(self.volume.clone()).service(backups).build().unwrap();
        let monitor = Monitor::start(&stack);
        let seen = async {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            while status(&monitor.report(), "uploads") == Status::Unknown || codes(&monitor.report()).is_empty() {
                tick.tick().await;
            }
        };
        tokio::time::timeout(SEEN_DEADLINE, seen).await.expect("the backups are not looked at");
        let (report, answer) = (monitor.report(), readyz(&monitor).await);
        Watched { codes: codes(&report), backups: status(&report, "backups"), ready: report.ready, answer }
    }
}

#[derive(Debug)]
struct Watched {
    codes: Vec<String>,
    backups: Status,
    ready: bool,
    /// What `/readyz?verbose` says.
    answer: String,
}

fn status(report: &Report, service: &str) -> Status {
    report.service(service).unwrap().status
}

fn codes(report: &Report) -> Vec<String> {
    let backups = report.service("backups").unwrap();
    let seen = backups.observation.iter().flat_map(|seen| &seen.findings);
    seen.chain(&backups.exceeded).map(|finding| finding.code.to_string()).collect()
}

async fn readyz(monitor: &Monitor) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = stackkit::http::router(monitor);
    let _server = AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /readyz?verbose HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

fn a_late_backup_degrades_and_stays_ready() {
    run(async {
        let site = Site::new().await;
        let late = site.watch(site.freshness().into()).await;
        assert_eq!((late.codes.as_slice(), late.backups), (&["backup.stale".to_owned()][..], Status::Degraded));
        assert!(late.ready && late.answer.starts_with("HTTP/1.1 200 "), "{late:?}");
        assert!(late.answer.contains("backups"), "{late:?}");
        // With another limit it is not late; what was never drilled is.
        let in_time = site.freshness().with_max_age(Duration::from_secs(96 * 3600)).with_max_drill_age(Duration::ZERO);
        let in_time = site.watch(in_time.into()).await;
        assert_eq!(in_time.codes, ["backup.drill.stale"], "{in_time:?}");
    });
}

fn a_late_backup_makes_unready_who_asks_for_it() {
    run(async {
        let site = Site::new().await;
        let limit = || Thresholds::new().with_limit("backup_age_seconds", Limit::FailAbove(48.0 * 3600.0));
        let late = site.watch(site.freshness().with_thresholds(limit())).await;
        assert!(late.codes.iter().any(|code| code == "backup.stale"), "{late:?}");
        assert_eq!((late.backups, late.ready), (Status::Unhealthy, false), "{late:?}");
        assert!(late.answer.starts_with("HTTP/1.1 503 "), "{late:?}");
        // Of a service that is only shown the limit changes nothing.
        let shown = site.watch(site.freshness().with_thresholds(limit()).informational()).await;
        assert!(shown.ready && shown.answer.starts_with("HTTP/1.1 200 "), "{shown:?}");
    });
}
