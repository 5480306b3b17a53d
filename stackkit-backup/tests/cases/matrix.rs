//! Every call of every operation fails in every way. Afterwards the repository keeps its promises, and a retry completes.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use stackkit_backup::{BackupId, GcOptions, Repository, RepositoryOptions, Retention};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::{Clock, Error, ErrorKind, Result, Stack};

use crate::support::faulty::{Faulty, PUT_PART, Plan, Puts, When};
use crate::support::shelf::Shelf;
use crate::support::{FRAME, noise, options, promise, sealed, signed, stack_of, text};

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
    /// Fails each call of `operation` once in the way of `when`, and asks `done` after the retry. Returns how many calls
    /// there were.
    async fn every_call(
        &self,
        when: When,
        operation: impl AsyncFn(&Repository) -> Result<()>,
        done: impl AsyncFn(&Repository),
    ) -> usize {
        for call in 0..CALLS_MAX {
            let (inner, plan) = ((self.store)(), Plan::with_puts(call, when, self.puts));
            let faulty = Arc::new(Faulty { inner: Arc::clone(&inner), plan: Arc::clone(&plan) });
            let first = plan.run(self.once(faulty, &operation)).await;
            let Some(failed) = plan.failed() else {
                // The operation ended before the call that was to fail: every call was tried.
                first.unwrap().unwrap_or_else(|e| panic!("nothing failed but the operation: {e:?}"));
                return call;
            };
            (self.check)(&failed);
            promise::verifies(&self.healthy(&inner).await, self.needed, &failed).await;
            let retry = self.once(Arc::clone(&inner), &operation).await;
            retry.unwrap_or_else(|e| panic!("the retry after {failed}: {e:?}"));
            (self.check)(&failed);
            let repository = self.healthy(&inner).await;
            promise::holds(&repository, self.stack, self.needed, &failed).await;
            done(&repository).await;
        }
        panic!("the operation has no end of calls");
    }

    async fn every_call_in_every_way(
        &self,
        calls_min: usize,
        operation: impl AsyncFn(&Repository) -> Result<()>,
        done: impl AsyncFn(&Repository),
    ) {
        for when in When::ALL {
            let calls = self.every_call(when, &operation, &done).await;
            assert!(calls >= calls_min, "{when:?}: {calls}");
        }
    }

    async fn healthy(&self, store: &Arc<dyn ObjectStore>) -> Repository {
        Repository::with_store(Arc::clone(store), self.options.clone()).await.unwrap()
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
        let calls = start.every_call(when, async |repository| back_up(repository, &stack).await, nothing).await;
        assert!(calls > 15, "{when:?}: {calls}");
    }
}

/// Every call of a backup beside another.
pub(crate) async fn a_second_backup() {
    let stack = stack();
    let (memory, kept) = with_backups(&stack, sealed(), 1).await;
    let store = || -> Arc<dyn ObjectStore> { Arc::new(memory.fork()) };
    let start =
        Start { stack: &stack, options: sealed(), puts: Puts::Torn, store: &store, needed: &kept, check: &|_| {} };
    start.every_call_in_every_way(15, async |repository| back_up(repository, &stack).await, nothing).await;
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
        start.every_call(when, async |repository| back_up(repository, &stack).await, nothing).await;
    }
}

/// A storage that never answers ends a backup at its deadline, whatever it does not answer; nothing is listed then.
pub(crate) async fn a_hang_during_a_dump_ends_at_its_deadline() {
    let (_, stack) = small_stack();
    let mut hung = 0;
    for (name, when) in DUMP_CALLS.into_iter().flat_map(|name| [(name, When::HangBefore), (name, When::HangAfter)]) {
        for call in 0..2 {
            let (inner, plan) = (Arc::new(InMemory::new()), Plan::only(name, call, when));
            let faulty = Arc::new(Faulty { inner: inner.clone(), plan: Arc::clone(&plan) });
            let repository = Repository::with_store(faulty, sealed()).await.unwrap();
            let run = repository.backup(&stack).with_deadline(DEADLINE).run();
            let ended = tokio::time::timeout(PATIENCE, run).await;
            let failed = plan.failed().unwrap();
            let error = ended.unwrap_or_else(|_| panic!("{failed}: it hangs")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{failed}: {error}");
            let healthy = Repository::with_store(inner, sealed()).await.unwrap();
            assert!(healthy.list().await.unwrap().is_empty(), "{failed}");
            back_up(&healthy, &stack).await.unwrap();
            hung += 1;
        }
    }
    assert_eq!(hung, 12);
}

/// The calls of a dump.
const DUMP_CALLS: [&str; 3] = ["create an upload", PUT_PART, "complete"];

/// How long all dumps of a test may take.
const DEADLINE: Duration = Duration::from_millis(200);

/// How long a backup may take to end after its deadline.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every call of a restore: the store holds what it held or what was backed up, and nothing between.
pub(crate) async fn a_restore() {
    let (shelf, stack) = small_stack();
    let backed_up = shelf.items();
    let (memory, kept) = with_backups(&stack, sealed(), 1).await;
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
        Ok(())
    };
    let done = async |_: &Repository| assert_eq!(shelf.items(), backed_up);
    start.every_call_in_every_way(10, restore, done).await;
}

/// Every call of a copy at its target. What a copy writes has the names that it has at its source, so a small object that
/// was torn would have to be removed by hand; no storage that has a URL here tears one.
pub(crate) async fn a_copy_at_its_target() {
    let (_, stack) = small_stack();
    let (from, kept) = with_backups(&stack, sealed(), 2).await;
    let source = Repository::with_store(from, sealed()).await.unwrap();
    let (target, own) = with_backups(&stack, sealed(), 1).await;
    let store = || -> Arc<dyn ObjectStore> { Arc::new(target.fork()) };
    let start =
        Start { stack: &stack, options: sealed(), puts: Puts::Whole, store: &store, needed: &own, check: &|_| {} };
    let copied = async |target: &Repository| {
        let listed = target.list().await.unwrap();
        assert!(kept.iter().chain(&own).all(|id| listed.iter().any(|entry| entry.id == *id)), "{listed:?}");
    };
    start.every_call_in_every_way(20, async |target| copy(&source, target).await, copied).await;
}

/// Every call of a copy at its source.
pub(crate) async fn a_copy_at_its_source() {
    let (_, stack) = small_stack();
    let (from, kept) = with_backups(&stack, signed(), 2).await;
    let target = RefCell::new(Arc::new(InMemory::new()));
    let store = || -> Arc<dyn ObjectStore> {
        *target.borrow_mut() = Arc::new(InMemory::new());
        Arc::new(from.fork())
    };
    let start =
        Start { stack: &stack, options: signed(), puts: Puts::Torn, store: &store, needed: &kept, check: &|_| {} };
    let copy = async |source: &Repository| {
        let store = Arc::clone(&target.borrow());
        let target = Repository::with_store(store, signed()).await?;
        let copied = copy(source, &target).await;
        promise::holds(&target, &stack, &[], "at the target").await;
        copied
    };
    start.every_call_in_every_way(8, copy, nothing).await;
}

/// Four backups, of which a policy keeps two.
struct Stale {
    stack: Stack,
    memory: Arc<InMemory>,
    ids: Vec<BackupId>,
    options: RepositoryOptions,
}

impl Stale {
    async fn new() -> Self {
        let (_, stack) = small_stack();
        let (memory, ids) = with_backups(&stack, signed(), 4).await;
        let options = signed().with_clock(stack.clock().clone());
        Self { stack, memory, ids, options }
    }

    /// With the deletion of two announced.
    async fn announced() -> Self {
        let stale = Self::new().await;
        let repository = Repository::with_store(stale.memory.clone(), stale.options.clone()).await.unwrap();
        prune(&repository, &two_with_grace(GRACE)).await.unwrap();
        assert_eq!(repository.list().await.unwrap().len(), 2);
        stale
    }

    /// Fails every call of `operation`, which must not harm those from number `needed` on.
    async fn every_call(
        &self,
        (needed, calls_min): (usize, usize),
        operation: impl AsyncFn(&Repository) -> Result<()>,
        done: impl AsyncFn(&Repository),
    ) {
        let store = || -> Arc<dyn ObjectStore> { Arc::new(self.memory.fork()) };
        let start = Start {
            stack: &self.stack,
            options: self.options.clone(),
            puts: Puts::Whole,
            store: &store,
            needed: &self.ids[needed..],
            check: &|_| {},
        };
        start.every_call_in_every_way(calls_min, operation, done).await;
    }

    /// Nothing of the deleted backups is left.
    async fn is_clean(&self, repository: &Repository) {
        let all = repository.list_all().await.unwrap();
        let left: Vec<_> = all.iter().map(|entry| entry.id).collect();
        assert!(self.ids[..2].iter().all(|id| !left.contains(id)), "{left:?}");
        let report = repository.check_chain(self.stack.name(), None).await.unwrap();
        assert!(report.is_ok(), "{report}");
    }
}

/// How long a deletion is announced.
const GRACE: Duration = Duration::from_secs(3600);

fn two_with_grace(grace: Duration) -> Retention {
    Retention::new().keep_last(2).with_grace(grace)
}

async fn prune(repository: &Repository, policy: &Retention) -> Result<()> {
    repository.apply_retention(repository.plan_retention(policy).await?).await.map(drop)
}

/// Every call of a prune that announces and deletes at once.
pub(crate) async fn a_prune() {
    let stale = Stale::new().await;
    let policy = two_with_grace(Duration::ZERO);
    let clean = async |repository: &Repository| stale.is_clean(repository).await;
    stale.every_call((2, 30), async |repository| prune(repository, &policy).await, clean).await;
}

/// Every call of the first step of a prune: everything is still whole.
pub(crate) async fn an_announcement() {
    let stale = Stale::new().await;
    let announced = async |repository: &Repository| {
        assert_eq!(repository.list().await.unwrap().len(), 2);
        assert_eq!(repository.list_all().await.unwrap().len(), 4);
    };
    stale.every_call((2, 15), async |repository| prune(repository, &two_with_grace(GRACE)).await, announced).await;
}

/// Every call of the second step.
pub(crate) async fn a_purge() {
    let stale = Stale::announced().await;
    stale.stack.clock().advance(2 * GRACE);
    let policy = two_with_grace(GRACE);
    let clean = async |repository: &Repository| stale.is_clean(repository).await;
    stale.every_call((2, 30), async |repository| prune(repository, &policy).await, clean).await;
}

/// Every call of the taking back of an announcement, also of one whose time has come.
pub(crate) async fn an_undelete() {
    let stale = Stale::announced().await;
    stale.stack.clock().advance(2 * GRACE);
    let operation = async |repository: &Repository| {
        match repository.undelete(&stale.ids[0]).await {
            // The first attempt had done it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => done?,
        }
        Ok(())
    };
    let taken_back = async |repository: &Repository| assert_eq!(repository.list().await.unwrap().len(), 3);
    stale.every_call((2, 8), operation, taken_back).await;
}

/// Every call of a collection of garbage, beside backups that are whole.
pub(crate) async fn a_collection_of_garbage() {
    let stale = Stale::new().await;
    for part in 0..2 {
        let plan = Plan::only(PUT_PART, part, When::CrashAfter);
        let store = Arc::new(Faulty { inner: stale.memory.clone(), plan: Arc::clone(&plan) });
        let repository = Repository::with_store(store, signed()).await.unwrap();
        assert!(plan.run(repository.backup(&stale.stack).run()).await.is_none());
    }
    // What is in memory was written at the system's time.
    let later = Clock::system().now().checked_add(Duration::from_secs(72 * 3600)).unwrap();
    let stale = Stale { options: signed().with_clock(Clock::fixed(later)), ..stale };
    let operation = async |repository: &Repository| {
        let plan = repository.plan_gc(&GcOptions::new()).await?;
        repository.apply_gc(plan).await.map(drop)
    };
    let clean = async |repository: &Repository| {
        let all = repository.list_all().await.unwrap();
        assert_eq!(all.len(), 4, "{all:?}");
    };
    stale.every_call((0, 8), operation, clean).await;
}

async fn copy(source: &Repository, target: &Repository) -> Result<()> {
    let report = source.copy_to(target).run().await?;
    match report.is_ok() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Io, report.to_string())),
    }
}

/// A repository with some backups, a minute after each other, oldest first.
async fn with_backups(stack: &Stack, options: RepositoryOptions, count: usize) -> (Arc<InMemory>, Vec<BackupId>) {
    let memory = Arc::new(InMemory::new());
    let repository = Repository::with_store(memory.clone(), options).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(*repository.backup(stack).run().await.unwrap().id());
        stack.clock().advance(Duration::from_secs(60));
    }
    (memory, ids)
}

async fn nothing(_: &Repository) {}

async fn back_up(repository: &Repository, stack: &Stack) -> Result<()> {
    repository.backup(stack).run().await.map(drop)
}
