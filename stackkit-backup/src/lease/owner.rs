//! Who holds a lease in this process, and whose leases nobody here holds any more.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many abandoned leases are remembered. The others are free after their ttl and a margin, as those of other
/// processes are.
const ABANDONED_MAX: usize = 1024;

/// The holders of this process that were dropped without a release.
static ABANDONED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The holders of this process that may hold their leases.
static HERE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// One holder. Dropped while it may hold its lease, it lets others of this process take over at once: the work under
/// the lease was dropped before.
#[derive(Debug)]
pub(super) struct Owner {
    random: String,
    may_hold: AtomicBool,
}

impl Owner {
    pub(super) fn new(random: &str) -> Self {
        Self { random: random.to_owned(), may_hold: AtomicBool::new(false) }
    }

    /// From now on the lease may be this holder's.
    pub(super) fn may_hold(&self) {
        self.may_hold.store(true, Ordering::SeqCst);
        locked(&HERE).insert(self.random.clone());
    }

    /// From now on it is not.
    pub(super) fn holds_nothing(&self) {
        self.may_hold.store(false, Ordering::SeqCst);
        locked(&HERE).remove(&self.random);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        locked(&HERE).remove(&self.random);
        let mut abandoned = locked(&ABANDONED);
        if *self.may_hold.get_mut() && abandoned.len() < ABANDONED_MAX {
            abandoned.insert(std::mem::take(&mut self.random));
        }
    }
}

/// Whether the holder was one of this process and is gone.
pub(super) fn is_abandoned(random: &str) -> bool {
    locked(&ABANDONED).contains(random)
}

/// Whether the holder is one of this process and lives.
pub(super) fn is_here(random: &str) -> bool {
    locked(&HERE).contains(random)
}

/// Somebody has the lease of a holder that is gone.
pub(super) fn forget(random: &str) {
    locked(&ABANDONED).remove(random);
}

fn locked(holders: &'static Mutex<BTreeSet<String>>) -> MutexGuard<'static, BTreeSet<String>> {
    holders.lock().unwrap_or_else(PoisonError::into_inner)
}
