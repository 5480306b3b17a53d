//! The chain of a stack's backups: what was taken away, put in or exchanged is found.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use serde_json::{Value, json};
use stackkit_backup::manifest::Manifest;
use stackkit_backup::{BackupId, ChainFault, ChainHead, ChainReport, Repository, SigningKey, VerifyLevel};
use stackkit_core::{Clock, ErrorKind, Stack};

use crate::support::faulty::{Faulty, Plan, When};
use crate::support::shelf::Shelf;
use crate::support::{options, stack_of, text};

/// A signed repository on disk with three backups, oldest first.
struct Chain {
    directory: tempfile::TempDir,
    repository: Repository,
    key: SigningKey,
    stack: Stack,
    ids: Vec<BackupId>,
}

impl Chain {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().unwrap();
        let options = options().sign_with(key.clone());
        let repository = Repository::open_or_create(directory.path().to_str().unwrap(), options).await.unwrap();
        let stack = stack_of([Shelf::new("shelf").with("x", text(99, 1))]);
        let mut chain = Self { directory, repository, key, stack, ids: Vec::new() };
        for _ in 0..3 {
            chain.backup().await;
        }
        chain
    }

    async fn backup(&mut self) {
        self.ids.push(*self.repository.backup(&self.stack).run().await.unwrap().id());
        self.stack.clock().advance(Duration::from_secs(60));
    }

    fn folder(&self, place: usize) -> PathBuf {
        self.directory.path().join("backups/shop").join(self.ids[place].to_string())
    }

    fn remove(&self, place: usize) {
        std::fs::remove_dir_all(self.folder(place)).unwrap();
    }

    async fn check(&self) -> ChainReport {
        self.repository.check_chain("shop", None).await.unwrap()
    }

    async fn faults(&self, known: Option<&ChainHead>) -> Vec<(BackupId, ChainFault)> {
        let report = self.repository.check_chain("shop", known).await.unwrap();
        assert_eq!(report.is_ok(), report.findings.is_empty());
        report.findings.iter().map(|finding| (finding.backup, finding.fault)).collect()
    }

    /// Writes another manifest for a backup, with a right signature.
    fn forge(&self, place: usize, change: impl FnOnce(&mut Manifest)) {
        let path = self.folder(place).join("manifest.json");
        let mut manifest = Manifest::from_json(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        let text = manifest.to_json().unwrap();
        std::fs::write(path.with_file_name("manifest.sig"), self.key.sign(text.as_bytes())).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The faults that a verify of that backup tells, and whether the backup itself is whole.
    async fn verified(&self, place: usize) -> (Vec<ChainFault>, bool) {
        let report = self.repository.verify(&self.ids[place], VerifyLevel::Stored).await.unwrap();
        assert_eq!(report.is_ok(), report.chain.is_empty(), "{report}");
        (report.chain.iter().map(|finding| finding.fault).collect(), report.is_restorable())
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => assert!(std::fs::copy(&path, &target).is_ok()),
        }
    }
}

pub(crate) async fn a_whole_chain_has_no_findings() {
    let chain = Chain::new().await;
    let report = chain.check().await;
    assert!(report.is_ok(), "{report}");
    assert_eq!((report.backups, report.head.as_ref().map(|head| head.id)), (3, Some(chain.ids[2])));
    assert!(chain.faults(report.head.as_ref()).await.is_empty());
    assert_eq!(chain.verified(0).await, (vec![], true));
    // What is not a backup yet, or never became one, is no hole.
    std::fs::create_dir(chain.directory.path().join("backups/shop/20261121T061600Z-00000000")).unwrap();
    assert!(chain.check().await.is_ok());
    let none = chain.repository.check_chain("nothing", None).await.unwrap();
    assert!(none.is_ok() && none.head.is_none());
    // Two backups at once have the same one before them.
    let (a, b) = tokio::join!(chain.repository.backup(&chain.stack).run(), chain.repository.backup(&chain.stack).run());
    assert!(a.is_ok() && b.is_ok() && chain.check().await.is_ok());
}

pub(crate) async fn a_backup_that_was_taken_away_is_missed() {
    for place in [0, 1] {
        let chain = Chain::new().await;
        chain.remove(place);
        assert_eq!(chain.faults(None).await, [(chain.ids[place], ChainFault::Missing)]);
        let shown = chain.check().await.to_string();
        assert!(shown.contains(&chain.ids[place].to_string()) && shown.contains("gone"), "{shown}");
        // The others can still be restored, and say so.
        assert_eq!(chain.verified(2).await, (vec![ChainFault::Missing], true));
        // Only the manifest is as good as all of it.
        let other = Chain::new().await;
        std::fs::remove_file(other.folder(place).join("manifest.json")).unwrap();
        assert_eq!(other.faults(None).await, [(other.ids[place], ChainFault::Missing)]);
    }
}

pub(crate) async fn the_newest_is_missed_by_who_remembers_it() {
    let mut chain = Chain::new().await;
    let known = chain.check().await.head.unwrap();
    let known: ChainHead = serde_json::from_str(&serde_json::to_string(&known).unwrap()).unwrap();
    chain.remove(2);
    assert!(chain.faults(None).await.is_empty(), "nothing inside the repository can tell");
    assert_eq!(chain.faults(Some(&known)).await, [(chain.ids[2], ChainFault::RolledBack)]);
    let verify = chain.repository.verification(&chain.ids[0]).level(VerifyLevel::Stored).with_known_head(&known);
    assert_eq!(verify.run().await.unwrap().chain[0].fault, ChainFault::RolledBack);
    // A later backup does not hide it.
    chain.backup().await;
    assert_eq!(chain.faults(Some(&known)).await, [(chain.ids[2], ChainFault::RolledBack)]);
    // Neither does the newest one with another content.
    let known = chain.check().await.head.unwrap();
    chain.forge(3, |manifest| manifest.label = Some("forged".to_owned()));
    assert_eq!(chain.faults(Some(&known)).await, [(chain.ids[3], ChainFault::Replaced)]);
}

pub(crate) async fn another_manifest_of_the_same_id_is_found() {
    let chain = Chain::new().await;
    chain.forge(1, |manifest| manifest.tags.push("forged".to_owned()));
    assert_eq!(chain.faults(None).await, [(chain.ids[1], ChainFault::Replaced)]);
    assert_eq!(chain.verified(1).await, (vec![ChainFault::Replaced], false));
    assert_eq!(chain.verified(0).await, (vec![ChainFault::Replaced], true));
    assert!(!chain.repository.evidence(&chain.ids[1]).await.unwrap()[0].ok);
    assert!(chain.repository.evidence(&chain.ids[0]).await.unwrap()[0].ok);
}

pub(crate) async fn renamed_and_replayed_manifests_are_found() {
    // Under another id, the old place empty.
    let chain = Chain::new().await;
    let renamed: BackupId = "20261121T062000Z-0badcafe".parse().unwrap();
    std::fs::rename(chain.folder(1), chain.folder(1).with_file_name(renamed.to_string())).unwrap();
    assert_eq!(chain.faults(None).await, [(chain.ids[1], ChainFault::Missing), (renamed, ChainFault::Damaged)]);
    assert!(chain.repository.verify(&renamed, VerifyLevel::Stored).await.is_err());
    // The oldest one's folder in place of the newest.
    let chain = Chain::new().await;
    chain.remove(2);
    copy(&chain.folder(0), &chain.folder(2));
    assert_eq!(chain.faults(None).await, [(chain.ids[2], ChainFault::Damaged)]);
    // In another stack, and in another repository.
    let (chain, other) = (Chain::new().await, Chain::new().await);
    let stack = chain.directory.path().join("backups/other").join(chain.ids[0].to_string());
    copy(&chain.folder(0), &stack);
    let report = chain.repository.check_chain("other", None).await.unwrap();
    assert_eq!((report.findings[0].fault, report.head), (ChainFault::Damaged, None));
    let foreign = other.folder(0).with_file_name(chain.ids[0].to_string());
    copy(&chain.folder(0), &foreign);
    assert!(other.faults(None).await.contains(&(chain.ids[0], ChainFault::Damaged)));
    // A signature that is gone, or another manifest's.
    for signature in [None, Some(1)] {
        let chain = Chain::new().await;
        let path = chain.folder(2).join("manifest.sig");
        match signature {
            None => std::fs::remove_file(path).unwrap(),
            Some(place) => assert!(std::fs::copy(chain.folder(place).join("manifest.sig"), path).is_ok()),
        }
        assert_eq!(chain.faults(None).await, [(chain.ids[2], ChainFault::Damaged)]);
        assert!(chain.repository.verify(&chain.ids[2], VerifyLevel::Stored).await.is_err());
    }
}

pub(crate) async fn a_manifest_that_forgets_the_one_before_is_found() {
    let chain = Chain::new().await;
    chain.forge(2, |manifest| manifest.prev = None);
    assert_eq!(chain.faults(None).await, [(chain.ids[2], ChainFault::Unchained)]);
}

/// A document in its canonical form, signed perhaps, as `FORMAT.md` says it.
fn sealed(mut document: Value, key: Option<&SigningKey>) -> String {
    let text = |document: &Value| format!("{}\n", serde_json::to_string_pretty(document).unwrap());
    if let Some(key) = key {
        let signature: String = key.sign(text(&document).as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        document["signature"] = json!({ "ed25519": signature, "key": key.trusted().to_string() });
    }
    document["checksum"] = json!({ "blake3": blake3::hash(text(&document).as_bytes()).to_hex().to_string() });
    text(&document)
}

pub(crate) async fn a_deletion_by_a_policy_breaks_no_chain() {
    let chain = Chain::new().await;
    let stranger = SigningKey::generate().unwrap();
    let manifest = std::fs::read(chain.folder(1).join("manifest.json")).unwrap();
    let hash = blake3::hash(&manifest).to_hex().to_string();
    let (id, repository) = (chain.ids[1], chain.repository.id());
    chain.remove(1);
    let record = |repository: &str, stack: &str, hash: &str| {
        json!({ "schema": "stackkit.tombstone/1", "repository": repository, "stack": stack, "id": id,
            "manifest_blake3": hash, "prev": null, "announced": "2026-11-21T06:15:30Z",
            "purge_after": "2026-11-21T06:15:30Z", "reasons": [], "stackkit_version": "0.1.0" })
    };
    let right = record(repository, "shop", &hash);
    let path = chain.directory.path().join(format!("pruned/shop/{id}.json"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    for (text, faults) in [
        (sealed(right.clone(), Some(&chain.key)), vec![]),
        // Whoever can delete a backup can write a record too, but not sign it.
        (sealed(right.clone(), None), vec![(id, ChainFault::Missing)]),
        (sealed(right.clone(), Some(&stranger)), vec![(id, ChainFault::Missing)]),
        (sealed(record("0000000000000000", "shop", &hash), Some(&chain.key)), vec![(id, ChainFault::Missing)]),
        (sealed(record(repository, "other", &hash), Some(&chain.key)), vec![(id, ChainFault::Missing)]),
        (sealed(record(repository, "shop", "00"), Some(&chain.key)), vec![(id, ChainFault::Replaced)]),
        (sealed(right, Some(&chain.key))[1..].to_owned(), vec![(id, ChainFault::Missing)]),
        (String::new(), vec![(id, ChainFault::Missing)]),
    ] {
        std::fs::write(&path, &text).unwrap();
        assert_eq!(chain.faults(None).await, faults, "{text}");
    }
}

pub(crate) async fn a_look_at_a_stack_reads_no_other() {
    let (memory, plan) = (Arc::new(InMemory::new()), Plan::new(usize::MAX, When::Before));
    let repository =
        Repository::with_store(Arc::new(Faulty { inner: memory, plan: Arc::clone(&plan) }), options()).await.unwrap();
    let backup = |name: &str| {
        let clock = Clock::fixed("2026-11-21T06:15:30Z".parse().unwrap());
        let stack = Stack::builder(name).clock(clock).service(Shelf::new("shelf").with("x", "y")).build().unwrap();
        let repository = repository.clone();
        async move { *repository.backup(&stack).run().await.unwrap().id() }
    };
    let id = backup("shop").await;
    let calls = async || {
        let before = plan.calls();
        repository.check_chain("shop", None).await.unwrap();
        assert_eq!(repository.latest("shop").await.unwrap(), id);
        plan.calls() - before
    };
    let alone = calls().await;
    for _ in 0..5 {
        // One name is the beginning of the other.
        backup("shop-2").await;
    }
    assert_eq!(calls().await, alone);
    for odd in ["", "..", "shop/..", "../shop", "shop/"] {
        assert_eq!(repository.check_chain(odd, None).await.unwrap().backups, 0, "{odd:?}");
        assert_eq!(repository.latest(odd).await.unwrap_err().kind(), ErrorKind::NotFound, "{odd:?}");
    }
}
