//! What the cases share.

pub(crate) mod counting;
pub(crate) mod faulty;
pub(crate) mod gate;
pub(crate) mod history;
pub(crate) mod promise;
pub(crate) mod read_only;
#[cfg(feature = "s3")]
pub(crate) mod s3;
pub(crate) mod scratch;
pub(crate) mod shelf;
pub(crate) mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::memory::InMemory;
use stackkit_backup::{Identity, Repository, RepositoryOptions, SigningKey};
use stackkit_core::{Clock, Stack};

use self::shelf::Shelf;

/// How long a condition may take to become true.
const WAIT: Duration = Duration::from_secs(10);

/// Plain bytes in a frame: a fact of the format.
pub(crate) const FRAME: usize = 1 << 20;

/// Text that compresses like a dump, the same for the same seed.
pub(crate) fn text(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut out = Vec::with_capacity(bytes + 128);
    while out.len() < bytes {
        let (id, key) = (random.u32(..), random.u64(..));
        out.extend_from_slice(format!("{id}\t{key:016x}\tcustomer {}\t2026-11-21\t\\N\n", id % 1000).as_bytes());
    }
    out.truncate(bytes);
    out
}

/// A random generator, and the seed to tell when a test fails. The environment's `variable` sets it, to repeat a run.
pub(crate) fn seed(variable: &str) -> (u64, fastrand::Rng) {
    let seed = std::env::var(variable).ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    (seed, fastrand::Rng::with_seed(seed))
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(bytes).collect()
}

pub(crate) fn options() -> RepositoryOptions {
    // The cases that want leases use storages that have them.
    RepositoryOptions::new().unencrypted().single_writer()
}

/// Encrypted to one identity, manifests too, and signed: the same keys in this process.
pub(crate) fn sealed() -> RepositoryOptions {
    sealed_without_identity().with_identity(keys().0.clone())
}

/// Signed by the same key, and not encrypted.
pub(crate) fn signed() -> RepositoryOptions {
    options().sign_with(keys().1.clone())
}

/// As [`sealed`], as the host that makes the backups has it: it can't read them.
pub(crate) fn sealed_without_identity() -> RepositoryOptions {
    let (identity, key) = keys();
    let options = RepositoryOptions::new().encrypt_to(identity.recipients().remove(0)).encrypt_manifest();
    options.sign_with(key.clone()).single_writer()
}

fn keys() -> &'static (Identity, SigningKey) {
    static KEYS: OnceLock<(Identity, SigningKey)> = OnceLock::new();
    KEYS.get_or_init(|| (Identity::generate().unwrap(), SigningKey::generate().unwrap()))
}

pub(crate) async fn in_memory() -> Repository {
    Repository::with_store(Arc::new(InMemory::new()), options()).await.unwrap()
}

pub(crate) async fn local(directory: &Path) -> Repository {
    Repository::open_or_create(directory.to_str().unwrap(), options()).await.unwrap()
}

/// A stack of the given shelves. Its clock stands until a test moves it.
pub(crate) fn stack_of(shelves: impl IntoIterator<Item = Shelf>) -> Stack {
    let clock = Clock::fixed("2026-11-21T06:15:30.25Z".parse().unwrap());
    let builder = Stack::builder("shop").clock(clock);
    shelves.into_iter().fold(builder, |builder, shelf| builder.service(shelf)).build().unwrap()
}

/// Every file below a directory, staged ones included.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Waits until a condition is true.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(WAIT, wait).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// The names of the stack's objects, without what a repository has before its first backup.
pub(crate) fn backup_files(directory: &Path) -> Vec<PathBuf> {
    files(&directory.join("backups"))
}
