//! Every call of every operation fails in every way. Afterwards the repository keeps its promises, and a retry completes.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use stackkit_backup::{BackupId, Repository};
use stackkit_core::{Result, Stack};

use crate::support::faulty::{Faulty, Plan, When};
use crate::support::shelf::Shelf;
use crate::support::{FRAME, noise, options, promise, stack_of, text};

/// More calls than any operation here makes.
const CALLS_MAX: usize = 1000;

/// An artifact of two parts, a small one and an empty one.
fn stack() -> Stack {
    stack_of([
        Shelf::new("big").with("noise", noise(6 * FRAME, 1)),
        Shelf::new("small").with("a", text(10, 1)).with("b", ""),
    ])
}

/// What every run begins with.
struct Start<'a> {
    stack: &'a Stack,
    store: &'a dyn Fn() -> Arc<dyn ObjectStore>,
    /// The backups that no operation may harm.
    needed: &'a [BackupId],
}

impl Start<'_> {
    /// Fails each call of `operation` once in the way of `when`. Returns how many there were.
    async fn every_call(&self, when: When, operation: impl AsyncFn(&Repository) -> Result<()>) -> usize {
        for call in 0..CALLS_MAX {
            let (inner, plan) = ((self.store)(), Plan::new(call, when));
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

    async fn promises(&self, store: &Arc<dyn ObjectStore>, context: &str) {
        let repository = Repository::with_store(Arc::clone(store), options()).await.unwrap();
        promise::holds(&repository, self.stack, self.needed, context).await;
    }

    async fn once(
        &self,
        store: Arc<dyn ObjectStore>,
        operation: &impl AsyncFn(&Repository) -> Result<()>,
    ) -> Result<()> {
        operation(&Repository::with_store(store, options()).await?).await
    }
}

/// Every call of a backup, the first into a new place: there the repository is made too.
pub(crate) async fn a_first_backup() {
    let stack = stack();
    let start = Start { stack: &stack, store: &|| Arc::new(InMemory::new()), needed: &[] };
    // A torn marker is no repository; stores that can tear a small object are another case.
    for when in When::ALL.into_iter().filter(|when| !when.tears()) {
        let calls = start.every_call(when, async |repository| back_up(repository, &stack).await).await;
        assert!(calls > 15, "{when:?}: {calls}");
    }
}

/// Every call of a backup beside another.
pub(crate) async fn a_second_backup() {
    let stack = stack();
    let memory = Arc::new(InMemory::new());
    let repository = Repository::with_store(memory.clone(), options()).await.unwrap();
    let kept = [*repository.backup(&stack).run().await.unwrap().id()];
    stack.clock().advance(std::time::Duration::from_secs(60));
    let start = Start { stack: &stack, store: &|| Arc::new(memory.fork()), needed: &kept };
    for when in When::ALL {
        let calls = start.every_call(when, async |repository| back_up(repository, &stack).await).await;
        assert!(calls > 15, "{when:?}: {calls}");
    }
}

/// Every call of a backup onto a disk.
pub(crate) async fn a_backup_on_a_disk() {
    let (stack, root) = (stack(), tempfile::tempdir().unwrap());
    let store = || -> Arc<dyn ObjectStore> {
        let directory = tempfile::tempdir_in(root.path()).unwrap().keep();
        Arc::new(LocalFileSystem::new_with_prefix(directory).unwrap())
    };
    let start = Start { stack: &stack, store: &store, needed: &[] };
    for when in When::ALL.into_iter().filter(|when| !when.tears()) {
        start.every_call(when, async |repository| back_up(repository, &stack).await).await;
    }
}

async fn back_up(repository: &Repository, stack: &Stack) -> Result<()> {
    repository.backup(stack).run().await.map(drop)
}
