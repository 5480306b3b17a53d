use std::time::Duration;

use jiff::Timestamp;

use super::*;

const OPERATION: &str = "test";

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn places() -> (tempfile::TempDir, [Storage; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let local = Storage::directory(directory.path().to_owned()).unwrap();
    (directory, [local, Storage::new(memory::store(""))])
}

#[tokio::test]
async fn an_object_is_created_once_listed_and_deleted() {
    let (_directory, places) = places();
    for storage in places {
        let path = Path::from("backups/shop/x/a.bin");
        storage.create(OPERATION, &path, text("abc")).await.unwrap();
        let twice = storage.create(OPERATION, &path, text("abc")).await.unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
        assert_eq!(storage.read(OPERATION, &path).await.unwrap(), "abc");
        assert_eq!(storage.size_bytes(OPERATION, &path).await.unwrap(), 3);
        let backups = Path::from("backups");
        assert_eq!(storage.folders(&backups).await.unwrap(), ["shop"]);
        assert_eq!(storage.objects(OPERATION, &backups).await.unwrap(), [(path.clone(), 3)]);
        assert_eq!(storage.objects(OPERATION, &Path::default()).await.unwrap(), [(path.clone(), 3)]);
        assert_eq!(storage.objects(OPERATION, &Path::from("leases")).await.unwrap(), []);
        assert_eq!(storage.locked_until(OPERATION, &path).await.unwrap(), None);
        assert_eq!(storage.delete(OPERATION, &path).await.unwrap(), Deleted::Gone);
        let again = storage.delete(OPERATION, &path).await.unwrap();
        assert!(again == Deleted::Absent || storage.root().is_none(), "{again:?}");
        assert_eq!(storage.read(OPERATION, &path).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn an_update_needs_the_newest_version() {
    let storage = Storage::new(memory::store(""));
    let path = Path::from("leases/prune.json");
    storage.create(OPERATION, &path, text("1")).await.unwrap();
    let (content, first) = storage.read_versioned(OPERATION, &path).await.unwrap();
    assert_eq!(content, "1");
    let second = storage.update(OPERATION, &path, text("2"), first.clone()).await.unwrap();
    assert_eq!(storage.update(OPERATION, &path, text("3"), first).await.unwrap_err().kind(), ErrorKind::Busy);
    storage.update(OPERATION, &path, text("4"), second.clone()).await.unwrap();
    assert_eq!(storage.read(OPERATION, &path).await.unwrap(), "4");
    storage.delete(OPERATION, &path).await.unwrap();
    assert_eq!(storage.update(OPERATION, &path, text("5"), second).await.unwrap_err().kind(), ErrorKind::Busy);
}

#[tokio::test]
async fn a_directory_has_no_update_and_says_so() {
    let (_directory, [local, memory]) = places();
    for (storage, compare_and_swap) in [(&local, false), (&memory, true)] {
        let found = storage.probe().await.unwrap();
        assert!(found.put_if_absent);
        assert_eq!(found.compare_and_swap, compare_and_swap);
        assert!(!found.versioning && !found.object_lock);
        assert_eq!(storage.objects(OPERATION, &Path::default()).await.unwrap(), [], "the probe is left");
    }
    let path = Path::from("x");
    let retained = memory.retain_until(OPERATION, &path, Timestamp::UNIX_EPOCH, ObjectLockMode::Governance).await;
    assert_eq!(retained.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_pipe_in_the_place_of_an_object_is_not_opened() {
    let (directory, [local, _]) = places();
    // The writer is kept open and never writes, so whoever reads the pipe waits.
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    std::os::unix::fs::symlink(pipe, directory.path().join("manifest.json")).unwrap();
    let path = Path::from("manifest.json");
    let read = tokio::time::timeout(Duration::from_secs(5), local.read(OPERATION, &path));
    let error = read.await.expect("the read hangs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert_eq!(
        error.to_string(),
        "test: something that is no file is in the place of the object (object=manifest.json)"
    );
    let size = tokio::time::timeout(Duration::from_secs(5), local.size_bytes(OPERATION, &path));
    assert_eq!(size.await.expect("the question hangs").unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(local.objects(OPERATION, &Path::default()).await.unwrap(), []);
}

#[cfg(unix)]
#[tokio::test]
async fn odd_files_hide_no_object_and_links_do_not_loop() {
    let (directory, [local, _]) = places();
    let folder = directory.path().join("backups/shop");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["a", "a#1", "b#x", "b%23x", "c c"] {
        std::fs::write(folder.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("nowhere", folder.join("dangling")).unwrap();
    std::os::unix::fs::symlink("..", folder.join("loop")).unwrap();
    std::fs::write(folder.join(std::str::from_utf8(b"\xc3\xbc").unwrap()), "u").unwrap();
    let mut objects = local.objects(OPERATION, &Path::from("backups")).await.unwrap();
    objects.sort();
    let names: Vec<_> = objects.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(
        names,
        ["backups/shop/a", "backups/shop/b#x", "backups/shop/b%23x", "backups/shop/c c", "backups/shop/ü"]
    );
    for (path, _) in &objects {
        assert!(local.size_bytes(OPERATION, path).await.is_ok(), "{path} is listed and not there");
    }
}

#[tokio::test]
async fn old_staged_files_are_removed_and_young_ones_kept() {
    let (directory, [local, _]) = places();
    let mut upload = local.store().put_multipart(&Path::from("backups/shop/x/a.bin")).await.unwrap();
    upload.put_part("abc".into()).await.unwrap();
    std::fs::write(directory.path().join("kept"), "x").unwrap();
    let before: Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
    let after: Timestamp = "2200-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(local.abort_uploads(before).await.unwrap(), 0);
    assert_eq!(local.abort_uploads(after).await.unwrap(), 1);
    assert_eq!(local.abort_uploads(after).await.unwrap(), 0);
    assert!(directory.path().join("kept").exists());
    assert!(upload.complete().await.is_err());
}

#[tokio::test]
async fn a_named_store_in_memory_is_shared_and_an_unnamed_one_is_not() {
    let path = Path::from("x");
    let first = Storage::open_or_create("memory:storage-tests-shared").await.unwrap();
    first.create(OPERATION, &path, text("1")).await.unwrap();
    let second = Storage::open("memory:storage-tests-shared").await.unwrap();
    assert_eq!(second.read(OPERATION, &path).await.unwrap(), "1");
    for url in ["memory:", "memory:storage-tests-other"] {
        let other = Storage::open_or_create(url).await.unwrap();
        assert_eq!(other.read(OPERATION, &path).await.unwrap_err().kind(), ErrorKind::NotFound, "{url}");
    }
}
