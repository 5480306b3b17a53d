//! Restores hold a lease: one at a time into a stack.

use std::path::Path as FilePath;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use stackkit_backup::{BackupId, Repository, StackRestoreReport};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::{Result, Stack};
use tokio::sync::oneshot;

use crate::support::read_only::ReadOnly;
use crate::support::shelf::Shelf;
use crate::support::{local, options, stack_of, text};

async fn restore(repository: &Repository, id: &BackupId, stack: &Stack) -> Result<StackRestoreReport> {
    let plan = repository.plan_restore(id, stack, &RestoreOptions::new()).await?;
    repository.apply_restore(plan, stack).await
}

/// Whether somebody holds the lease of the stack `shop`, as the repository's own objects tell.
async fn is_held(store: &InMemory) -> bool {
    match store.get(&"leases/restore-shop.json".into()).await {
        Err(object_store::Error::NotFound { .. }) => false,
        found => {
            let text: serde_json::Value = serde_json::from_slice(&found.unwrap().bytes().await.unwrap()).unwrap();
            assert_eq!(text["schema"], "stackkit.lease/1");
            assert_eq!(text["holder"]["purpose"], "restore");
            text["state"] == "held"
        }
    }
}

pub(crate) async fn a_restore_holds_the_lease_of_its_stack() {
    let store = Arc::new(InMemory::new());
    let repository = Repository::with_store(store.clone(), options()).await.unwrap();
    let shelf = Shelf::new("shelf").with("x", text(100, 1));
    let stack = stack_of([shelf.clone()]);
    let backup = repository.backup(&stack).run().await.unwrap();
    assert!(!is_held(&store).await, "a backup takes no lease");
    let (sender, seen) = oneshot::channel();
    let inner = Arc::clone(&store);
    shelf.on_restore(move || {
        let _ = sender.send(futures_util::FutureExt::now_or_never(is_held(&inner)));
    });
    let report = restore(&repository, backup.id(), &stack).await.unwrap();
    assert_eq!(seen.await.unwrap(), Some(true));
    assert!(report.warnings.is_empty());
    assert!(!is_held(&store).await);
    // It is free after a failure too.
    shelf.on_restore({
        let shelf = shelf.clone();
        move || drop(shelf.with("x", "changed meanwhile"))
    });
    restore(&repository, backup.id(), &stack).await.unwrap_err();
    assert!(!is_held(&store).await);
    restore(&repository, backup.id(), &stack).await.unwrap();
}

pub(crate) async fn a_repository_that_can_only_be_read_can_be_restored_from() {
    let store = Arc::new(InMemory::new());
    let shelf = Shelf::new("shelf").with("x", text(100, 1));
    let stack = stack_of([shelf.clone()]);
    let repository = Repository::with_store(store.clone(), options()).await.unwrap();
    let backup = repository.backup(&stack).run().await.unwrap();
    let before = shelf.items();
    shelf.wipe();
    let repository = Repository::with_store(Arc::new(ReadOnly(store)), options()).await.unwrap();
    let report = restore(&repository, backup.id(), &stack).await.unwrap();
    assert_eq!(shelf.items(), before);
    assert!(matches!(&report.warnings[..], [warning] if warning.contains("only be read")), "{report}");
    assert!(report.to_string().contains("warning: the repository can only be read"), "{report}");
}

/// What a cancelled restore held is free for the next one, here and in a directory.
pub(crate) async fn a_cancelled_restore_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Repository::with_store(Arc::new(InMemory::new()), options()).await.unwrap();
    for repository in [memory, local(FilePath::new(directory.path())).await] {
        let shelf = Shelf::new("shelf").with("x", text(100, 1));
        let stack = stack_of([shelf.clone()]);
        let backup = repository.backup(&stack).run().await.unwrap();
        let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
        let (started, cancel) = oneshot::channel::<()>();
        shelf.on_restore(move || drop(started));
        tokio::select! {
            biased;
            _ = cancel => {}
            done = repository.apply_restore(plan, &stack) => drop(done.unwrap()),
        }
        let again = tokio::time::timeout(std::time::Duration::from_secs(10), restore(&repository, backup.id(), &stack));
        again.await.unwrap().unwrap();
    }
}

/// Compare-and-swap as a bucket has it.
#[cfg(feature = "s3")]
pub(crate) async fn each_restore_from_a_bucket_takes_the_lease_anew() {
    use crate::support::s3::{BUCKET, FileServer};
    let server = FileServer::start().await;
    let keys = server.keys();
    let repository = Repository::open_or_create(&keys.url(server.endpoint(), BUCKET), options()).await.unwrap();
    let shelf = Shelf::new("shelf").with("x", text(100, 1));
    let stack = stack_of([shelf]);
    let backup = repository.backup(&stack).run().await.unwrap();
    // One after the other: this server looks and then writes, so two at once could both win.
    for _ in 0..3 {
        assert!(restore(&repository, backup.id(), &stack).await.unwrap().warnings.is_empty());
    }
    let lease = std::fs::read(server.repository().join("leases/restore-shop.json")).unwrap();
    let lease: serde_json::Value = serde_json::from_slice(&lease).unwrap();
    assert_eq!((lease["epoch"].as_u64(), &lease["state"]), (Some(3), &"released".into()));
}
