//! Every call of every operation fails in every way. Afterwards the repository keeps its promises, and a retry completes.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use stackkit_backup::{BackupId, Repository, RepositoryOptions};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::{Error, ErrorKind, Result, Stack};

use crate::support::faulty::{Faulty, Plan, Puts, When};
use crate::support::shelf::Shelf;
use crate::support::{FRAME, noise, options, promise, sealed, stack_of, text};

/// More calls than any operation here makes.
const CALLS_MAX: usize = 1000;

/// An artifact of two parts, a small one and an empty one.
fn stack() -> Stack {
    stack_of([
        Shelf::new("big").with("noise", noise(6 * FRAME, 1)),
        Shelf::new("small").with("a", text(10, 1)).with("b", ""),
    ])
}

/// Small artifacts, for operations that need several backups.
fn small_stack() -> (Shelf, Stack) {
    let shelf = Shelf::new("shelf").with("a", text(100, 1)).with("b", "");
    (shelf.clone(), stack_of([shelf]))
}

/// What every run begins with.
struct Start<'a> {
    stack: &'a Stack,
    options: RepositoryOptions,
    puts: Puts,
    store: &'a dyn Fn() -> Arc<dyn ObjectStore>,
    /// The backups that no operation may harm.
    needed: &'a [BackupId],
    /// Looks at what else must be true.
    check: &'a dyn Fn(&str),
}

impl Start<'_> {
    /// Fails each call of `operation` once in the way of `when`. Returns how many there were.
    async fn every_call(&self, when: When, operation: impl AsyncFn(&Repository) -> Result<()>) -> usize {
        for call in 0..CALLS_MAX {
            let (inner, plan) = ((self.store)(), Plan::with_puts(call, when, self.puts));
            let faulty = Arc::new(Faulty { inner: Arc::clone(&inner), plan: Arc::clone(&plan) });
            let first = plan.run(self.once(faulty, &operation)).await;
            let Some(failed) = plan.failed() else {
                // The operation ended before the call that was to fail: every call was tried.
                first.unwrap().unwrap_or_else(|e| panic!("nothing failed but the operation: {e:?}"));
                return call;
            };
            self.promises(&inner, &failed).await;
            let retry = self.once(Arc::clone(&inner), &operation).await;
            retry.unwrap_or_else(|e| panic!("the retry after {failed}: {e:?}"));
            self.promises(&inner, &failed).await;
        }
        panic!("the operation has no end of calls");
    }

    async fn every_call_in_every_way(&self, calls_min: usize, operation: impl AsyncFn(&Repository) -> Result<()>) {
        for when in When::ALL {
            let calls = self.every_call(when, &operation).await;
            assert!(calls >= calls_min, "{when:?}: {calls}");
        }
    }

    async fn promises(&self, store: &Arc<dyn ObjectStore>, context: &str) {
        (self.check)(context);
        let repository = Repository::with_store(Arc::clone(store), self.options.clone()).await.unwrap();
        promise::holds(&repository, self.stack, self.needed, context).await;
    }

    async fn once(
        &self,
        store: Arc<dyn ObjectStore>,
        operation: &impl AsyncFn(&Repository) -> Result<()>,
    ) -> Result<()> {
        operation(&Repository::with_store(store, self.options.clone()).await?).await
    }
}

/// Every call of a backup, the first into a new place: there the repository is made too.
pub(crate) async fn a_first_backup() {
    let stack = stack();
    let store = || -> Arc<dyn ObjectStore> { Arc::new(InMemory::new()) };
    let start =
        Start { stack: &stack, options: sealed(), puts: Puts::Torn, store: &store, needed: &[], check: &|_| {} };
    // A torn marker is no repository; stores that can tear a small object are another case.
    for when in When::ALL.into_iter().filter(|when| !when.tears()) {
        let calls = start.every_call(when, async |repository| back_up(repository, &stack).await).await;
        assert!(calls > 15, "{when:?}: {calls}");
    }
}

/// Every call of a backup beside another.
pub(crate) async fn a_second_backup() {
    let stack = stack();
    let (memory, kept) = with_backups(&stack, 1).await;
    let store = || -> Arc<dyn ObjectStore> { Arc::new(memory.fork()) };
    let start =
        Start { stack: &stack, options: sealed(), puts: Puts::Torn, store: &store, needed: &kept, check: &|_| {} };
    start.every_call_in_every_way(15, async |repository| back_up(repository, &stack).await).await;
}

/// Every call of a backup onto a disk.
pub(crate) async fn a_backup_on_a_disk() {
    let (stack, root) = (stack(), tempfile::tempdir().unwrap());
    let store = || -> Arc<dyn ObjectStore> {
        let directory = tempfile::tempdir_in(root.path()).unwrap().keep();
        Arc::new(LocalFileSystem::new_with_prefix(directory).unwrap())
    };
    let start =
        Start { stack: &stack, options: options(), puts: Puts::Torn, store: &store, needed: &[], check: &|_| {} };
    for when in When::ALL.into_iter().filter(|when| !when.tears()) {
        start.every_call(when, async |repository| back_up(repository, &stack).await).await;
    }
}

/// Every call of a restore: the store holds what it held or what was backed up, and nothing between.
pub(crate) async fn a_restore() {
    let (shelf, stack) = small_stack();
    let backed_up = shelf.items();
    let (memory, kept) = with_backups(&stack, 1).await;
    let other = Shelf::new("shelf").with("a", "other").items();
    let store = || -> Arc<dyn ObjectStore> {
        *shelf.content.items.lock().unwrap() = other.clone();
        Arc::new(memory.fork())
    };
    let check = |context: &str| {
        let items = shelf.items();
        assert!(items == other || items == backed_up, "{context}: the store holds {items:?}");
    };
    let start =
        Start { stack: &stack, options: sealed(), puts: Puts::Torn, store: &store, needed: &kept, check: &check };
    let restore = async |repository: &Repository| {
        let plan = repository.plan_restore(&kept[0], &stack, &RestoreOptions::new()).await?;
        repository.apply_restore(plan, &stack).await?;
        assert_eq!(shelf.items(), backed_up);
        Ok(())
    };
    start.every_call_in_every_way(10, restore).await;
}

/// Every call of a copy at its target. What a copy writes has the names that it has at its source, so a small object that
/// was torn would have to be removed by hand; no storage that has a URL here tears one.
pub(crate) async fn a_copy_at_its_target() {
    let (_, stack) = small_stack();
    let (from, kept) = with_backups(&stack, 2).await;
    let source = Repository::with_store(from, sealed()).await.unwrap();
    let (target, own) = with_backups(&stack, 1).await;
    let store = || -> Arc<dyn ObjectStore> { Arc::new(target.fork()) };
    let start =
        Start { stack: &stack, options: sealed(), puts: Puts::Whole, store: &store, needed: &own, check: &|_| {} };
    let copy = async |target: &Repository| {
        copy(&source, target).await?;
        let listed = target.list().await?;
        assert!(kept.iter().chain(&own).all(|id| listed.iter().any(|entry| entry.id == *id)), "{listed:?}");
        Ok(())
    };
    start.every_call_in_every_way(20, copy).await;
}

/// Every call of a copy at its source.
pub(crate) async fn a_copy_at_its_source() {
    let (_, stack) = small_stack();
    let (from, kept) = with_backups(&stack, 2).await;
    let target = RefCell::new(Arc::new(InMemory::new()));
    let store = || -> Arc<dyn ObjectStore> {
        *target.borrow_mut() = Arc::new(InMemory::new());
        Arc::new(from.fork())
    };
    let start =
        Start { stack: &stack, options: sealed(), puts: Puts::Torn, store: &store, needed: &kept, check: &|_| {} };
    let copy = async |source: &Repository| {
        let store = Arc::clone(&target.borrow());
        let target = Repository::with_store(store, sealed()).await?;
        let copied = copy(source, &target).await;
        promise::holds(&target, &stack, &[], "at the target").await;
        copied
    };
    start.every_call_in_every_way(8, copy).await;
}

async fn copy(source: &Repository, target: &Repository) -> Result<()> {
    let report = source.copy_to(target).run().await?;
    match report.is_ok() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Io, report.to_string())),
    }
}

/// A repository with some backups, a minute after each other, oldest first.
async fn with_backups(stack: &Stack, count: usize) -> (Arc<InMemory>, Vec<BackupId>) {
    let memory = Arc::new(InMemory::new());
    let repository = Repository::with_store(memory.clone(), sealed()).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(*repository.backup(stack).run().await.unwrap().id());
        stack.clock().advance(Duration::from_secs(60));
    }
    (memory, ids)
}

async fn back_up(repository: &Repository, stack: &Stack) -> Result<()> {
    repository.backup(stack).run().await.map(drop)
}
