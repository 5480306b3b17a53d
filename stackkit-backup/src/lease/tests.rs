//! Leases against storages that fail, holders that die and holders that stand still.

use std::fmt;
use std::mem::ManuallyDrop;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use stackkit_core::Clock;
use stackkit_core::process::Tool;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use super::*;
use crate::RepositoryOptions;

const SECOND: Duration = Duration::from_secs(1);

/// How long the storage's writes take or whether they come back at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Writes {
    Work,
    /// They fail and have no effect.
    Fail,
    /// They have their effect and the answer is lost.
    LoseAnswers,
    /// They never return and have no effect.
    Hang,
    /// They have their effect and never return.
    HangAfter,
    /// They are not allowed.
    Denied,
}

/// A store in memory whose writes can be made to fail.
#[derive(Debug, Default)]
struct Knob {
    inner: InMemory,
    writes: AtomicU8,
}

impl Knob {
    fn set(&self, writes: Writes) {
        self.writes.store(writes as u8, Ordering::SeqCst);
    }

    fn is(&self, writes: Writes) -> bool {
        self.writes.load(Ordering::SeqCst) == writes as u8
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Knob")
    }
}

#[async_trait]
impl ObjectStore for Knob {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        // Others get their turn, as with any storage that is further away than memory.
        tokio::task::yield_now().await;
        let failed = || Err(StoreError::Generic { store: "Knob", source: "injected".into() });
        if self.is(Writes::Fail) {
            return failed();
        }
        if self.is(Writes::Denied) {
            return Err(StoreError::PermissionDenied { path: path.to_string(), source: "injected".into() });
        }
        if self.is(Writes::Hang) {
            return std::future::pending().await;
        }
        let put = self.inner.put_opts(path, payload, options).await;
        if self.is(Writes::LoseAnswers) {
            return failed();
        }
        if self.is(Writes::HangAfter) {
            return std::future::pending().await;
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        tokio::task::yield_now().await;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn options() -> RepositoryOptions {
    RepositoryOptions::new().unencrypted()
}

async fn repository() -> (Arc<Knob>, Repository) {
    let store = Arc::new(Knob::default());
    let repository = Repository::with_store(store.clone(), options()).await.unwrap();
    (store, repository)
}

async fn directory(root: &FilePath) -> Repository {
    Repository::open_or_create(root.to_str().unwrap(), options()).await.unwrap()
}

async fn get(repository: &Repository, wait: Duration) -> Result<Lease> {
    Lease::acquire_with(repository, "prune", "test", &LeaseOptions::default().with_wait(wait)).await
}

/// Work that never ends.
async fn endless() -> Result<()> {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn only_one_has_it_and_the_other_learns_who() {
    let (_, repository) = repository().await;
    let first = Lease::acquire(&repository, "prune", "nightly prune").await.unwrap();
    let began = Instant::now();
    let error = get(&repository, 10 * SECOND).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("purpose=nightly prune"), "{error}");
    assert_eq!(began.elapsed(), 10 * SECOND);
    // Another name is another lease.
    Lease::acquire(&repository, "restore-shop", "restore").await.unwrap().release().await.unwrap();
    first.check().await.unwrap();
    first.release().await.unwrap();
    let began = Instant::now();
    let second = get(&repository, Duration::ZERO).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    second.release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_kept_outlives_its_ttl() {
    let (_, repository) = repository().await;
    let lease = get(&repository, Duration::ZERO).await.unwrap();
    let work = lease.hold(async {
        tokio::time::sleep(20 * TTL).await;
        lease.check().await
    });
    let (held, other) = tokio::join!(work, get(&repository, 19 * TTL));
    held.unwrap();
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Busy);
}

#[tokio::test(start_paused = true)]
async fn a_dead_holders_lease_is_free_after_ttl_and_margin() {
    let (store, repository) = repository().await;
    let _dead = ManuallyDrop::new(get(&repository, Duration::ZERO).await.unwrap());
    // The wall clock of whoever waits says nothing.
    let clock = Clock::fixed("2026-11-21T06:15:30Z".parse().unwrap());
    let other = Repository::with_store(store, options().with_clock(clock.clone())).await.unwrap();
    clock.advance(1000 * TTL);
    let began = Instant::now();
    let early = get(&other, TTL + margin(TTL) - SECOND / 1000).await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Busy);
    // What is seen for the first time is new, whenever it was written.
    let began_again = Instant::now();
    let lease = get(&other, WAIT).await.unwrap();
    assert_eq!(began_again.elapsed(), TTL + margin(TTL));
    assert!(began.elapsed() > 2 * TTL);
    lease.release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_dead_only_gives_up_at_a_sign_of_life() {
    let (store, repository) = repository().await;
    let path = Path::from("leases/prune.json");
    let options = LeaseOptions::default().only_from_the_dead();
    let take = || Lease::acquire_with(&repository, "prune", "test", &options);
    // A process that was killed.
    let dead = record::Record::new("restore", TTL);
    store.put(&path, dead.to_bytes().unwrap().into()).await.unwrap();
    let began = Instant::now();
    let lease = take().await.unwrap();
    assert_eq!(began.elapsed(), TTL + margin(TTL));
    // One of this process lives as long as it is not dropped.
    let began = Instant::now();
    assert_eq!(take().await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(began.elapsed(), Duration::ZERO);
    lease.release().await.unwrap();
    // Another process that renews.
    let alive = record::Record::new("restore", TTL);
    store.put(&path, alive.to_bytes().unwrap().into()).await.unwrap();
    let renewing = async {
        for _ in 0..9 {
            tokio::time::sleep(TTL / 3).await;
            store.put(&path, alive.again().to_bytes().unwrap().into()).await.unwrap();
        }
    };
    let began = Instant::now();
    let ((), taken) = tokio::join!(renewing, async { (take().await, began.elapsed()) });
    assert_eq!(taken.0.unwrap_err().kind(), ErrorKind::Busy);
    assert!(taken.1 <= TTL / 3 + 2 * POLL, "{:?}", taken.1);
    // So does one that has a lock.
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (directory(root.path()).await, directory(root.path()).await);
    let held = get(&one, Duration::ZERO).await.unwrap();
    let began = Instant::now();
    let busy = Lease::acquire_with(&two, "prune", "test", &options).await.unwrap_err();
    assert_eq!((busy.kind(), began.elapsed()), (ErrorKind::Busy, Duration::ZERO));
    held.release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_lost_it_can_do_nothing_with_it() {
    let (_, repository) = repository().await;
    let first = get(&repository, Duration::ZERO).await.unwrap();
    let second = get(&repository, WAIT).await.unwrap();
    let error = first.check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "its own clock says so: {error}");
    let error = first.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    second.check().await.unwrap();
    second.release().await.unwrap();
}

/// As a clock does that stands still while the machine sleeps.
#[tokio::test(start_paused = true)]
async fn a_check_reads_what_the_storage_says() {
    let (store, repository) = repository().await;
    let first = get(&repository, Duration::ZERO).await.unwrap();
    let path = Path::from("leases/prune.json");
    let own = store.get(&path).await.unwrap().bytes().await.unwrap();
    let thief = record::Record::new("theft", TTL);
    store.put(&path, thief.to_bytes().unwrap().into()).await.unwrap();
    for error in [first.check().await.unwrap_err(), first.hold(endless()).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("purpose=theft"), "{error}");
    }
    store.delete(&path).await.unwrap();
    assert_eq!(first.check().await.unwrap_err().kind(), ErrorKind::Busy);
    store.put(&path, own.slice(1..).into()).await.unwrap();
    assert_eq!(first.check().await.unwrap_err().kind(), ErrorKind::Integrity);
    let error = get(&repository, WAIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(error.to_string().contains("remove the object"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn after_a_standstill_the_work_is_not_continued() {
    let (_, repository) = repository().await;
    let lease = get(&repository, Duration::ZERO).await.unwrap();
    let polled = AtomicUsize::new(0);
    let mut held = Box::pin(lease.hold(poll_fn(|_| {
        polled.fetch_add(1, Ordering::SeqCst);
        Poll::<Result<()>>::Pending
    })));
    assert!(futures_util::poll!(&mut held).is_pending());
    assert_eq!(polled.load(Ordering::SeqCst), 1);
    // Nobody polls it while somebody else takes over.
    let other = get(&repository, WAIT).await.unwrap();
    let error = held.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert_eq!(polled.load(Ordering::SeqCst), 1);
    other.check().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_may_fail_twice() {
    for trouble in [Writes::Fail, Writes::LoseAnswers, Writes::Hang, Writes::HangAfter] {
        let (store, repository) = repository().await;
        let lease = get(&repository, Duration::ZERO).await.unwrap();
        let stop = AtomicBool::new(false);
        let flicker = async {
            for _ in 0..10 {
                tokio::time::sleep(TTL / 3 - SECOND).await;
                store.set(trouble);
                tokio::time::sleep(TTL / 3).await;
                store.set(Writes::Work);
            }
            stop.store(true, Ordering::SeqCst);
            Ok(())
        };
        let (held, other) = tokio::join!(lease.hold(flicker), get(&repository, 3 * TTL));
        held.unwrap_or_else(|e| panic!("{trouble:?}: {e:?}"));
        assert!(stop.load(Ordering::SeqCst));
        assert_eq!(other.unwrap_err().kind(), ErrorKind::Busy, "{trouble:?}");
        lease.check().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_stops_before_anybody_takes_over() {
    for trouble in [Writes::Fail, Writes::Hang] {
        let (store, repository) = repository().await;
        let lease = get(&repository, Duration::ZERO).await.unwrap();
        store.set(trouble);
        let began = Instant::now();
        let error = lease.hold(endless()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        assert!(began.elapsed() <= TTL - margin(TTL) + SECOND / 100, "{:?}", began.elapsed());
        assert_eq!(lease.check().await.unwrap_err().kind(), ErrorKind::Cancelled);
        if trouble == Writes::Fail {
            assert!(error.chain().to_string().contains("injected"), "{}", error.chain());
        }
        store.set(Writes::Work);
        get(&repository, WAIT).await.unwrap().release().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answers_change_nothing() {
    let (store, repository) = repository().await;
    for _ in 0..3 {
        store.set(Writes::LoseAnswers);
        let lease = get(&repository, Duration::ZERO).await.unwrap();
        tokio::time::sleep(TTL / 2).await;
        lease.check().await.unwrap();
        lease.release().await.unwrap();
    }
    store.set(Writes::Work);
    let lease = get(&repository, Duration::ZERO).await.unwrap();
    store.set(Writes::Fail);
    assert_eq!(lease.release().await.unwrap_err().kind(), ErrorKind::Io);
    // The process knows that its own holder is gone, and tries at once.
    assert_eq!(get(&repository, WAIT).await.unwrap_err().kind(), ErrorKind::Io);
    store.set(Writes::Denied);
    assert_eq!(get(&repository, WAIT).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    // Whoever gives up while a write hangs may get the lease after all, and nobody knows.
    store.set(Writes::HangAfter);
    tokio::time::timeout(WAIT, get(&repository, WAIT)).await.unwrap_err();
    store.set(Writes::Work);
    let path = Path::from("leases/prune.json");
    let left = record::Record::from_bytes(&store.get(&path).await.unwrap().bytes().await.unwrap()).unwrap();
    assert!(left.is_held());
    get(&repository, Duration::ZERO).await.unwrap().release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_is_free_for_this_process_at_once() {
    let (store, repository) = repository().await;
    let lease = get(&repository, Duration::ZERO).await.unwrap();
    drop(lease);
    let lease = get(&repository, Duration::ZERO).await.unwrap();
    tokio::time::timeout(3 * TTL, lease.hold(endless())).await.unwrap_err();
    drop(lease);
    let lease = get(&repository, Duration::ZERO).await.unwrap();
    store.set(Writes::HangAfter);
    tokio::time::timeout(SECOND, lease.release()).await.unwrap_err();
    store.set(Writes::Work);
    get(&repository, Duration::ZERO).await.unwrap().release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fifty_contenders_have_it_one_after_the_other() {
    let (_, repository) = repository().await;
    let (inside, winners) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let contenders = (0..50).map(|number: u64| {
        let (repository, inside, winners) = (repository.clone(), Arc::clone(&inside), Arc::clone(&winners));
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(number);
            let options = LeaseOptions::default().with_ttl(6 * SECOND).with_wait(3600 * SECOND);
            let lease = Lease::acquire_with(&repository, "prune", "test", &options).await.unwrap();
            let work = async {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have it");
                tokio::time::sleep(Duration::from_millis(random.u64(..9000))).await;
                lease.check().await?;
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two have it");
                Ok(())
            };
            lease.hold(work).await.unwrap();
            winners.fetch_add(1, Ordering::SeqCst);
            // Every fifth dies, and every fifth is dropped.
            match number % 5 {
                0 => _ = Box::leak(Box::new(lease)),
                1 => drop(lease),
                _ => lease.release().await.unwrap(),
            }
        })
    });
    for contender in join_all(contenders).await {
        contender.unwrap();
    }
    assert_eq!(winners.load(Ordering::SeqCst), 50);
}

#[tokio::test]
async fn a_storage_with_neither_way_needs_a_single_writer() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(root.path()).unwrap());
    let repository = Repository::with_store(store.clone(), options()).await.unwrap();
    let error = get(&repository, Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("single_writer"), "{error}");
    let alone = Repository::with_store(store, options().single_writer()).await.unwrap();
    let lease = get(&alone, Duration::ZERO).await.unwrap();
    lease.hold(lease.check()).await.unwrap();
    lease.release().await.unwrap();
}

#[tokio::test]
async fn a_directory_is_locked_by_the_system() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (directory(root.path()).await, directory(root.path()).await);
    let lease = get(&one, Duration::ZERO).await.unwrap();
    for repository in [&one, &two] {
        let error = get(repository, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("purpose=test"), "{error}");
    }
    lease.check().await.unwrap();
    assert_eq!(lease.hold(async { Ok(7) }).await.unwrap(), 7);
    lease.release().await.unwrap();
    let lease = get(&two, Duration::ZERO).await.unwrap();
    // Whoever removes the file makes room for two.
    std::fs::remove_file(root.path().join("leases/prune.lock")).unwrap();
    assert_eq!(lease.check().await.unwrap_err().kind(), ErrorKind::Busy);
    let other = get(&one, Duration::ZERO).await.unwrap();
    drop(lease);
    other.check().await.unwrap();
    assert_eq!(get(&two, Duration::ZERO).await.unwrap_err().kind(), ErrorKind::Busy);
    drop(other);
    get(&two, Duration::ZERO).await.unwrap().release().await.unwrap();
}

/// The variable that names the directory of [`holder_in_another_process`].
const DIRECTORY: &str = "STACKKIT_TEST_LEASE_DIRECTORY";

/// Not a test of its own: what the next one runs in a process that it kills.
#[tokio::test]
#[ignore = "it is run by the test that kills it"]
async fn holder_in_another_process() {
    let repository = directory(FilePath::new(&std::env::var(DIRECTORY).unwrap())).await;
    let lease = Lease::acquire(&repository, "prune", "another process").await.unwrap();
    println!("\nlocked");
    lease.hold(endless()).await.unwrap();
}

#[tokio::test]
async fn a_killed_process_leaves_no_lock() {
    let root = tempfile::tempdir().unwrap();
    let repository = directory(root.path()).await;
    let mut child = Tool::new(std::env::current_exe().unwrap())
        .args(["--exact", "lease::tests::holder_in_another_process", "--ignored", "--nocapture"])
        .env(DIRECTORY, root.path())
        .stdout_piped()
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.take_stdout().unwrap()).lines();
    while lines.next_line().await.unwrap().expect("the child holds the lease") != "locked" {}
    let error = get(&repository, Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("purpose=another process"), "{error}");
    // It is killed, and gone when this returns.
    drop(child);
    get(&repository, Duration::ZERO).await.unwrap().release().await.unwrap();
}
