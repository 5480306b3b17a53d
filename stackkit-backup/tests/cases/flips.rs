//! Every byte of every object of an encrypted, signed repository: flipped, and cut off with all that follows it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_backup::{BackupId, Repository, VerifyLevel};

use crate::support::read_only::ReadOnly;
use crate::support::shelf::Shelf;
use crate::support::{sealed, sealed_without_identity, stack_of, text};

/// Which bytes of a document are changed for a verify of stored bytes too.
const DOCUMENT_STEP: usize = 8;

/// A repository with one backup, and its readers: they leave no evidence, so that nothing grows.
struct Kept {
    store: Arc<InMemory>,
    id: BackupId,
    with_key: Repository,
    without_key: Repository,
}

impl Kept {
    async fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let repository = Repository::with_store(store.clone(), sealed()).await.unwrap();
        let stack = stack_of([Shelf::new("shelf").with("empty", "").with("item", text(60, 1))]);
        let id = *repository.backup(&stack).run().await.unwrap().id();
        let report = repository.verify(&id, VerifyLevel::Content).await.unwrap();
        assert!(report.is_ok(), "{report}");
        let reader = || Arc::new(ReadOnly(store.clone()));
        Self {
            with_key: Repository::with_store(reader(), sealed()).await.unwrap(),
            without_key: Repository::with_store(reader(), sealed_without_identity()).await.unwrap(),
            store,
            id,
        }
    }

    async fn objects(&self) -> Vec<(Path, Bytes)> {
        let paths: Vec<_> = self.store.list(None).map_ok(|object| object.location).try_collect().await.unwrap();
        let mut objects = Vec::new();
        for path in paths {
            let good = self.store.get(&path).await.unwrap().bytes().await.unwrap();
            objects.push((path, good));
        }
        objects
    }

    /// Who must find a change of the object. A change that nobody finds is a change of nothing that is believed.
    async fn is_found(&self, path: &Path, at: usize, context: &str) {
        match path.parts().next().unwrap().as_ref() {
            "verify" => {
                // Evidence that was changed is no evidence.
                assert!(self.with_key.evidence(&self.id).await.unwrap().is_empty(), "{context}: it is believed");
            }
            "canary" => {
                let opened = Repository::with_store(self.store.clone(), sealed()).await;
                assert!(opened.is_err(), "{context}: the repository opens");
            }
            _ => {
                self.verify_finds(&self.with_key, VerifyLevel::Content, context).await;
                // Documents are checked by the same code at both levels.
                if path.as_ref().ends_with(".zst.age") || at.is_multiple_of(DOCUMENT_STEP) {
                    self.verify_finds(&self.without_key, VerifyLevel::Stored, context).await;
                }
            }
        }
    }

    async fn verify_finds(&self, repository: &Repository, level: VerifyLevel, context: &str) {
        if let Ok(report) = repository.verify(&self.id, level).await {
            assert!(!report.is_ok(), "{context}: not found by {level}");
        }
    }
}

pub(crate) async fn every_byte_of_an_encrypted_repository() {
    let kept = Kept::new().await;
    let objects = kept.objects().await;
    let folders = ["stackkit.json", "README.txt", "backups", "canary", "verify"];
    for folder in folders {
        assert!(objects.iter().any(|(path, _)| path.parts().next().unwrap().as_ref() == folder), "no {folder}");
    }
    let mut changes = 0;
    for (path, good) in &objects {
        for at in 0..good.len() {
            let mut flipped = good.to_vec();
            flipped[at] ^= 1 << (at % 8);
            for (what, bytes) in [("flip", flipped), ("cut", good[..at].to_vec())] {
                kept.store.put(path, bytes.into()).await.unwrap();
                kept.is_found(path, at, &format!("{what} of byte {at} of {path}")).await;
                changes += 1;
            }
        }
        kept.store.put(path, good.clone().into()).await.unwrap();
    }
    assert!(changes > 5_000, "{changes}");
    for repository in [&kept.with_key, &kept.without_key] {
        let report = repository.verify(&kept.id, VerifyLevel::Stored).await.unwrap();
        assert!(report.is_ok(), "{report}");
    }
}
