//! Named stores in memory, which the whole process shares.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use object_store::memory::InMemory;

/// The named stores. They live as long as the process: only tests use them.
static STORES: LazyLock<Mutex<BTreeMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

/// The store of that name, the same one at each call; a fresh one for the empty name.
pub(super) fn store(name: &str) -> Arc<InMemory> {
    if name.is_empty() {
        return Arc::default();
    }
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(stores.entry(name.to_owned()).or_default())
}
