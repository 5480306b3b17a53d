//! Repositories in buckets, on real MinIO and on a second implementation.

use std::num::NonZeroU64;
use std::time::Duration;

use stackkit_backup::{Capabilities, Repository, VerifyLevel};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::{Clock, ErrorKind};
use stackkit_fixtures::{BlackHole, BucketKind, MinioServer, RefusedPort};

use crate::support::s3::{BUCKET, FileServer, Keys, StallingProxy};
use crate::support::shelf::Shelf;
use crate::support::{FRAME, files, noise, options, stack_of, text, until};

/// An artifact of several parts, some small ones, and one without a byte go there and come back.
async fn round_trip(url: &str) -> Repository {
    let repository = Repository::open_or_create(url, options()).await.unwrap();
    let (big, small) = (
        Shelf::new("big").with("noise", noise(13 * FRAME + 7, 1)),
        Shelf::new("small").with("text", text(FRAME / 2, 2)).with("empty", ""),
    );
    let stack = stack_of([big.clone(), small.clone()]);
    let before = (big.items(), small.items());
    let backup = repository.backup(&stack).run().await.unwrap();
    // Somebody else opens it and does all the rest.
    let again = Repository::open(url, options()).await.unwrap();
    assert_eq!(again.id(), repository.id());
    let listed = again.list_all().await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.id).collect::<Vec<_>>(), [*backup.id()]);
    assert_eq!(again.latest("shop").await.unwrap(), *backup.id());
    let report = again.verify(backup.id(), VerifyLevel::Content).await.unwrap();
    assert!(report.is_ok(), "{report}");
    big.wipe();
    small.wipe();
    let plan = again.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    again.apply_restore(plan, &stack).await.unwrap();
    assert_eq!((big.items(), small.items()), before);
    again
}

pub(crate) async fn a_second_implementation_keeps_a_backup() {
    let server = FileServer::start().await;
    let keys = server.keys();
    let repository = round_trip(&keys.url(server.endpoint(), BUCKET)).await;
    let found = repository.capabilities();
    assert!(found.put_if_absent && found.compare_and_swap, "{found:?}");
    assert!(!found.versioning && !found.object_lock, "{found:?}");
    let left = files(&server.repository().join("probe"));
    assert!(left.is_empty(), "{left:?}");
}

async fn on_minio(kind: BucketKind) -> Capabilities {
    let minio = stackkit_fixtures::minio_server().await.unwrap();
    let bucket = minio.bucket_of(kind).await.unwrap();
    let keys = Keys::of(&minio);
    let repository = round_trip(&keys.url(&minio.endpoint(), &bucket)).await;
    let found = repository.capabilities();
    assert!(found.put_if_absent && found.compare_and_swap, "{found:?}");
    found
}

pub(crate) async fn minio_keeps_a_backup() {
    let found = on_minio(BucketKind::Plain).await;
    assert!(!found.versioning && !found.object_lock, "{found:?}");
}

pub(crate) async fn a_versioned_minio_keeps_a_backup() {
    let found = on_minio(BucketKind::Versioned).await;
    assert!(found.versioning && !found.object_lock, "{found:?}");
}

pub(crate) async fn a_locking_minio_keeps_a_backup() {
    let found = on_minio(BucketKind::Locking).await;
    assert!(found.versioning && found.object_lock, "{found:?}");
}

pub(crate) async fn a_backup_survives_a_restart_of_its_storage() {
    let mut minio: MinioServer = stackkit_fixtures::minio_server().await.unwrap();
    let bucket = minio.bucket().await.unwrap();
    let keys = Keys::of(&minio);
    let repository = Repository::open_or_create(&keys.url(&minio.endpoint(), &bucket), options()).await.unwrap();
    let shelf = Shelf::new("big").with("noise", noise(64 * FRAME, 1)).with_chunk_bytes(16 << 10);
    let written = shelf.clone();
    let stack = stack_of([shelf.clone()]);
    let restart = async {
        let chunks = || written.content.chunks_written.load(std::sync::atomic::Ordering::SeqCst);
        until("the backup is under way", || chunks() > 100).await;
        minio.stop().await.unwrap();
        minio.start().await.unwrap();
    };
    let (backup, ()) = tokio::join!(repository.backup(&stack).run(), restart);
    let backup = backup.unwrap();
    let report = repository.verify(backup.id(), VerifyLevel::Stored).await.unwrap();
    assert!(report.is_ok(), "{report}");
}

pub(crate) async fn a_wrong_key_is_refused_at_once_and_not_told() {
    let server = FileServer::start().await;
    let keys = Keys::new("testkey", "hunter2hunter2");
    let began = Clock::system().instant();
    let error = Repository::open_or_create(&keys.url(server.endpoint(), BUCKET), options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{}", error.chain());
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    assert!(!format!("{error:?} {}", error.chain()).contains("hunter2"), "{error:?}");
    if stackkit_fixtures::find_minio().is_ok() || stackkit_fixtures::is_required("minio") {
        let minio = stackkit_fixtures::minio_server().await.unwrap();
        let bucket = minio.bucket().await.unwrap();
        for keys in [Keys::new(minio.access_key(), "hunter2hunter2"), Keys::new("nobody", "hunter2hunter2")] {
            let error = Repository::open(&keys.url(&minio.endpoint(), &bucket), options()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{}", error.chain());
            assert!(!format!("{error:?} {}", error.chain()).contains("hunter2"), "{error:?}");
        }
    }
}

pub(crate) async fn where_nothing_listens_is_unreachable() {
    let port = RefusedPort::bind().unwrap();
    let keys = Keys::new("a", "b");
    let url = keys.url(&format!("http://{}", port.address()), BUCKET);
    let began = Clock::system().instant();
    let error = Repository::open(&url, options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", error.chain());
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

pub(crate) async fn where_nothing_answers_is_a_timeout() {
    let hole = BlackHole::open().await.unwrap();
    let keys = Keys::new("a", "b");
    let url = keys.url_with_timeout(&format!("http://{}", hole.address()), BUCKET, 1);
    let began = Clock::system().instant();
    let error = Repository::open(&url, options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.chain());
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

pub(crate) async fn where_tls_is_spoken_to_a_server_without_it_is_unreachable() {
    let server = FileServer::start().await;
    let keys = server.keys();
    let url = keys.url(&server.endpoint().replace("http://", "https://"), BUCKET);
    let error = Repository::open(&url, options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", error.chain());
}

pub(crate) async fn a_limit_of_bandwidth_is_kept() {
    let server = FileServer::start().await;
    let keys = server.keys();
    let options = options().with_bandwidth_limit(NonZeroU64::new(8 << 20).unwrap());
    let repository = Repository::open_or_create(&keys.url(server.endpoint(), BUCKET), options).await.unwrap();
    let shelves = ["a", "b"].map(|id| Shelf::new(id).with("noise", noise(10 * FRAME, 1)));
    let stack = stack_of(shelves);
    let began = Clock::system().instant();
    let backup = repository.backup(&stack).run().await.unwrap();
    // 20 MiB at 8 MiB a second; nobody waits after the last part, which has at most half of an artifact.
    assert!(began.elapsed() >= Duration::from_millis(1800), "it took {:?}", began.elapsed());
    let began = Clock::system().instant();
    assert!(repository.verify(backup.id(), VerifyLevel::Stored).await.unwrap().is_ok());
    assert!(began.elapsed() >= Duration::from_millis(2000), "it took {:?}", began.elapsed());
}

pub(crate) async fn a_bucket_that_is_not_there_is_not_made() {
    let server = FileServer::start().await;
    let keys = server.keys();
    let url = keys.url(server.endpoint(), "another-one");
    for opened in [Repository::open(&url, options()).await, Repository::open_or_create(&url, options()).await] {
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain());
        assert!(error.to_string().contains("no such bucket"), "{error}");
    }
    assert!(!server.directory.path().join("another-one").exists());
}

pub(crate) async fn an_upload_that_stalls_fails_the_backup_in_time() {
    let server = FileServer::start().await;
    let proxy = StallingProxy::to(server.endpoint()).await;
    let keys = server.keys();
    let url = keys.url_with_timeout(&proxy.endpoint, BUCKET, 2);
    let repository = Repository::open_or_create(&url, options()).await.unwrap();
    let stack = stack_of([Shelf::new("big").with("noise", noise(24 * FRAME, 1))]);
    // In the middle of the second part or later.
    proxy.stall_after(8 << 20);
    let began = Clock::system().instant();
    let error = repository.backup(&stack).run().await.unwrap_err();
    assert!(proxy.has_stalled(), "the backup failed too early: {}", error.chain());
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.chain());
    assert!(error.to_string().contains("object="), "{error}");
    assert!(began.elapsed() < Duration::from_secs(45), "it took {:?}", began.elapsed());
    // By another way all is as it was before.
    let repository = Repository::open(&keys.url(server.endpoint(), BUCKET), options()).await.unwrap();
    assert!(repository.list_all().await.unwrap().is_empty());
    repository.backup(&stack).run().await.unwrap();
}
