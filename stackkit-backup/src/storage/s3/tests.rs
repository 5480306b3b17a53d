//! Against a real MinIO: what no public call shows by itself.

use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use stackkit_core::ErrorKind;
use stackkit_fixtures::BucketKind;

use crate::storage::{Deleted, DeletedBytes, ObjectLockMode, Storage};

const OPERATION: &str = "test";

/// A bucket of that kind, as storage below a prefix; `None` if there is no MinIO here and none is required.
async fn bucket(kind: BucketKind) -> Option<Storage> {
    // Not the shared one: each test has a runtime of its own, and the server's process belongs to one of them.
    let minio = match stackkit_fixtures::minio_server().await {
        Ok(minio) => minio,
        Err(error) if error.kind() == ErrorKind::ToolMissing && !stackkit_fixtures::is_required("minio") => {
            println!("skipped: {error}");
            return None;
        }
        Err(error) => panic!("{error:?}"),
    };
    let name = minio.bucket_of(kind).await.unwrap();
    let keys = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        minio.access_key(),
        minio.secret_key()
    );
    std::fs::write(keys.path(), text).unwrap();
    let url = format!(
        "s3://{name}/some/prefix?endpoint={}&region={}&credentials_file={}&timeout=10",
        minio.endpoint(),
        minio.region(),
        keys.path().display()
    );
    let storage = Storage::open_or_create(&url).await.unwrap();
    // The server lives as long as the test's process.
    Box::leak(Box::new(minio));
    Some(storage)
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn hence(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

#[tokio::test]
async fn a_plain_bucket_keeps_objects() {
    let Some(storage) = bucket(BucketKind::Plain).await else { return };
    let found = storage.probe().await.unwrap();
    assert!(found.put_if_absent && found.compare_and_swap, "{found:?}");
    assert!(!found.versioning && !found.object_lock, "{found:?}");
    assert_eq!(storage.objects(OPERATION, &Path::default()).await.unwrap(), [], "the probe is left");
    assert_eq!(storage.deleted_bytes().await.unwrap(), DeletedBytes::Freed);
    let path = Path::from("backups/shop/x/ä b+c%&.json");
    storage.create(OPERATION, &path, text("abc")).await.unwrap();
    assert_eq!(storage.create(OPERATION, &path, text("x")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(storage.read(OPERATION, &path).await.unwrap(), "abc");
    assert_eq!(storage.objects(OPERATION, &Path::from("backups")).await.unwrap(), [(path.clone(), 3)]);
    assert_eq!(storage.folders(&Path::from("backups")).await.unwrap(), ["shop"]);
    assert_eq!(storage.locked_until(OPERATION, &path).await.unwrap(), None);
    let refused = storage.retain_until(OPERATION, &path, hence(60), ObjectLockMode::Governance).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert_eq!(storage.delete(OPERATION, &path).await.unwrap(), Deleted::Gone);
    assert_eq!(storage.read(OPERATION, &path).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_versioned_bucket_hides_what_is_deleted() {
    let Some(storage) = bucket(BucketKind::Versioned).await else { return };
    let found = storage.probe().await.unwrap();
    assert!(found.put_if_absent && found.compare_and_swap && found.versioning && !found.object_lock, "{found:?}");
    assert_eq!(storage.deleted_bytes().await.unwrap(), DeletedBytes::KeptAsVersions);
    let path = Path::from("a");
    storage.create(OPERATION, &path, text("abc")).await.unwrap();
    assert_eq!(storage.delete(OPERATION, &path).await.unwrap(), Deleted::Gone);
    assert_eq!(storage.objects(OPERATION, &Path::default()).await.unwrap(), []);
    // The name is free again.
    storage.create(OPERATION, &path, text("def")).await.unwrap();
    assert_eq!(storage.read(OPERATION, &path).await.unwrap(), "def");
}

#[tokio::test]
async fn a_locked_object_stays_until_its_time() {
    let Some(storage) = bucket(BucketKind::Locking).await else { return };
    let found = storage.probe().await.unwrap();
    assert!(found.put_if_absent && found.compare_and_swap && found.versioning && found.object_lock, "{found:?}");
    assert_eq!(storage.objects(OPERATION, &Path::default()).await.unwrap(), [], "the probe is left");
    assert_eq!(storage.deleted_bytes().await.unwrap(), DeletedBytes::Freed);
    let (locked, free) = (Path::from("x/a b"), Path::from("x/a b c"));
    for path in [&locked, &free] {
        storage.create(OPERATION, path, text("abc")).await.unwrap();
        assert_eq!(storage.locked_until(OPERATION, path).await.unwrap(), None);
    }
    let until = hence(3);
    storage.retain_until(OPERATION, &locked, until, ObjectLockMode::Compliance).await.unwrap();
    let told = storage.locked_until(OPERATION, &locked).await.unwrap().unwrap();
    assert!(told >= until && told <= until + SignedDuration::from_secs(1), "{told} for {until}");
    assert_eq!(storage.delete(OPERATION, &locked).await.unwrap(), Deleted::Locked { until: Some(told) });
    assert_eq!(storage.read(OPERATION, &locked).await.unwrap(), "abc");
    let folder = storage.remove_all(&Path::from("x")).await.unwrap_err();
    assert_eq!(folder.kind(), ErrorKind::Busy, "{folder}");
    assert_eq!(storage.delete(OPERATION, &free).await.unwrap(), Deleted::Gone);
    assert_eq!(storage.delete(OPERATION, &free).await.unwrap(), Deleted::Absent);
    // Its time passes on the server's clock, so it can't be moved by hand.
    let gone = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(200));
        while storage.delete(OPERATION, &locked).await.unwrap() != Deleted::Gone {
            tick.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("the lock does not end");
    assert_eq!(storage.delete(OPERATION, &locked).await.unwrap(), Deleted::Absent);
}

#[tokio::test]
async fn old_versions_go_with_the_object() {
    let Some(storage) = bucket(BucketKind::Locking).await else { return };
    let path = Path::from("leases/prune.json");
    storage.create(OPERATION, &path, text("0")).await.unwrap();
    for content in ["1", "2", "3"] {
        let (_, version) = storage.read_versioned(OPERATION, &path).await.unwrap();
        storage.update(OPERATION, &path, text(content), version).await.unwrap();
    }
    // Hidden by somebody who deletes the plain way.
    storage.store().delete(&path).await.unwrap();
    assert_eq!(storage.delete(OPERATION, &path).await.unwrap(), Deleted::Gone);
    assert_eq!(storage.delete(OPERATION, &path).await.unwrap(), Deleted::Absent);
    assert_eq!(storage.read(OPERATION, &path).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_unfinished_upload_can_be_ended() {
    let Some(storage) = bucket(BucketKind::Plain).await else { return };
    let path = Path::from("backups/a.zst");
    let mut upload = storage.store().put_multipart(&path).await.unwrap();
    upload.put_part(PutPayload::from(vec![1_u8; 5 << 20])).await.unwrap();
    assert_eq!(storage.abort_uploads(hence(-3600)).await.unwrap(), 0);
    let aborted = storage.abort_uploads(hence(3600)).await.unwrap();
    println!("uploads that MinIO lists by prefix: {aborted}");
    if aborted == 1 {
        assert!(upload.complete().await.is_err());
    }
}

#[tokio::test]
async fn one_of_many_creates_and_one_of_many_updates_wins() {
    let Some(storage) = bucket(BucketKind::Plain).await else { return };
    let storage = Arc::new(storage);
    let path = Path::from("leases/prune.json");
    for round in 0..20 {
        let race = |content: String| {
            let (storage, path) = (Arc::clone(&storage), path.clone());
            async move { storage.create(OPERATION, &path, content.into()).await.map_err(|error| error.kind()) }
        };
        let results = futures_util::future::join_all((0..8).map(|n| race(format!("{round} {n}")))).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        let lost = |result: &&Result<(), ErrorKind>| **result == Err(ErrorKind::AlreadyExists);
        assert_eq!(results.iter().filter(lost).count(), 7, "{results:?}");
        let (_, version) = storage.read_versioned(OPERATION, &path).await.unwrap();
        let race = |content: String| {
            let (storage, path, version) = (Arc::clone(&storage), path.clone(), version.clone());
            async move { storage.update(OPERATION, &path, content.into(), version).await.map_err(|error| error.kind()) }
        };
        // A version is told by the hash of its content, so no two contents may be equal.
        let results = futures_util::future::join_all((0..8).map(|n| race(format!("{round} {n} again")))).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(ErrorKind::Busy))), "{results:?}");
        storage.delete(OPERATION, &path).await.unwrap();
    }
}
