//! Storages that fail, and what is said of it.

use std::sync::Arc;

use object_store::memory::InMemory;
use stackkit_backup::{BackupEntry, EntryState, Repository};
use stackkit_core::ErrorKind;

use crate::support::faulty::{Faulty, PUT_PART, Plan, When};
use crate::support::shelf::{Fault, Shelf};
use crate::support::{FRAME, noise, options, stack_of};

pub(crate) async fn a_provider_cannot_ignore_a_write_error() {
    let shelf =
        Shelf::new("shelf").with("item", noise(32 * FRAME, 1)).with("other", "x").with_fault(Fault::IgnoresWriteErrors);
    let stack = stack_of([shelf]);
    for part in 0..5 {
        let plan = Plan::only(PUT_PART, part, When::Before);
        let store = Arc::new(Faulty { inner: Arc::new(InMemory::new()), plan });
        let repository = Repository::with_store(store, options()).await.unwrap();
        let error = repository.backup(&stack).run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected, "part {part}: {error}");
        assert!(error.to_string().contains("could not be stored"), "part {part}: {error}");
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
