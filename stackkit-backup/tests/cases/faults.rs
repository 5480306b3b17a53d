//! A storage that fails at call n, for every n.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use stackkit_backup::{BackupEntry, EntryState, Repository, VerifyLevel};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::{ErrorKind, Result, Stack};

use crate::support::faulty::{Faulty, Plan, When};
use crate::support::shelf::{Fault, Shelf};
use crate::support::{FRAME, options, stack_of, text};

fn stack() -> Stack {
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(6 * FRAME).collect();
    stack_of([Shelf::new("big").with("noise", noise), Shelf::new("small").with("a", text(10, 1)).with("b", "")])
}

async fn back_up(store: Arc<dyn ObjectStore>, stack: &Stack) -> Result<()> {
    let repository = Repository::with_store(store, options()).await?;
    repository.backup(stack).run().await.map(drop)
}

/// Whatever is listed can be restored, and a retry completes.
async fn every_call_fails_once(when: When, store: impl Fn() -> Arc<dyn ObjectStore>) {
    let stack = stack();
    for call in 0.. {
        assert!(call < 1000, "a backup has no end of calls");
        let (inner, plan) = (store(), Plan::new(call, when));
        let faulty = Arc::new(Faulty { inner: Arc::clone(&inner), plan: Arc::clone(&plan) });
        let first = back_up(faulty.clone(), &stack).await;
        let calls = plan.calls();
        plan.heal();
        back_up(faulty, &stack).await.unwrap_or_else(|e| panic!("call {call}: the retry failed: {e:?}"));
        let repository = Repository::with_store(inner, options()).await.unwrap();
        let listed = repository.list().await.unwrap();
        assert!(listed.len() == 2 || first.is_err() && listed.len() == 1, "call {call}: {} are listed", listed.len());
        for entry in &listed {
            let report = repository.verify(&entry.id, VerifyLevel::Content).await.unwrap();
            assert!(report.is_ok(), "call {call}: {report}");
            let plan = repository.plan_restore(&entry.id, &stack, &RestoreOptions::new()).await.unwrap();
            repository.apply_restore(plan, &stack).await.unwrap();
        }
        // The first backup ended before the call that was to fail: every call was tried.
        if calls <= call {
            return;
        }
    }
}

pub(crate) async fn every_call_fails_before_its_effect() {
    every_call_fails_once(When::Before, || Arc::new(InMemory::new())).await;
}

pub(crate) async fn every_call_fails_after_its_effect() {
    every_call_fails_once(When::After, || Arc::new(InMemory::new())).await;
}

pub(crate) async fn every_call_fails_on_a_disk() {
    let root = tempfile::tempdir().unwrap();
    for when in [When::Before, When::After] {
        every_call_fails_once(when, || {
            let directory = tempfile::tempdir_in(root.path()).unwrap().keep();
            Arc::new(LocalFileSystem::new_with_prefix(directory).unwrap())
        })
        .await;
    }
}

pub(crate) async fn a_provider_cannot_ignore_a_write_error() {
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(32 * FRAME).collect();
    let shelf = Shelf::new("shelf").with("item", noise).with("other", "x").with_fault(Fault::IgnoresWriteErrors);
    let stack = stack_of([shelf]);
    // Marker, instructions twice, marker again, the upload: the sixth call is the first part.
    for call in 5..10 {
        let plan = Plan::new(call, When::Before);
        let store = Arc::new(Faulty { inner: Arc::new(InMemory::new()), plan });
        let repository = Repository::with_store(store, options()).await.unwrap();
        let error = repository.backup(&stack).run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected, "call {call}: {error}");
        assert!(error.to_string().contains("could not be stored"), "call {call}: {error}");
        assert!(repository.list().await.unwrap().is_empty());
    }
}

pub(crate) async fn a_manifest_that_cannot_be_read_is_listed_as_damaged() {
    let plan = Plan::new(usize::MAX, When::Before);
    let store = Arc::new(Faulty { inner: Arc::new(InMemory::new()), plan: Arc::clone(&plan) });
    let repository = Repository::with_store(store, options()).await.unwrap();
    let stack = stack_of([Shelf::new("shelf").with("item", "x")]);
    for _ in 0..2 {
        repository.backup(&stack).run().await.unwrap();
        stack.clock().advance(std::time::Duration::from_secs(1));
    }
    // Stacks, backups, then the manifests.
    plan.fail_at(plan.calls() + 2);
    let listed = repository.list().await.unwrap();
    let damaged = listed.iter().filter(|entry| matches!(entry.state, EntryState::Damaged(_))).count();
    assert_eq!((listed.len(), damaged), (2, 1));
    // A storage that can't say which backups there are is another matter.
    plan.fail_at(plan.calls());
    assert_eq!(repository.list().await.unwrap_err().kind(), ErrorKind::Io);
}

pub(crate) async fn a_storage_that_loses_bytes_is_found_before_the_commit() {
    let plan = Plan::new(usize::MAX, When::Before);
    let store = Arc::new(Faulty { inner: Arc::new(InMemory::new()), plan: Arc::clone(&plan) });
    let repository = Repository::with_store(store, options()).await.unwrap();
    plan.lose_bytes(".zst");
    let error = repository.backup(&stack_of([Shelf::new("shelf").with("item", "x")])).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    assert!(repository.list_all().await.unwrap().is_empty());
    // What the storage holds as the manifest can't be trusted, nor can its removal: it stays, as damaged.
    plan.lose_bytes("manifest.json");
    let error = repository.backup(&stack_of([Shelf::new("shelf").with("item", "x")])).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    let listed = repository.list_all().await.unwrap();
    assert!(matches!(listed[..], [BackupEntry { state: EntryState::Damaged(_), .. }]), "{listed:?}");
}
