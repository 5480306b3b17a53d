//! Retention and the collection of garbage, against real repositories.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::ToSpan;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_backup::manifest::Status;
use stackkit_backup::{
    BackupId, EntryState, GcOptions, PruneOutcome, PruneReport, Repository, Retention, SigningKey, VerifyLevel,
};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::{Clock, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::support::faulty::{Faulty, Plan, When};
use crate::support::gate::{Before, Gate};
use crate::support::history::{History, NOW, at, objects, time};
use crate::support::shelf::{Fault, Shelf};
use crate::support::{options, stack_of, text};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Five backups, a day apart, newest last.
const DAYS: [&str; 5] = [
    "2026-11-17T06:00:00Z",
    "2026-11-18T06:00:00Z",
    "2026-11-19T06:00:00Z",
    "2026-11-20T06:00:00Z",
    "2026-11-21T06:00:00Z",
];

async fn five(store: Arc<dyn ObjectStore>) -> (History, Vec<BackupId>) {
    let mut history = History::new(store).await;
    let mut ids = Vec::new();
    for day in DAYS {
        ids.push(history.add(day).await);
    }
    (history, ids)
}

async fn prune(repository: &Repository, policy: &Retention) -> Result<PruneReport> {
    repository.apply_retention(repository.plan_retention(policy).await?).await
}

async fn listed(repository: &Repository) -> Vec<BackupId> {
    let mut ids: Vec<_> = repository.list().await.unwrap().into_iter().map(|entry| entry.id).collect();
    ids.sort();
    ids
}

fn outcomes(report: &PruneReport) -> Vec<(BackupId, PruneOutcome)> {
    let mut outcomes: Vec<_> = report.backups.iter().map(|one| (one.backup, one.outcome.clone())).collect();
    outcomes.sort_by_key(|(id, _)| *id);
    outcomes
}

fn is_purged(outcome: &PruneOutcome) -> bool {
    matches!(outcome, PruneOutcome::Purged { freed_bytes, kept_bytes: 0 } if *freed_bytes > 1000)
}

pub(crate) async fn a_plan_is_announced_and_then_purged() {
    let (history, ids) = five(Arc::new(InMemory::new())).await;
    let repository = &history.repository;
    let policy = Retention::new().keep_last(3);
    let plan = repository.plan_retention(&policy).await.unwrap();
    assert!(plan.to_string().contains("no rule keeps it"), "{plan}");
    // A plan survives being stored.
    let plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    let report = repository.apply_retention(plan).await.unwrap();
    let purge_after = time("2026-11-22T11:00:00Z");
    let announced = PruneOutcome::Announced { purge_after };
    assert_eq!(outcomes(&report), [(ids[0], announced.clone()), (ids[1], announced)]);
    assert_eq!(listed(repository).await, ids[2..]);
    let all = repository.list_all().await.unwrap();
    let hidden = all.iter().filter(|entry| matches!(entry.state, EntryState::Announced(_))).map(|entry| entry.id);
    assert_eq!(hidden.collect::<BTreeSet<_>>(), ids[..2].iter().copied().collect());
    // Until the grace has passed nothing goes, however often it is applied.
    history.clock.advance(Duration::from_secs(22 * 3600));
    let report = prune(repository, &policy).await.unwrap();
    assert!(report.backups.iter().all(|one| one.outcome == PruneOutcome::Pending { purge_after }), "{report}");
    assert!(repository.verify(&ids[0], VerifyLevel::Stored).await.unwrap().is_ok());
    history.clock.advance(Duration::from_secs(3600));
    let plan = repository.plan_retention(&policy).await.unwrap();
    let report = repository.apply_retention(plan.clone()).await.unwrap();
    assert!(report.backups.len() == 2 && report.backups.iter().all(|one| is_purged(&one.outcome)), "{report}");
    assert_eq!(repository.list_all().await.unwrap().len(), 3);
    for id in &ids[..2] {
        assert!(objects(&*history.store, &format!("backups/shop/{id}")).await.is_empty());
        let record = history.store.get(&Path::from(format!("pruned/shop/{id}.json"))).await.unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record.bytes().await.unwrap()).unwrap();
        assert_eq!(record["schema"], "stackkit.tombstone/1");
        assert_eq!((record["stack"].as_str(), record["reasons"][0].as_str()), (Some("shop"), Some("no rule keeps it")));
    }
    // The same plan again finds nothing to do.
    let report = repository.apply_retention(plan).await.unwrap();
    assert!(report.backups.iter().all(|one| one.outcome == PruneOutcome::Gone), "{report}");
    for id in &ids[2..] {
        assert!(repository.verify(id, VerifyLevel::Content).await.unwrap().is_ok());
    }
}

pub(crate) async fn a_prune_on_a_disk_leaves_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(time(NOW));
    let url = directory.path().to_str().unwrap();
    let repository = Repository::open_or_create(url, at(&clock)).await.unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let mut history = History::of(store, repository, clock).await;
    let mut ids = Vec::new();
    for day in DAYS {
        ids.push(history.add(day).await);
    }
    // What a crashed upload left goes with its backup.
    let staged = directory.path().join(format!("backups/shop/{}/shelf/a.zst#1", ids[0]));
    std::fs::write(&staged, "half").unwrap();
    let policy = Retention::new().keep_daily(4).with_grace(Duration::ZERO);
    let report = prune(&history.repository, &policy).await.unwrap();
    assert!(matches!(&outcomes(&report)[..], [(id, outcome)] if *id == ids[0] && is_purged(outcome)), "{report}");
    assert!(!directory.path().join(format!("backups/shop/{}", ids[0])).exists());
    assert_eq!(listed(&history.repository).await, ids[1..]);
}

pub(crate) async fn without_grace_both_steps_are_one() {
    let (mut history, ids) = five(Arc::new(InMemory::new())).await;
    let other = history.add_with("2026-11-01T06:00:00Z", |manifest| manifest.stack = "blog".to_owned()).await;
    let partial = history.add_with("2026-11-18T07:00:00Z", |manifest| manifest.status = Status::Partial).await;
    let tagged = history.add_with("2026-11-02T06:00:00Z", |manifest| manifest.tags = vec!["release".to_owned()]).await;
    let future = history.add("2026-11-21T12:00:01Z").await;
    let policy = Retention::new().keep_within(2.days()).keep_tag("release").with_grace(Duration::ZERO);
    let report = prune(&history.repository, &policy).await.unwrap();
    let purged: BTreeSet<_> = report.backups.iter().map(|one| one.backup).collect();
    assert!(report.backups.iter().all(|one| is_purged(&one.outcome)), "{report}");
    assert_eq!(purged, [ids[0], ids[1], partial].into());
    let kept: BTreeSet<_> = listed(&history.repository).await.into_iter().collect();
    assert_eq!(kept, [ids[2], ids[3], ids[4], other, tagged, future].into());
    assert!(report.freed_bytes() > 3000, "{report}");
}

pub(crate) async fn an_announced_backup_can_be_had_back() {
    let (history, ids) = five(Arc::new(InMemory::new())).await;
    let repository = &history.repository;
    let policy = Retention::new().keep_last(3);
    prune(repository, &policy).await.unwrap();
    repository.undelete(&ids[0]).await.unwrap();
    assert_eq!(listed(repository).await, [ids[0], ids[2], ids[3], ids[4]]);
    assert_eq!(repository.undelete(&ids[0]).await.unwrap_err().kind(), ErrorKind::NotFound);
    history.clock.advance(DAY);
    let policy = policy.keep_id(ids[0]);
    let report = prune(repository, &policy).await.unwrap();
    assert!(matches!(&outcomes(&report)[..], [(id, outcome)] if *id == ids[1] && is_purged(outcome)), "{report}");
    assert!(repository.verify(&ids[0], VerifyLevel::Stored).await.unwrap().is_ok());
    assert_eq!(repository.undelete(&ids[1]).await.unwrap_err().kind(), ErrorKind::NotFound);
    // The rules are asked again before anything goes: a policy that wants it back is enough to keep it.
    prune(repository, &Retention::new().keep_last(3)).await.unwrap();
    history.clock.advance(DAY);
    let report = prune(repository, &Retention::new().keep_last(4)).await.unwrap();
    assert!(report.backups.is_empty(), "{report}");
    let plan = repository.plan_retention(&Retention::new().keep_last(4)).await.unwrap();
    assert!(plan.to_string().contains("last 4 of 4, announced"), "{plan}");
}

pub(crate) async fn what_changed_since_the_plan_is_left_alone() {
    let (mut history, ids) = five(Arc::new(InMemory::new())).await;
    let policy = Retention::new().keep_last(3).with_grace(Duration::ZERO);
    let plan = history.repository.plan_retention(&policy).await.unwrap();
    // Another backup appears, one is replaced, and those that made the other one superfluous go.
    let newer = history.add("2026-11-21T07:00:00Z").await;
    let manifest = format!("backups/shop/{}/manifest.json", ids[0]);
    let bytes = history.store.get(&Path::from(manifest.as_str())).await.unwrap().bytes().await.unwrap();
    let mut replaced = stackkit_backup::manifest::Manifest::from_json(&bytes).unwrap();
    replaced.tags.push("another".to_owned());
    history.put(&manifest, replaced.to_json().unwrap()).await;
    for id in [ids[4], ids[3]] {
        history.store.delete(&Path::from(format!("backups/shop/{id}/manifest.json"))).await.unwrap();
    }
    let report = history.repository.apply_retention(plan.clone()).await.unwrap();
    let reason = |id: BackupId| match outcomes(&report).into_iter().find(|(found, _)| *found == id) {
        Some((_, PruneOutcome::Skipped { reason })) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(ids[0]).contains("not the one that the plan was made from"), "{report}");
    assert!(reason(ids[1]).contains("it is kept by now: last 3 of 3"), "{report}");
    assert_eq!(listed(&history.repository).await, [ids[0], ids[1], ids[2], newer]);
    // A plan is of one repository, and of one mind.
    let (other, _) = five(Arc::new(InMemory::new())).await;
    assert_eq!(other.repository.apply_retention(plan.clone()).await.unwrap_err().kind(), ErrorKind::Config);
    let text = serde_json::to_string(&plan).unwrap().replace(r#""action":"keep""#, r#""action":"delete""#);
    let forged = serde_json::from_str(&text).unwrap();
    assert_eq!(history.repository.apply_retention(forged).await.unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(history.repository.plan_retention(&Retention::new()).await.unwrap_err().kind(), ErrorKind::Config);
}

pub(crate) async fn more_than_half_needs_force_when_it_is_applied() {
    let (history, ids) = five(Arc::new(InMemory::new())).await;
    let policy = Retention::new().keep_last(1).with_grace(Duration::ZERO);
    let plan = history.repository.plan_retention(&policy).await.unwrap();
    assert_eq!(plan.needs_force(), ["shop"]);
    let error = history.repository.apply_retention(plan.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert_eq!(listed(&history.repository).await, ids);
    history.repository.apply_retention(plan.force()).await.unwrap();
    assert_eq!(listed(&history.repository).await, ids[4..]);
    // A plan that was harmless when it was made is looked at again.
    let (history, ids) = five(Arc::new(InMemory::new())).await;
    let policy = Retention::new().keep_last(3).keep_daily_within(1.day()).with_grace(Duration::ZERO);
    let plan = history.repository.plan_retention(&policy).await.unwrap();
    assert!(plan.needs_force().is_empty());
    let gone = Retention::new().keep_last(1).keep_id(ids[0]).keep_id(ids[1]).with_grace(Duration::ZERO);
    prune(&history.repository, &gone).await.unwrap();
    let report = history.repository.apply_retention(plan).await.unwrap();
    assert!(report.backups.iter().all(|one| matches!(one.outcome, PruneOutcome::Skipped { .. })), "{report}");
    assert_eq!(listed(&history.repository).await, [ids[0], ids[1], ids[4]]);
}

pub(crate) async fn the_newest_verified_backup_stays() {
    let (history, ids) = five(Arc::new(InMemory::new())).await;
    for id in &ids[..2] {
        assert!(history.repository.verify(id, VerifyLevel::Content).await.unwrap().is_ok());
        history.clock.advance(Duration::from_secs(1));
    }
    let policy = Retention::new().keep_last(3).with_grace(Duration::ZERO);
    let plan = history.repository.plan_retention(&policy).await.unwrap();
    assert!(plan.to_string().contains("the newest verified backup"), "{plan}");
    history.repository.apply_retention(plan).await.unwrap();
    assert_eq!(listed(&history.repository).await, ids[1..]);
    // Once a newer one is verified, it may go.
    assert!(history.repository.verify(&ids[3], VerifyLevel::Content).await.unwrap().is_ok());
    prune(&history.repository, &policy).await.unwrap();
    assert_eq!(listed(&history.repository).await, ids[2..]);
}

pub(crate) async fn a_forged_tombstone_hides_and_deletes_nothing() {
    let store = Arc::new(InMemory::new());
    let (key, clock) = (SigningKey::generate().unwrap(), Clock::fixed(time(NOW)));
    let repository = Repository::with_store(store.clone(), at(&clock).sign_with(key)).await.unwrap();
    let stack = stack_of([Shelf::new("shelf").with("item", text(10, 1))]);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(*repository.backup(&stack).run().await.unwrap().id());
        stack.clock().advance(Duration::from_secs(1));
    }
    // A tombstone of this very repository, but without the signature.
    let policy = Retention::new().keep_last(2).with_grace(Duration::ZERO);
    prune(&repository, &policy.clone().with_grace(DAY)).await.unwrap();
    let real = Path::from(format!("backups/shop/{}/tombstone.json", ids[0]));
    let real_text = store.get(&real).await.unwrap().bytes().await.unwrap();
    let mut forged: serde_json::Value = serde_json::from_slice(&real_text).unwrap();
    forged["id"] = serde_json::json!(ids[2].to_string());
    let place = Path::from(format!("backups/shop/{}/tombstone.json", ids[2]));
    store.put(&place, serde_json::to_vec_pretty(&forged).unwrap().into()).await.unwrap();
    assert_eq!(listed(&repository).await, ids[1..]);
    assert_eq!(repository.latest("shop").await.unwrap(), ids[2]);
    // Neither is a real one of another backup believed.
    store.put(&place, real_text.into()).await.unwrap();
    assert_eq!(repository.latest("shop").await.unwrap(), ids[2]);
    let plan = repository.plan_retention(&policy).await.unwrap();
    assert!(plan.to_string().contains("its tombstone can't be trusted: it belongs to another backup"), "{plan}");
    clock.advance(2 * DAY);
    repository.apply_retention(plan).await.unwrap();
    assert_eq!(listed(&repository).await, ids[1..]);
    // Who does not know the key must not judge what takes a place.
    let stranger = Repository::with_store(store, options().with_clock(clock)).await.unwrap();
    let plan = stranger.plan_retention(&Retention::new().keep_last(1)).await.unwrap();
    assert_eq!(plan.deletions().count(), 0, "{plan}");
}

pub(crate) async fn a_stack_that_is_restored_is_not_purged() {
    // Also while a backup of it is restored into a stack of another name.
    for name in ["shop", "rehearsal"] {
        let (history, ids) = five(Arc::new(InMemory::new())).await;
        let repository = history.repository.clone();
        let policy = Retention::new().keep_last(3).with_grace(Duration::ZERO);
        let shelf = Shelf::new("shelf").with("a", "old");
        let stack = stackkit_core::Stack::builder(name).service(shelf.clone()).build().unwrap();
        let (begun, restoring) = oneshot::channel();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        shelf.on_restore(move || {
            begun.send(()).unwrap();
            wait.recv().unwrap();
        });
        let restore = tokio::spawn({
            let (repository, id) = (repository.clone(), ids[0]);
            async move {
                let plan = repository.plan_restore(&id, &stack, &RestoreOptions::new()).await.unwrap();
                repository.apply_restore(plan, &stack).await
            }
        });
        restoring.await.unwrap();
        let report = prune(&repository, &policy).await.unwrap();
        let told =
            |outcome: &PruneOutcome| matches!(outcome, PruneOutcome::Skipped { reason } if reason.contains("restored"));
        assert!(report.backups.len() == 2 && report.backups.iter().all(|one| told(&one.outcome)), "{report}");
        go_on.send(()).unwrap();
        restore.await.unwrap().unwrap();
        let report = prune(&repository, &policy).await.unwrap();
        assert!(report.backups.len() == 2 && report.backups.iter().all(|one| is_purged(&one.outcome)), "{report}");
    }
}

/// In a bucket nothing ends a lease with its process.
pub(crate) async fn what_a_killed_restore_held_keeps_no_backup_for_ever() {
    let (history, ids) = five(Arc::new(InMemory::new())).await;
    let text = |document: &serde_json::Value| format!("{}\n", serde_json::to_string_pretty(document).unwrap());
    let mut lease = serde_json::json!({
        "schema": "stackkit.lease/1", "epoch": 7, "nonce": "1", "state": "held", "ttl_ms": 300,
        "holder": { "host": "gone", "pid": 1, "purpose": "prune", "random": "2" },
    });
    lease["checksum"] = serde_json::json!({ "blake3": blake3::hash(text(&lease).as_bytes()).to_hex().to_string() });
    history.put("leases/restore-shop.json", text(&lease)).await;
    let policy = Retention::new().keep_last(3).with_grace(Duration::ZERO);
    let report = prune(&history.repository, &policy).await.unwrap();
    assert!(report.backups.len() == 2 && report.backups.iter().all(|one| is_purged(&one.outcome)), "{report}");
    assert_eq!(listed(&history.repository).await, ids[2..]);
}

pub(crate) async fn two_prunes_do_not_run_at_once() {
    let (history, ids) = five(Arc::new(InMemory::new())).await;
    let policy = Retention::new().keep_last(3).with_grace(Duration::ZERO);
    let at_once = || {
        let (repository, policy) = (history.repository.clone(), policy.clone());
        tokio::spawn(async move { prune(&repository, &policy).await.unwrap() })
    };
    let (one, two) = tokio::join!(at_once(), at_once());
    let purged = [one.unwrap(), two.unwrap()].iter().map(PruneReport::freed_bytes).filter(|bytes| *bytes > 0).count();
    assert_eq!(purged, 1);
    assert_eq!(listed(&history.repository).await, ids[2..]);
}

pub(crate) async fn the_chain_goes_on_past_what_was_pruned() {
    let mut history = History::new(Arc::new(InMemory::new())).await;
    let mut ids: Vec<BackupId> = Vec::new();
    for day in DAYS {
        let prev = match ids.last() {
            Some(last) => Some(history.previous("shop", last).await),
            None => None,
        };
        ids.push(history.add_with(day, |manifest| manifest.prev = prev).await);
    }
    let chain = history.repository.check_chain("shop", None).await.unwrap();
    assert!(chain.is_ok(), "{chain:?}");
    // The one that the kept ones name, and one before.
    prune(&history.repository, &Retention::new().keep_last(3).with_grace(Duration::ZERO)).await.unwrap();
    let chain = history.repository.check_chain("shop", None).await.unwrap();
    assert!(chain.is_ok(), "{chain:?}");
    let record = history.store.get(&Path::from(format!("pruned/shop/{}.json", ids[1]))).await.unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record.bytes().await.unwrap()).unwrap();
    assert_eq!(record["prev"]["id"], ids[0].to_string());
    history.store.delete(&Path::from(format!("pruned/shop/{}.json", ids[1]))).await.unwrap();
    assert!(!history.repository.check_chain("shop", None).await.unwrap().is_ok());
}

/// Fails every call of an operation once in every way, each time on a fork of `start`. After each failure `holds` is
/// asked, then the operation is tried again, and `done` is asked.
async fn every_call_fails(
    start: &InMemory,
    operation: impl AsyncFn(&Repository) -> Result<()>,
    holds: impl AsyncFn(&Repository, &str),
    done: impl AsyncFn(&Repository, &dyn ObjectStore, &str),
) {
    let clock = Clock::fixed(time(NOW));
    for when in When::ALL {
        for call in 0.. {
            assert!(call < 500, "the operation has no end of calls");
            let (inner, plan) = (Arc::new(start.fork()), Plan::new(call, when));
            let faulty = Arc::new(Faulty { inner: inner.clone(), plan: Arc::clone(&plan) });
            let opened = plan.run(Repository::with_store(faulty, at(&clock))).await;
            if let Some(Ok(repository)) = opened {
                let _ = plan.run(operation(&repository)).await;
            }
            let Some(failed) = plan.failed() else { break };
            let repository = Repository::with_store(inner.clone(), at(&clock)).await.unwrap();
            holds(&repository, &failed).await;
            if when.tears() && failed.contains("put") {
                // Half a lease or half a tombstone is for people to judge; no storage here leaves one.
                continue;
            }
            operation(&repository).await.unwrap_or_else(|e| panic!("the retry after {failed}: {e:?}"));
            done(&repository, &*inner, &failed).await;
        }
    }
}

pub(crate) async fn every_call_of_a_prune_fails() {
    let memory = Arc::new(InMemory::new());
    let (_, ids) = five(memory.clone()).await;
    let policy = Retention::new().keep_last(3).with_grace(Duration::ZERO);
    let operation = async |repository: &Repository| prune(repository, &policy).await.map(drop);
    // Whatever has a manifest is whole, and what is kept is there.
    let holds = async |repository: &Repository, failed: &str| {
        let entries = repository.list_all().await.unwrap();
        let with_manifest: BTreeSet<_> =
            entries.iter().filter(|entry| !matches!(entry.state, EntryState::Incomplete)).map(|e| e.id).collect();
        assert!(with_manifest.is_superset(&ids[2..].iter().copied().collect()), "{failed}");
        for id in with_manifest {
            let report = repository.verify(&id, VerifyLevel::Content).await.unwrap();
            assert!(report.is_ok(), "{failed}: {id}: {report}");
        }
    };
    let done = async |repository: &Repository, store: &dyn ObjectStore, failed: &str| {
        assert_eq!(listed(repository).await, ids[2..], "{failed}");
        for id in &ids[..2] {
            assert!(objects(store, &format!("backups/shop/{id}")).await.is_empty(), "{failed}: {id}");
            assert_eq!(objects(store, &format!("pruned/shop/{id}.json")).await.len(), 0, "a file is no folder");
            assert!(store.head(&Path::from(format!("pruned/shop/{id}.json"))).await.is_ok(), "{failed}: {id}");
        }
    };
    every_call_fails(&memory, operation, holds, done).await;
}

pub(crate) async fn gc_keeps_a_backup_that_runs() {
    let store = Arc::new(InMemory::new());
    let repository = Repository::with_store(store.clone(), options()).await.unwrap();
    let shelf = Shelf::new("shelf").with("a", "x").with("b", text(1 << 20, 1)).with_fault(Fault::RunHangsHalfway);
    let stack = stack_of([shelf.with_chunk_bytes(64)]);
    let running = tokio::spawn({
        let (repository, stack) = (repository.clone(), stack.clone());
        async move { repository.backup(&stack).run().await.map(drop) }
    });
    crate::support::until("an artifact is stored", || {
        futures_util::FutureExt::now_or_never(objects(&*store, "backups")).is_some_and(|all| !all.is_empty())
    })
    .await;
    // Its objects are young whatever its id says, or its id is whatever the clock of the storage says.
    let by_id = Clock::fixed(stack.clock().now().checked_add(47.hours()).unwrap());
    let by_objects = Clock::fixed(jiff::Timestamp::now().checked_add(47.hours()).unwrap());
    for clock in [by_id, by_objects] {
        let repository = Repository::with_store(store.clone(), at(&clock)).await.unwrap();
        let plan = repository.plan_gc(&GcOptions::new()).await.unwrap();
        assert_eq!((plan.items.len(), plan.kept.len()), (0, 1), "{plan}");
        let report = repository.apply_gc(plan).await.unwrap();
        assert_eq!((report.removed.len(), report.freed_bytes), (0, 0));
    }
    let error = repository.plan_gc(&GcOptions::new().with_min_age(Duration::from_secs(3599))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!objects(&*store, "backups").await.is_empty());
    running.abort();
    let _ = running.await;
    // Prune, undelete and gc can be left to a task.
    let (memory, _) = five(Arc::new(InMemory::new())).await;
    let gc = tokio::spawn(async move {
        let plan = memory.repository.plan_gc(&GcOptions::new()).await.unwrap();
        memory.repository.apply_gc(plan).await.unwrap();
        memory.repository.undelete(&"20260101T000000Z-00000001".parse().unwrap()).await.unwrap_err().kind()
    });
    assert_eq!(gc.await.unwrap(), ErrorKind::NotFound);
}

/// At every moment one of the two sees the other.
pub(crate) async fn a_backup_that_gc_takes_for_garbage_fails() {
    // Before the manifest, and between its listing and its last deletion.
    for gc_stops in [None, Some("/a.zst"), Some("/b.zst"), Some("/tombstone.json")] {
        let store = Arc::new(InMemory::new());
        Repository::with_store(store.clone(), options()).await.unwrap();
        let backup_gate = Gate::new(store.clone(), Before::Put("/manifest.json"));
        let repository = Repository::with_store(Arc::new(backup_gate.clone()), options()).await.unwrap();
        let stack = stack_of([Shelf::new("shelf").with("a", "x").with("b", "y")]);
        let running = tokio::spawn(async move { repository.backup(&stack).run().await.map(drop) });
        backup_gate.reached().await;
        // Everything is checked and only the manifest is missing; by the clock of the collection all is long ago.
        let clock = Clock::fixed(jiff::Timestamp::now().max(time(NOW)).checked_add(72.hours()).unwrap());
        let gc_gate = Gate::new(store.clone(), Before::Delete(gc_stops.unwrap_or("/nothing")));
        let gc = Repository::with_store(Arc::new(gc_gate.clone()), at(&clock)).await.unwrap();
        let plan = gc.plan_gc(&GcOptions::new()).await.unwrap();
        assert_eq!(plan.items.len(), 1, "{plan}");
        let bytes = plan.items[0].bytes;
        let collecting = tokio::spawn(async move { gc.apply_gc(plan).await });
        if gc_stops.is_some() {
            gc_gate.reached().await;
            backup_gate.open();
            assert_eq!(running.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled, "{gc_stops:?}");
            gc_gate.open();
            collecting.await.unwrap().unwrap();
        } else {
            let report = collecting.await.unwrap().unwrap();
            assert_eq!((report.removed.len(), report.freed_bytes), (1, bytes), "{report}");
            backup_gate.open();
            assert_eq!(running.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        }
        assert!(objects(&*store, "backups").await.is_empty(), "{gc_stops:?}");
    }
}

pub(crate) async fn gc_leaves_a_backup_that_ends_at_that_moment() {
    let store = Arc::new(InMemory::new());
    let mut history = History::new(store.clone()).await;
    let clock = Clock::fixed(jiff::Timestamp::now().max(time(NOW)).checked_add(72.hours()).unwrap());
    let gate = Gate::new(store.clone(), Before::Put("/tombstone.json"));
    let gc = Repository::with_store(Arc::new(gate.clone()), at(&clock)).await.unwrap();
    let id = history.add(DAYS[0]).await;
    let path = Path::from(format!("backups/shop/{id}/manifest.json"));
    let manifest = store.get(&path).await.unwrap().bytes().await.unwrap();
    store.delete(&path).await.unwrap();
    let plan = gc.plan_gc(&GcOptions::new()).await.unwrap();
    let collecting = tokio::spawn(async move { gc.apply_gc(plan).await });
    gate.reached().await;
    history.put(path.as_ref(), manifest).await;
    gate.open();
    let report = collecting.await.unwrap().unwrap();
    assert_eq!((report.removed.len(), report.left.len()), (0, 1), "{report}");
    assert_eq!(listed(&history.repository).await, [id]);
    assert!(history.repository.list().await.unwrap()[0].is_complete());
    assert!(history.repository.verify(&id, VerifyLevel::Content).await.unwrap().is_ok());
}

pub(crate) async fn gc_removes_what_crashes_left() {
    let store = Arc::new(InMemory::new());
    let mut history = History::new(store.clone()).await;
    let kept = history.add(DAYS[4]).await;
    let left = "backups/shop/20260101T000000Z-00000001";
    let signed = "backups/shop/20260101T000000Z-00000002";
    let stray = "backups/shop/20260101T000000Z-00000003";
    let future = "backups/shop/20990101T000000Z-00000004";
    let young = "backups/shop/20261121T060000Z-00000005";
    history.put(&format!("{left}/shelf/a.zst"), "half").await;
    history.put(&format!("{signed}/manifest.sig"), "s").await;
    history.put(&format!("{stray}/tombstone.json"), "{}").await;
    history.put(&format!("{future}/shelf/a.zst"), "x").await;
    history.put(&format!("{young}/shelf/a.zst"), "x").await;
    history.put("probe/0123456789abcdef", "x").await;
    history.put("backups/notes.txt", "somebody else's").await;
    // By the storage's own times everything was written just now.
    let plan = history.repository.plan_gc(&GcOptions::new()).await.unwrap();
    assert!(plan.items.is_empty(), "{plan}");
    let clock = Clock::fixed(jiff::Timestamp::now().max(time(NOW)).checked_add(72.hours()).unwrap());
    let repository = Repository::with_store(store.clone(), at(&clock)).await.unwrap();
    let newest = clock.now().checked_sub(1.hour()).unwrap().strftime("%Y%m%dT%H%M%SZ").to_string();
    let running = format!("backups/shop/{newest}-00000006");
    history.put(&format!("{running}/shelf/a.zst"), "x").await;
    let plan = repository.plan_gc(&GcOptions::new()).await.unwrap();
    let paths: Vec<_> = plan.items.iter().map(|item| item.path.as_str()).collect();
    assert_eq!(paths, [left, signed, stray, young, "probe/0123456789abcdef"], "{plan}");
    let mut too_young = plan.kept.clone();
    too_young.sort();
    assert_eq!(too_young, [running.as_str(), future]);
    // One is finished since the plan.
    let manifest = store.get(&Path::from(format!("backups/shop/{kept}/manifest.json"))).await.unwrap();
    history.put(&format!("{young}/manifest.json"), manifest.bytes().await.unwrap()).await;
    let report = repository.apply_gc(plan).await.unwrap();
    assert_eq!((report.removed.len(), report.left.len()), (4, 1), "{report}");
    assert_eq!(report.freed_bytes, 4 + 1 + 2 + 1);
    for gone in [left, signed, stray, "probe"] {
        assert!(objects(&*store, gone).await.is_empty(), "{gone}");
    }
    for there in [young, future, running.as_str()] {
        assert!(!objects(&*store, there).await.is_empty(), "{there}");
    }
    assert!(store.head(&Path::from("backups/notes.txt")).await.is_ok());
    assert!(repository.verify(&kept, VerifyLevel::Content).await.unwrap().is_ok());
    // A plan that was changed makes no garbage of what runs.
    let mut plan = repository.plan_gc(&GcOptions::new()).await.unwrap();
    plan.older_than = clock.now();
    assert_eq!(repository.apply_gc(plan).await.unwrap_err().kind(), ErrorKind::Config);
}

/// In a directory, uploads that never ended are files of their own.
pub(crate) async fn gc_removes_unfinished_uploads() {
    let directory = tempfile::tempdir().unwrap();
    let url = directory.path().to_str().unwrap();
    let repository = Repository::open_or_create(url, options()).await.unwrap();
    let stack = stack_of([Shelf::new("shelf").with("a", text(100, 1))]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let folder = directory.path().join("backups/shop").join(backup.id().to_string()).join("shelf");
    std::fs::write(folder.join("b.zst#7"), "half").unwrap();
    let removed = |report: stackkit_backup::GcReport| (report.removed.len(), report.uploads);
    // It was written just now.
    let plan = repository.plan_gc(&GcOptions::new()).await.unwrap();
    assert_eq!(removed(repository.apply_gc(plan).await.unwrap()), (0, 0));
    let clock = Clock::fixed(jiff::Timestamp::now().checked_add(49.hours()).unwrap());
    let later = Repository::open(url, at(&clock)).await.unwrap();
    let plan = later.plan_gc(&GcOptions::new()).await.unwrap();
    assert_eq!(removed(later.apply_gc(plan).await.unwrap()), (0, 1));
    assert!(!folder.join("b.zst#7").exists() && folder.join("a.zst").exists());
    assert!(later.verify(backup.id(), VerifyLevel::Content).await.unwrap().is_ok());
}

pub(crate) async fn every_call_of_gc_fails() {
    let memory = Arc::new(InMemory::new());
    let (history, ids) = five(memory.clone()).await;
    // A purge that ended after the manifest went: both the next prune and gc can finish it.
    prune(&history.repository, &Retention::new().keep_last(4)).await.unwrap();
    let folder = format!("backups/shop/{}", ids[0]);
    let tombstone = memory.get(&Path::from(format!("{folder}/tombstone.json"))).await.unwrap().bytes().await.unwrap();
    history.put(&format!("pruned/shop/{}.json", ids[0]), tombstone).await;
    memory.delete(&Path::from(format!("{folder}/manifest.json"))).await.unwrap();
    let finished = Arc::new(memory.fork());
    let repository = Repository::with_store(finished.clone(), at(&history.clock)).await.unwrap();
    let report = prune(&repository, &Retention::new().keep_last(4)).await.unwrap();
    assert!(
        matches!(&outcomes(&report)[..], [(id, outcome)] if *id == ids[0] && matches!(outcome, PruneOutcome::Purged { .. })),
        "{report}"
    );
    assert!(objects(&*finished, &folder).await.is_empty());
    let operation = async |repository: &Repository| {
        let plan = repository.plan_gc(&GcOptions::new()).await?;
        repository.apply_gc(plan).await.map(drop)
    };
    let holds = async |repository: &Repository, failed: &str| {
        for id in &ids[1..] {
            assert!(repository.verify(id, VerifyLevel::Content).await.unwrap().is_ok(), "{failed}");
        }
    };
    let done = async |repository: &Repository, store: &dyn ObjectStore, failed: &str| {
        assert_eq!(listed(repository).await, ids[1..], "{failed}");
        assert!(objects(store, &folder).await.is_empty(), "{failed}");
    };
    every_call_fails(&memory, operation, holds, done).await;
}

/// The target: a plan over ten thousand in a second and 100 MiB, in an optimised build.
#[allow(clippy::print_stdout, reason = "the figures are what the run in an optimised build is for")]
pub(crate) async fn many_backups_are_planned_in_little_time_and_memory() {
    let backups = if cfg!(debug_assertions) { 500 } else { 10_000 };
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(time(NOW));
    let repository = Repository::open_or_create(directory.path().to_str().unwrap(), at(&clock)).await.unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let mut history = History::of(store, repository, clock).await;
    let newest = time(NOW).as_second();
    for number in 1..=backups {
        let at = jiff::Timestamp::from_second(newest - number * 3600).unwrap().to_string();
        history.add(&at).await;
    }
    let policy = Retention::new().keep_last(3).keep_hourly(24).keep_daily(30).keep_weekly(52).keep_monthly(12);
    let (before, begin) = (peak_memory(), tokio::time::Instant::now());
    let plan = history.repository.plan_retention(&policy).await.unwrap();
    println!(
        "{backups} backups: read and planned in {:?}, {} to delete, peak memory {before} before, {} after",
        begin.elapsed(),
        plan.deletions().count(),
        peak_memory()
    );
    assert_eq!(plan.decisions.len(), usize::try_from(backups).unwrap());
    assert_eq!(plan.needs_force(), ["shop"]);
}

/// The most memory that the process had, as Linux tells it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |peak| peak.trim().to_owned())
}
