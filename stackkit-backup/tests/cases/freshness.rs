//! Whether backups are made, checked and drilled.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_backup::{BackupFreshness, Repository, Sample, VerifyLevel};
use stackkit_core::health::{MeasurementValue, Severity, Status, Thresholds, Tier};
use stackkit_core::{Clock, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Service, Stack};

use crate::support::faulty::{Faulty, Plan, When};
use crate::support::read_only::ReadOnly;
use crate::support::scratch::Shelves;
use crate::support::shelf::Shelf;
use crate::support::{options, stack_of, text};

const HOUR: Duration = Duration::from_secs(60 * 60);

struct Site {
    store: Arc<InMemory>,
    repository: Repository,
    shelf: Shelf,
    stack: Stack,
}

impl Site {
    async fn new() -> Self {
        let shelf = Shelf::new("shelf").with("x", text(9000, 1));
        let stack = stack_of([shelf.clone()]);
        let store = Arc::new(InMemory::new());
        let options = options().with_clock(stack.clock().clone());
        let repository = Repository::with_store(store.clone(), options).await.unwrap();
        Self { store, repository, shelf, stack }
    }

    fn check(&self) -> BackupFreshness {
        BackupFreshness::new(self.repository.clone(), "shop")
    }

    fn later(&self, by: Duration) {
        self.stack.clock().advance(by);
    }
}

async fn probe(check: &BackupFreshness, tier: Tier, within: Duration) -> Result<Observation> {
    let clock = Clock::system();
    let mut seen = check.probe(&ProbeContext::new(tier, clock.deadline(within))).await?;
    for measured in &seen.measurements {
        let metric = check.metrics().iter().find(|metric| metric.name == measured.name);
        assert_eq!(metric.map(|metric| metric.kind), Some(measured.kind), "{}", measured.name);
        assert!(measured.labels.keys().eq(metric.unwrap().labels), "{}", measured.name);
    }
    // As the runner does.
    let verdict = Thresholds::new().verdict(&check.rules(), &seen);
    assert!(verdict.status <= Status::Degraded, "nothing here makes a stack unready");
    seen.findings.extend(verdict.findings);
    Ok(seen)
}

async fn inventory(check: &BackupFreshness) -> Observation {
    probe(check, Tier::Inventory, Duration::from_secs(30)).await.unwrap()
}

fn codes(seen: &Observation) -> Vec<&str> {
    seen.findings.iter().map(|finding| &*finding.code).collect()
}

pub(crate) async fn it_says_how_old_everything_is() {
    let site = Site::new().await;
    let check = site.check().with_id("backups-of-shop").with_max_drill_age(HOUR + Duration::from_secs(1));
    assert_eq!((check.id().as_str(), check.kind(), check.faults().len()), ("backups-of-shop", "backup", 0));
    let backup = site.repository.backup(&site.stack).run().await.unwrap();
    site.later(HOUR);
    for part in 1..=2 {
        site.repository.verification(backup.id()).sample(Sample::new(part, 2).unwrap()).run().await.unwrap();
        site.later(HOUR);
    }
    let scratch = Shelves::default();
    let drill = site.repository.verification(backup.id()).level(VerifyLevel::Drill).with_scratch(&scratch);
    assert_eq!(codes(&inventory(&check).await), ["backup.drill.stale"], "there was none");
    assert!(drill.run().await.unwrap().is_ok());
    // A verify that is younger than the drill, but of less.
    site.later(HOUR / 2);
    site.repository.verify(backup.id(), VerifyLevel::Content).await.unwrap();
    site.later(HOUR / 2);
    let seen = inventory(&check).await;
    assert!(seen.findings.is_empty(), "{seen:?}");
    let stored = backup.manifest().artifacts().map(|(_, artifact)| artifact.stored.bytes).sum::<u64>();
    for (name, value) in [
        ("backup_age_seconds", 4.0 * 3600.0),
        ("verify_age_seconds", 1800.0),
        ("drill_age_seconds", 3600.0),
        ("backup_size_bytes", stored as f64),
        ("backups_complete_count", 1.0),
        ("backups_damaged_count", 0.0),
    ] {
        assert_eq!(seen.value(name), Some(value), "{name}");
        let measured = seen.measurements.iter().find(|measured| measured.name == name).unwrap();
        assert_eq!(measured.labels["stack"], "shop");
    }
    assert_eq!(seen.info["last_backup"], backup.id().to_string());
    // The cheap tiers go on telling, with ages of their own time.
    site.later(HOUR);
    for tier in [Tier::Ping, Tier::Vitals] {
        let seen = probe(&check, tier, HOUR).await.unwrap();
        assert_eq!(seen.value("backup_age_seconds"), Some(5.0 * 3600.0));
        assert_eq!(codes(&seen), ["backup.drill.stale"]);
    }
    // Another stack has none.
    let other = BackupFreshness::new(site.repository.clone(), "other");
    assert!(probe(&other, Tier::Vitals, HOUR).await.unwrap().measurements.is_empty());
    let seen = inventory(&other).await;
    assert_eq!((codes(&seen), seen.value("backup_age_seconds")), (vec!["backup.none"], None));
}

pub(crate) async fn what_is_late_or_odd_is_a_risk() {
    let site = Site::new().await;
    let check = site.check();
    let first = site.repository.backup(&site.stack).run().await.unwrap();
    assert_eq!(codes(&inventory(&check).await), ["backup.unverified"]);
    site.repository.verify(first.id(), VerifyLevel::Stored).await.unwrap();
    assert_eq!(codes(&inventory(&check).await), ["backup.unverified"], "stored bytes prove nothing");
    site.repository.verify(first.id(), VerifyLevel::Content).await.unwrap();
    assert_eq!(codes(&inventory(&check).await), Vec::<&str>::new());
    site.later(27 * HOUR);
    assert_eq!(codes(&inventory(&check).await), ["backup.stale"]);
    assert!(codes(&inventory(&site.check().with_max_age(28 * HOUR)).await).is_empty());
    site.later(8 * 24 * HOUR);
    let seen = inventory(&check).await;
    assert_eq!(codes(&seen), ["backup.stale", "backup.unverified"]);
    assert_eq!((seen.findings[0].value, seen.findings[0].limit), (Some(9.125 * 86_400.0), Some(26.0 * 3600.0)));

    // A backup of almost nothing.
    let check = site.check().with_max_verify_age(None);
    site.shelf.clone().with("x", "");
    let second = site.repository.backup(&site.stack).run().await.unwrap();
    assert_eq!(codes(&inventory(&check).await), ["backup.shrunk"]);
    let check = check.with_shrunk_percent(0);
    assert!(codes(&inventory(&check).await).is_empty());

    // One that is damaged: the evidence says so, until another verify finds it whole.
    let record = &second.manifest().services[0].artifacts[0];
    let object = Path::from(format!("backups/shop/{}/{}", second.id(), record.path));
    let good = site.store.get(&object).await.unwrap().bytes().await.unwrap();
    site.store.put(&object, vec![0; good.len()].into()).await.unwrap();
    site.repository.verify(second.id(), VerifyLevel::Content).await.unwrap();
    assert_eq!(codes(&inventory(&check).await), ["backup.verify.failed"]);
    site.store.put(&object, good.into()).await.unwrap();
    site.later(HOUR);
    site.repository.verify(second.id(), VerifyLevel::Stored).await.unwrap();
    assert_eq!(codes(&inventory(&check).await), ["backup.verify.failed"]);
    site.repository.verify(second.id(), VerifyLevel::Content).await.unwrap();
    assert!(codes(&inventory(&check).await).is_empty());

    // A manifest that can't be used, and a backup that is dated in the future, are none.
    let manifest = Path::from(format!("backups/shop/{}/manifest.json", second.id()));
    site.store.put(&manifest, "{}".into()).await.unwrap();
    assert_eq!(codes(&inventory(&check).await), ["backup.stale", "backup.damaged"]);
    let future = stack_of([site.shelf.clone()]);
    future.clock().advance(400 * 24 * HOUR);
    site.repository.backup(&future).run().await.unwrap();
    assert_eq!(codes(&inventory(&check).await), ["backup.stale", "backup.damaged"]);
}

pub(crate) async fn a_storage_that_hangs_costs_one_request() {
    let plan = Plan::new(usize::MAX, When::HangBefore);
    let store = Arc::new(Faulty { inner: Arc::new(InMemory::new()), plan: Arc::clone(&plan) });
    let repository = Repository::with_store(store, options()).await.unwrap();
    let check = BackupFreshness::new(repository, "shop").with_max_age(HOUR);
    inventory(&check).await;
    plan.fail_at(plan.calls());
    let within = Duration::from_secs(2);
    for tier in [Tier::Inventory, Tier::Vitals, Tier::Ping] {
        let clock = Clock::system();
        let begun = clock.instant();
        let error = probe(&check, tier, within).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(clock.instant() - begun < within, "it answers before it is dropped");
    }
    let calls = plan.calls();
    assert_eq!(probe(&check, Tier::Inventory, within).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(plan.calls(), calls, "a request hangs, and another one was made");
}

pub(crate) async fn a_repository_that_is_gone_or_another_is_told() {
    let site = Site::new().await;
    let other = Site::new().await;
    site.repository.backup(&site.stack).run().await.unwrap();
    let check = site.check().with_max_verify_age(None);
    inventory(&check).await;
    let marker = Path::from("stackkit.json");
    let foreign = other.store.get(&marker).await.unwrap().bytes().await.unwrap();
    for text in ["{}".into(), foreign] {
        site.store.put(&marker, text.into()).await.unwrap();
        assert_eq!(codes(&probe(&check, Tier::Ping, HOUR).await.unwrap()), ["backup.repository.changed"]);
    }
    site.store.delete(&marker).await.unwrap();
    assert_eq!(probe(&check, Tier::Ping, HOUR).await.unwrap_err().kind(), ErrorKind::NotFound);
}

pub(crate) async fn a_write_is_tried_and_leaves_nothing() {
    let site = Site::new().await;
    site.repository.backup(&site.stack).run().await.unwrap();
    let objects = async || {
        let mut paths: Vec<_> = site.store.list(None).map(|object| object.unwrap().location).collect().await;
        paths.sort();
        paths
    };
    let before = objects().await;
    let check = site.check().with_max_verify_age(None);
    assert_eq!(check.last_size()(), None);
    let seen = inventory(&check).await;
    assert!(seen.value("repository_write_ms").is_some(), "{seen:?}");
    assert_eq!(objects().await, before);
    assert_eq!(check.last_size()().map(|bytes| bytes as f64), seen.value("backup_size_bytes"));
    // Memory has no end that it tells.
    assert_eq!(seen.value("repository_available_bytes").or(seen.value("repository_room_ratio")), None);
    let seen = inventory(&site.check().without_write_probe()).await;
    let silent = seen.measurements.iter().find(|measured| measured.name == "repository_write_ms").unwrap();
    assert_eq!(silent.value, MeasurementValue::Unavailable("the write probe is turned off".to_owned()));

    let read_only = Arc::new(ReadOnly(site.store.clone()));
    let repository = Repository::with_store(read_only, options()).await.unwrap();
    let check = BackupFreshness::new(repository, "shop").with_max_verify_age(None);
    let seen = inventory(&check).await;
    assert_eq!(codes(&seen), ["backup.repository.unwritable"]);
    assert_eq!(codes(&inventory(&check.without_write_probe()).await), [""; 0]);
}

#[cfg(feature = "s3")]
pub(crate) async fn a_bucket_is_written_to_only_where_nothing_stays() {
    use stackkit_fixtures::BucketKind;

    let minio = stackkit_fixtures::minio_server().await.unwrap();
    let keys = crate::support::s3::Keys::of(&minio);
    for (kind, is_tried) in [(BucketKind::Plain, true), (BucketKind::Versioned, false), (BucketKind::Locking, false)] {
        let bucket = minio.bucket_of(kind).await.unwrap();
        let url = keys.url(&minio.endpoint(), &bucket);
        let repository = Repository::open_or_create(&url, options()).await.unwrap();
        let seen = inventory(&BackupFreshness::new(repository, "shop").with_max_verify_age(None)).await;
        let value = |name: &str| &seen.measurements.iter().find(|measured| measured.name == name).unwrap().value;
        let why = "the bucket keeps versions or locks objects: a probe would leave something behind";
        match value("repository_write_ms") {
            MeasurementValue::Value(_) => assert!(is_tried, "{kind:?}"),
            MeasurementValue::Unavailable(told) => assert_eq!((told.as_str(), is_tried), (why, false), "{kind:?}"),
        }
        let no_limit = MeasurementValue::Unavailable("a bucket has no limit that can be read".to_owned());
        assert_eq!(value("repository_available_bytes"), &no_limit, "{kind:?}");
        assert_eq!(codes(&seen), ["backup.none"], "{kind:?}");
    }
}

pub(crate) async fn a_directory_tells_whether_the_next_backup_fits() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let stack = stack_of([Shelf::new("shelf").with("x", text(9000, 1))]);
    let repository = Repository::open_or_create(&url, options().with_clock(stack.clock().clone())).await.unwrap();
    let check = BackupFreshness::new(repository.clone(), "shop").with_max_verify_age(None);
    let seen = inventory(&check).await;
    assert!(seen.value("repository_available_bytes").unwrap() > 0.0, "{seen:?}");
    assert_eq!(seen.value("repository_room_ratio"), None, "there is no backup to compare with");
    repository.backup(&stack).run().await.unwrap();
    let files = || -> usize {
        let probes = std::fs::read_dir(folder.path().join("probe"));
        probes.map_or(0, |entries| entries.count())
    };
    let seen = inventory(&check).await;
    assert_eq!((codes(&seen), files()), (vec![], 0));
    let (available, size) = (seen.value("repository_available_bytes"), seen.value("backup_size_bytes"));
    assert_eq!(seen.value("repository_room_ratio"), available.zip(size).map(|(available, size)| available / size));
    for (room, severity) in [(1.5, Severity::Warning), (0.5, Severity::Critical)] {
        let tight = Observation::new().gauge("repository_room_ratio", room);
        let found = Thresholds::new().verdict(&check.rules(), &tight).findings;
        assert_eq!((&*found[0].code, found[0].severity), ("backup.repository.space_low", severity));
    }
}

pub(crate) async fn evidence_from_the_future_vouches_for_nothing() {
    let site = Site::new().await;
    site.repository.backup(&site.stack).run().await.unwrap();
    let id = site.repository.latest("shop").await.unwrap();
    let ahead = Clock::fixed(site.stack.clock().now());
    ahead.advance(365 * 24 * HOUR);
    let wrong = Repository::with_store(site.store.clone(), options().with_clock(ahead)).await.unwrap();
    assert!(wrong.verify(&id, VerifyLevel::Content).await.unwrap().is_ok());
    let check = site.check();
    assert_eq!(codes(&inventory(&check).await), ["backup.unverified"]);
    site.repository.verify(&id, VerifyLevel::Content).await.unwrap();
    assert!(codes(&inventory(&check).await).is_empty());
    // What is found now is later than what was found then.
    let artifact = Path::from(format!("backups/shop/{id}/shelf/x.zst"));
    site.store.put(&artifact, "damaged".into()).await.unwrap();
    site.later(HOUR);
    site.repository.verify(&id, VerifyLevel::Stored).await.unwrap();
    assert!(codes(&inventory(&check).await).contains(&"backup.verify.failed"));
}
