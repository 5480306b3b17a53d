//! What a backup is, and what a failed one is not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stackkit_backup::{
    BackupEntry, EntryState, ProgressEvent, ProgressPhase, Repository, RepositoryOptions, VerifyLevel, manifest::Status,
};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::process::{Tool, is_root};
use stackkit_core::{Endpoint, ErrorKind, Service, ServiceId, Stack};

use crate::support::shelf::{Fault, SHORT_DEADLINE, Shelf};
use crate::support::{FRAME, backup_files, in_memory, local, options, stack_of, text, until};

/// What `list_all` shows.
async fn entries(repository: &Repository) -> Vec<BackupEntry> {
    repository.list_all().await.unwrap()
}

pub(crate) async fn services_are_pinned_together_and_listed() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let stack = stack_of([
        Shelf::new("database").with("dump", text(3 * FRAME, 1)),
        Shelf::new("cache").with("a", text(10, 2)).with("b", text(0, 3)),
    ]);
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let progress = move |event: &ProgressEvent| kept.lock().unwrap().push(event.clone());
    let run = repository.backup(&stack).with_tag("nightly").with_label("one").with_progress(Arc::new(progress));
    let backup = run.run().await.unwrap();

    let manifest = backup.manifest();
    assert_eq!(manifest.status, Status::Complete);
    assert_eq!((manifest.tags.as_slice(), manifest.label.as_deref()), (&["nightly".to_owned()][..], Some("one")));
    assert_eq!(manifest.services.iter().map(|service| service.id.as_str()).collect::<Vec<_>>(), ["database", "cache"]);
    let shown = backup.to_string();
    for part in ["database", "dump", "3.0 MiB", "3145728 bytes, 1 items", "points in time within"] {
        assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
    }
    {
        let events = events.lock().unwrap();
        let last_pin = events.iter().rposition(|event| matches!(event, ProgressEvent::Pinned { .. })).unwrap();
        let first_byte = events.iter().position(|event| matches!(event, ProgressEvent::Stored { .. })).unwrap();
        assert!(last_pin < first_byte, "{events:?}");
        let committed = events.iter().position(|event| *event == ProgressEvent::Committed).unwrap();
        assert!(first_byte < committed, "{events:?}");
        let done = ProgressEvent::Phase { phase: ProgressPhase::Done, expected_bytes: None };
        assert_eq!(events.last(), Some(&done));
    }
    let listed = repository.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].manifest(), Some(manifest));
    assert_eq!(repository.latest("shop").await.unwrap(), *backup.id());
    assert_eq!(repository.latest("other").await.unwrap_err().kind(), ErrorKind::NotFound);
    // A second handle sees the same, and can't write without saying how.
    let reader = Repository::open(directory.path().to_str().unwrap(), RepositoryOptions::new()).await.unwrap();
    assert_eq!(reader.list().await.unwrap().len(), 1);
    assert!(reader.verify(backup.id(), VerifyLevel::Stored).await.unwrap().is_ok());
    assert_eq!(reader.backup(&stack).run().await.unwrap_err().kind(), ErrorKind::Config);
}

pub(crate) async fn encryption_is_off_only_by_saying_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new");
    let url = path.to_str().unwrap();
    let error = Repository::open_or_create(url, RepositoryOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("encrypt_to"), "{error}");
    assert!(!path.exists());
    let missing = Repository::open(url, options()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let url = format!("file://{url}");
    let made = Repository::open_or_create(&url, options()).await.unwrap();
    let again = Repository::open_or_create(&url, options()).await.unwrap();
    assert_eq!(made.id(), again.id());
}

pub(crate) async fn somebody_elses_folder_does_not_become_a_repository() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("README.txt"), "mine").unwrap();
    let error = Repository::open_or_create(directory.path().to_str().unwrap(), options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(directory.path().join("README.txt")).unwrap(), b"mine");
    assert!(!directory.path().join("stackkit.json").exists());
}

pub(crate) async fn an_artifact_that_is_dropped_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let shelf = Shelf::new("shelf").with("a", text(3 * FRAME, 1)).with("b", text(FRAME, 2));
    let stack = stack_of([shelf.with_fault(Fault::DropsTheFirstWriter)]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let artifacts = &backup.manifest().services[0].artifacts;
    assert_eq!(artifacts.iter().map(|artifact| artifact.spec.name.as_str()).collect::<Vec<_>>(), ["b"]);
    until("only b and the manifest are left", || backup_files(directory.path()).len() == 2).await;
}

pub(crate) async fn order_is_the_manifests_within_a_second() {
    let repository = in_memory().await;
    let stack = stack_of([Shelf::new("shelf").with("item", text(10, 1))]);
    let mut expected = Vec::new();
    for _ in 0..8 {
        expected.insert(0, *repository.backup(&stack).run().await.unwrap().id());
        stack.clock().advance(Duration::from_millis(20));
    }
    let listed: Vec<_> = repository.list().await.unwrap().iter().map(|entry| entry.id).collect();
    assert_eq!(listed, expected);
}

pub(crate) async fn a_failing_service_fails_the_backup_and_is_named() {
    for (fault, kind) in [
        (Fault::BeginFails, ErrorKind::Unreachable),
        (Fault::BeginHangs, ErrorKind::Timeout),
        (Fault::RunFailsAtTheEnd, ErrorKind::ToolFailed),
        (Fault::FinishesTwoOfTheSameName, ErrorKind::AlreadyExists),
        (Fault::WritesNothing, ErrorKind::Unexpected),
        (Fault::BeginPanics, ErrorKind::Unexpected),
        (Fault::RunPanics, ErrorKind::Unexpected),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let repository = local(directory.path()).await;
        let good = Shelf::new("good").with("item", text(3 * FRAME, 1));
        let bad = Shelf::new("bad").with("item", text(3 * FRAME, 2)).with_fault(fault);
        let stack = stack_of([good, bad]);
        let error = repository.backup(&stack).with_begin_deadline(SHORT_DEADLINE).run().await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.service().map(ServiceId::as_str), Some("bad"), "{error}");
        assert_eq!(backup_files(directory.path()), [] as [std::path::PathBuf; 0], "{fault:?}");
        assert!(entries(&repository).await.is_empty());
    }
}

pub(crate) async fn a_partial_backup_keeps_what_succeeded() {
    for fault in [Fault::BeginFails, Fault::RunFailsAtTheEnd, Fault::BeginPanics, Fault::RunPanics] {
        let directory = tempfile::tempdir().unwrap();
        let repository = local(directory.path()).await;
        let good = Shelf::new("good").with("item", text(3 * FRAME, 1));
        let bad = Shelf::new("bad").with("item", text(3 * FRAME, 2)).with_fault(fault);
        let stack = stack_of([good, bad.clone()]);
        let backup = repository.backup(&stack).partial().run().await.unwrap();
        assert!(backup.is_partial());
        assert!(backup.manifest().services[1].error.is_some());
        assert_eq!(backup_files(directory.path()).len(), 2, "one artifact and the manifest");
        assert_eq!(repository.latest("shop").await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(repository.verify(backup.id(), VerifyLevel::Content).await.unwrap().is_ok());
        // Nothing that succeeded is no backup.
        let error = repository.backup(&stack_of([bad])).partial().run().await.unwrap_err();
        assert_eq!(error.service().map(ServiceId::as_str), Some("bad"));
    }
}

pub(crate) async fn chosen_services_must_exist_and_be_datastores() {
    #[derive(Debug)]
    struct Plain(ServiceId);
    impl Service for Plain {
        fn id(&self) -> &ServiceId {
            &self.0
        }
        fn kind(&self) -> &'static str {
            "plain"
        }
        fn endpoint(&self) -> Endpoint {
            Endpoint::local("none", "/")
        }
    }
    let repository = in_memory().await;
    let plain = || Plain(ServiceId::new("plain").unwrap());
    let stack = Stack::builder("shop").service(plain()).service(Shelf::new("shelf").with("x", "y")).build().unwrap();
    let kind = async |id: &str| repository.backup(&stack).only([id]).run().await.map_err(|e| e.kind());
    assert_eq!(kind("nothing").await, Err(ErrorKind::NotFound));
    assert_eq!(kind("plain").await, Err(ErrorKind::Unsupported));
    assert_eq!(kind("shelf").await.unwrap().manifest().services.len(), 1);
    let reserved = stack_of([Shelf::new("manifest.json").with("x", "y")]);
    assert_eq!(repository.backup(&reserved).run().await.unwrap_err().kind(), ErrorKind::Config);
    let empty = Stack::builder("shop").service(plain()).build().unwrap();
    assert_eq!(repository.backup(&empty).run().await.unwrap_err().kind(), ErrorKind::Config);
}

pub(crate) async fn a_cancelled_backup_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let good = Shelf::new("good").with("item", text(FRAME, 1));
    let bad = Shelf::new("bad").with("item", text(3 * FRAME, 2)).with_fault(Fault::RunHangsHalfway);
    let stack = stack_of([good, bad]);
    {
        let mut run = Box::pin(repository.backup(&stack).run());
        let started = until("both services write", || backup_files(directory.path()).len() == 2);
        tokio::select! {
            ended = &mut run => panic!("the backup ended: {ended:?}"),
            () = started => {}
        }
    }
    until("the staged files are gone", || backup_files(directory.path()).is_empty()).await;
    assert!(entries(&repository).await.is_empty());
    let error = repository.backup(&stack).with_deadline(SHORT_DEADLINE).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(backup_files(directory.path()).is_empty());
}

pub(crate) async fn what_a_killed_backup_leaves_is_no_backup() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let stack = stack_of([Shelf::new("shelf").with("item", text(10, 1))]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let folder = directory.path().join("backups/shop");
    let killed = folder.join("20261122T061530Z-9f3a1c02");
    std::fs::create_dir_all(killed.join("shelf")).unwrap();
    std::fs::write(killed.join("shelf/item.zst#1"), b"half").unwrap();
    std::fs::write(killed.join("manifest.json#1"), b"{").unwrap();
    std::fs::create_dir_all(folder.join("not-an-id")).unwrap();
    let ids: Vec<_> = repository.list().await.unwrap().iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [*backup.id()]);
    let all = entries(&repository).await;
    assert!(matches!(all[0].state, EntryState::Incomplete), "{}", all[0]);
    assert_eq!(repository.latest("shop").await.unwrap(), *backup.id());
    stack.clock().advance(Duration::from_secs(1));
    repository.backup(&stack).run().await.unwrap();
    assert_eq!(repository.list().await.unwrap().len(), 2);
}

pub(crate) async fn what_others_put_beside_the_backups_hides_none() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let shelf = Shelf::new("shelf").with("item", text(10, 1));
    let stack = stack_of([shelf.clone()]);
    let backup = repository.backup(&stack).run().await.unwrap();
    for folder in [directory.path().join("backups"), directory.path().join("backups/shop")] {
        std::fs::create_dir(folder.join(std::ffi::OsStr::from_bytes(b"\xff\xfe"))).unwrap();
        std::fs::create_dir(folder.join("two words %2F")).unwrap();
        std::fs::write(folder.join("two\nlines"), "").unwrap();
        std::os::unix::fs::symlink("loop", folder.join("loop")).unwrap();
    }
    let ids: Vec<_> = entries(&repository).await.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [*backup.id()]);
    assert_eq!(repository.latest("shop").await.unwrap(), *backup.id());
    assert!(repository.verify(backup.id(), VerifyLevel::Content).await.unwrap().is_ok());
    let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    repository.apply_restore(plan, &stack).await.unwrap();
}

/// Why the disk can't be filled here, if it can't.
pub(crate) fn no_full_disk() -> Option<&'static str> {
    (!is_root()).then_some("only root can mount a small tmpfs")
}

pub(crate) async fn a_full_disk_is_io_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("small");
    std::fs::create_dir(&target).unwrap();
    let run = async |tool: Tool| tool.spawn().unwrap().wait().await.unwrap();
    run(Tool::new("/usr/bin/mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(&target)).await;
    let mounted = tokio::spawn(fill(target.clone())).await;
    run(Tool::new("/usr/bin/umount").arg(&target)).await;
    mounted.unwrap();
}

async fn fill(target: std::path::PathBuf) {
    let repository = local(&target).await;
    let small = stack_of([Shelf::new("shelf").with("item", text(FRAME, 1))]);
    let first = repository.backup(&small).run().await.unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(16 * FRAME).collect();
    let large = Shelf::new("shelf").with("item", noise.clone());
    let error = repository.backup(&stack_of([large.clone()])).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(large.items()["item"], noise, "the service is untouched");
    let ids: Vec<_> = entries(&repository).await.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [*first.id()]);
    assert_eq!(backup_files(&target).len(), 2, "{:?}", backup_files(&target));
    small.clock().advance(Duration::from_secs(1));
    repository.backup(&small).run().await.unwrap();
}
