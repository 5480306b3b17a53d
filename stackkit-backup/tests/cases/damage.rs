//! Damage of a repository is found, named and located; nothing is restored from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_backup::{Backup, BackupId, EntryState, Repository, VerifyLevel, VerifyReport};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::{ErrorKind, Result, Stack};

use crate::support::shelf::Shelf;
use crate::support::{FRAME, local, options, stack_of, text};

/// A repository on disk with one backup of one shelf.
struct Kept {
    directory: tempfile::TempDir,
    repository: Repository,
    shelf: Shelf,
    stack: Stack,
    backup: Backup,
}

impl Kept {
    async fn new(shelf: Shelf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = local(directory.path()).await;
        let stack = stack_of([shelf.clone()]);
        let backup = repository.backup(&stack).run().await.unwrap();
        Self { directory, repository, shelf, stack, backup }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join("backups/shop").join(self.backup.id().to_string()).join(below)
    }

    /// Opens the repository anew, as a verify of another day would.
    async fn verify(&self, level: VerifyLevel) -> Result<VerifyReport> {
        let repository = Repository::open(self.directory.path().to_str().unwrap(), options()).await?;
        repository.verify(self.backup.id(), level).await
    }

    /// The offset, the frame and the text of the only finding about `artifact`.
    async fn only_finding(&self, artifact: &str, level: VerifyLevel) -> (Option<u64>, Option<u64>, String) {
        let report = self.verify(level).await.unwrap();
        assert!(!report.is_ok());
        let verdicts: Vec<_> = report.artifacts.iter().filter(|verdict| !verdict.findings.is_empty()).collect();
        assert_eq!(verdicts.len(), 1, "{report}");
        assert_eq!((verdicts[0].artifact.as_str(), verdicts[0].findings.len()), (artifact, 1), "{report}");
        let finding = verdicts[0].findings[0].clone();
        assert!(report.to_string().contains(&finding.to_string()));
        (finding.offset, finding.frame, finding.message)
    }

    /// The restore is refused before the store is touched.
    async fn refuses_to_restore(&self) {
        let before = self.shelf.items();
        let plan = self.repository.plan_restore(self.backup.id(), &self.stack, &RestoreOptions::new()).await;
        let error = match plan {
            Ok(plan) => self.repository.apply_restore(plan, &self.stack).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(error.kind(), ErrorKind::Integrity | ErrorKind::NotFound), "{error}");
        assert_eq!(self.shelf.content.restores.load(std::sync::atomic::Ordering::SeqCst), 0);
        assert_eq!(self.shelf.items(), before);
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Every byte of every object, once flipped and once cut off with all that follows it.
pub(crate) async fn every_flip_and_every_cut_is_found() {
    let store = Arc::new(InMemory::new());
    let repository = Repository::with_store(store.clone(), options()).await.unwrap();
    let stack = stack_of([Shelf::new("shelf").with("empty", "").with("item", text(60, 1))]);
    let id = *repository.backup(&stack).run().await.unwrap().id();
    let objects: Vec<_> = store.list(None).map_ok(|object| object.location).try_collect().await.unwrap();
    assert_eq!(objects.len(), 5);
    for path in objects {
        let good = store.get(&path).await.unwrap().bytes().await.unwrap();
        for at in 0..good.len() {
            for (number, bytes) in changes(&good, at).into_iter().enumerate() {
                store.put(&path, bytes.into()).await.unwrap();
                let context = format!("{path}: change {number} of byte {at}");
                is_found(&repository, &id, path.filename().unwrap(), &context).await;
            }
        }
        store.put(&path, good.into()).await.unwrap();
    }
    assert!(repository.verify(&id, VerifyLevel::Content).await.unwrap().is_ok());
}

/// Each bit flipped, and the end cut off. Of a document one bit is enough: its canonical form has its own test.
fn changes(good: &[u8], at: usize) -> Vec<Vec<u8>> {
    let bits = if good.starts_with(b"{") || good.is_ascii() { at % 8..at % 8 + 1 } else { 0..8 };
    let flipped = bits.map(|bit| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1 << bit;
        bytes
    });
    flipped.chain([good[..at].to_vec()]).collect()
}

/// The report, or the error that there can't be one, names the object; an artifact's finding has an offset.
async fn is_found(repository: &Repository, id: &BackupId, name: &str, context: &str) {
    let named = match repository.verify(id, VerifyLevel::Content).await {
        Err(error) => error.to_string(),
        Ok(report) => {
            assert!(!report.is_ok(), "{context} was not found");
            report.to_string()
        }
    };
    assert!(named.contains(name.trim_end_matches(".zst")), "{context}: {named}");
    if name.ends_with(".zst") {
        let report = repository.verify(id, VerifyLevel::Stored).await.unwrap();
        let findings: Vec<_> = report.artifacts.iter().flat_map(|verdict| &verdict.findings).collect();
        assert!(findings.len() == 1 && findings[0].offset.is_some(), "{context}: {report}");
    }
}

pub(crate) async fn damage_is_located_by_its_frame() {
    let kept = Kept::new(Shelf::new("shelf").with("item", text(4 * FRAME + 9, 1)).with("other", text(9, 2))).await;
    let path = kept.path("shelf/item.zst");
    let good = std::fs::read(&path).unwrap();
    let item = kept.backup.manifest().services[0].artifacts[0].clone();
    assert_eq!((item.spec.name.as_str(), item.frames.count), ("item", 5));
    let entry = |frame: usize| {
        let at = usize::try_from(item.frames.index_offset).unwrap() + 8 + 8 * frame;
        u64::from(u32::from_le_bytes(good[at..at + 4].try_into().unwrap()))
    };
    let start = |frame: usize| (0..frame).map(entry).sum::<u64>();
    for level in [VerifyLevel::Stored, VerifyLevel::Content] {
        for frame in 0..5 {
            for inside in [0, entry(frame) / 2, entry(frame) - 1] {
                flip(&path, usize::try_from(start(frame) + inside).unwrap());
                let (offset, number, message) = kept.only_finding("item", level).await;
                assert_eq!((offset, number), (Some(start(frame)), Some(frame as u64)), "{message}");
                if (frame, inside) == (2, 0) {
                    kept.refuses_to_restore().await;
                }
                std::fs::write(&path, &good).unwrap();
            }
        }
        // Cut inside the third frame, inside the index, and after the last frame.
        for (left, at, frame) in [
            (start(2) + 5, start(2), Some(2)),
            (item.stored.bytes - 1, item.frames.index_offset, None),
            (item.frames.index_offset, item.frames.index_offset, None),
            (0, 0, Some(0)),
        ] {
            std::fs::write(&path, &good[..usize::try_from(left).unwrap()]).unwrap();
            let (offset, number, message) = kept.only_finding("item", level).await;
            assert_eq!((offset, number), (Some(at), frame), "{message}");
            assert!(message.contains("cut"), "{message}");
            kept.refuses_to_restore().await;
        }
        std::fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert_eq!(kept.only_finding("item", level).await.0, Some(item.stored.bytes));
        std::fs::remove_file(&path).unwrap();
        let (offset, _, message) = kept.only_finding("item", level).await;
        assert_eq!((offset, message.as_str()), (None, "the object is missing"));
        kept.refuses_to_restore().await;
        std::fs::write(&path, &good).unwrap();
    }
    assert!(kept.verify(VerifyLevel::Content).await.unwrap().is_ok());
}

pub(crate) async fn swapped_objects_are_found() {
    let kept = Kept::new(Shelf::new("shelf").with("a", text(FRAME, 1)).with("b", text(FRAME, 2))).await;
    let (a, b, spare) = (kept.path("shelf/a.zst"), kept.path("shelf/b.zst"), kept.path("spare"));
    std::fs::rename(&a, &spare).unwrap();
    std::fs::rename(&b, &a).unwrap();
    std::fs::rename(&spare, &b).unwrap();
    for level in [VerifyLevel::Stored, VerifyLevel::Content] {
        let report = kept.verify(level).await.unwrap();
        assert!(report.artifacts.iter().all(|verdict| !verdict.findings.is_empty()), "{report}");
    }
    kept.refuses_to_restore().await;
}

pub(crate) async fn a_damaged_or_foreign_manifest_is_listed_as_such() {
    let kept = Kept::new(Shelf::new("shelf").with("item", text(10, 1))).await;
    kept.stack.clock().advance(std::time::Duration::from_secs(1));
    let newer = kept.repository.backup(&kept.stack).run().await.unwrap();
    let newer = kept.directory.path().join("backups/shop").join(newer.id().to_string()).join("manifest.json");
    let good = std::fs::read_to_string(&newer).unwrap();
    let replayed = std::fs::read_to_string(kept.path("manifest.json")).unwrap();
    let edited = good.replace("\"complete\"", "\"partial\"");
    let later = good.replace("stackkit.manifest/1", "stackkit.manifest/2");
    for (text, kind) in [
        (replayed.as_str(), ErrorKind::Integrity),
        (edited.as_str(), ErrorKind::Integrity),
        (&good[..good.len() / 2], ErrorKind::Integrity),
        ("", ErrorKind::Integrity),
        (later.as_str(), ErrorKind::Incompatible),
    ] {
        std::fs::write(&newer, text).unwrap();
        let listed = kept.repository.list().await.unwrap();
        assert_eq!(listed.len(), 2);
        match &listed[0].state {
            EntryState::Damaged(error) => assert_eq!(error.kind(), kind, "{error}"),
            other => panic!("{other:?}"),
        }
        assert!(listed[0].to_string().contains("damaged"));
        // Which one to trust instead is the caller's to say.
        assert_eq!(kept.repository.latest("shop").await.unwrap_err().kind(), ErrorKind::Integrity);
        assert_eq!(kept.repository.verify(&listed[0].id, VerifyLevel::Stored).await.unwrap_err().kind(), kind);
        assert!(kept.repository.verify(&listed[1].id, VerifyLevel::Content).await.unwrap().is_ok());
    }
    std::fs::write(&newer, good).unwrap();
    assert!(kept.repository.latest("shop").await.is_ok());
}

pub(crate) async fn a_later_repository_is_incompatible() {
    let kept = Kept::new(Shelf::new("shelf").with("item", "x")).await;
    let path = kept.directory.path().join("stackkit.json");
    let later = std::fs::read_to_string(&path).unwrap().replace("stackkit.repository/1", "stackkit.repository/2");
    std::fs::write(&path, later).unwrap();
    let url = kept.directory.path().to_str().unwrap();
    assert_eq!(Repository::open(url, options()).await.unwrap_err().kind(), ErrorKind::Incompatible);
    assert_eq!(Repository::open_or_create(url, options()).await.unwrap_err().kind(), ErrorKind::Incompatible);
}

/// A backup is one of its repository and its stack; a copy elsewhere is no other backup, and does no harm to the first.
pub(crate) async fn a_copied_backup_is_none() {
    let kept = Kept::new(Shelf::new("shelf").with("item", text(10, 1))).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = local(elsewhere.path()).await;
    let id = kept.backup.id().to_string();
    // Before and after its own in the order of names, whatever the order of the file system is.
    let copies = ["a", "zz"].map(|stack| kept.directory.path().join("backups").join(stack).join(&id));
    for copy in copies.iter().chain([&elsewhere.path().join("backups/shop").join(&id)]) {
        std::fs::create_dir_all(copy).unwrap();
        std::fs::copy(kept.path("manifest.json"), copy.join("manifest.json")).unwrap();
    }
    let listed = kept.repository.list().await.unwrap();
    let damaged: Vec<_> = listed.iter().filter(|entry| matches!(entry.state, EntryState::Damaged(_))).collect();
    assert_eq!((listed.len(), damaged.len()), (3, 2));
    assert!(damaged.iter().all(|entry| entry.stack != "shop"));
    assert_eq!(kept.repository.latest("shop").await.unwrap(), *kept.backup.id());
    assert!(kept.verify(VerifyLevel::Content).await.unwrap().is_ok());
    let error = other.verify(kept.backup.id(), VerifyLevel::Stored).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
}
