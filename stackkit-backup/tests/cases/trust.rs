//! Signatures, the chain, encrypted manifests and the canary: who is believed, and who can read.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_backup::{
    Backup, EntryState, EvidenceState, Identity, Repository, RepositoryOptions, Retention, SignatureState, SigningKey,
    VerifyLevel,
};
use stackkit_core::ErrorKind;
use stackkit_core::backup::RestoreOptions;
use stackkit_core::process::Tool;

use crate::support::faulty::{Faulty, Plan, When};
use crate::support::shelf::Shelf;
use crate::support::{options, stack_of, text};

async fn open(store: &Arc<InMemory>, options: RepositoryOptions) -> Repository {
    Repository::with_store(Arc::clone(store) as Arc<dyn ObjectStore>, options).await.unwrap()
}

async fn back_up(repository: &Repository) -> Backup {
    repository.backup(&stack_of([Shelf::new("books").with("titles", text(3000, 1))])).run().await.unwrap()
}

fn object(backup: &Backup, name: &str) -> object_store::path::Path {
    format!("backups/shop/{}/{name}", backup.id()).into()
}

async fn bytes(store: &Arc<InMemory>, path: &object_store::path::Path) -> Vec<u8> {
    store.get(path).await.unwrap().bytes().await.unwrap().to_vec()
}

/// What a reader with these options says of a backup: in the list, and when it is asked for.
async fn judged(store: &Arc<InMemory>, options: RepositoryOptions, backup: &Backup) -> (bool, Option<ErrorKind>) {
    let repository = open(store, options).await;
    let entries = repository.list().await.unwrap();
    let entry = entries.iter().find(|entry| entry.id == *backup.id()).unwrap();
    let listed = matches!(entry.state, EntryState::Ready(_));
    let verified = repository.verify(backup.id(), VerifyLevel::Stored).await;
    (listed, verified.err().map(|error| error.kind()))
}

pub(crate) async fn only_a_trusted_key_is_believed() {
    let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let store = Arc::new(InMemory::new());
    let signed = back_up(&open(&store, options().sign_with(key.clone())).await).await;
    let foreign = back_up(&open(&store, options().sign_with(other.clone())).await).await;
    let unsigned = back_up(&open(&store, options()).await).await;
    let refused = Some(ErrorKind::Integrity);

    let owner = || options().trust(key.trusted());
    assert_eq!(judged(&store, owner(), &signed).await, (true, None));
    assert_eq!(judged(&store, owner(), &foreign).await, (false, refused));
    assert_eq!(judged(&store, owner(), &unsigned).await, (false, refused));

    let both = || owner().trust(other.trusted());
    assert_eq!(judged(&store, both(), &foreign).await, (true, None));

    // Nobody is trusted: the list shows what is there, and nothing of a signed repository is used unasked.
    for backup in [&signed, &foreign, &unsigned] {
        assert_eq!(judged(&store, options(), backup).await, (true, refused));
        assert_eq!(judged(&store, owner().accept_untrusted(), backup).await, (true, None));
    }

    let repository = open(&store, owner()).await;
    let plan = repository.plan_restore(foreign.id(), &stack_of([Shelf::new("books")]), &RestoreOptions::new()).await;
    assert_eq!(plan.unwrap_err().kind(), ErrorKind::Integrity);
    let entries = open(&store, options()).await.list().await.unwrap();
    let state = entries.iter().find(|entry| entry.id == *signed.id()).unwrap().signature;
    assert_eq!(state, Some(SignatureState::NotJudged(key.trusted())));
}

pub(crate) async fn a_signature_that_is_changed_or_gone_is_damage() {
    let key = SigningKey::generate().unwrap();
    let store = Arc::new(InMemory::new());
    let repository = open(&store, options().sign_with(key)).await;
    let backup = back_up(&repository).await;
    let path = object(&backup, "manifest.sig");
    let signature = bytes(&store, &path).await;
    assert_eq!(signature.len(), 64);
    let mut flipped = signature.clone();
    flipped[10] ^= 1;
    for wrong in [flipped, signature[..63].to_vec(), Vec::new()] {
        store.put(&path, wrong.into()).await.unwrap();
        assert_eq!(repository.manifest(backup.id()).await.unwrap_err().kind(), ErrorKind::Integrity);
    }
    store.delete(&path).await.unwrap();
    let error = repository.manifest(backup.id()).await.unwrap_err();
    assert!(error.to_string().contains("signature of the manifest is missing"), "{error}");
    store.put(&path, signature.into()).await.unwrap();
    repository.manifest(backup.id()).await.unwrap();
}

pub(crate) async fn a_newest_backup_that_is_not_trusted_is_not_passed_over_in_silence() {
    let key = SigningKey::generate().unwrap();
    let store = Arc::new(InMemory::new());
    let stack = stack_of([Shelf::new("books").with("titles", text(10, 1))]);
    let owner = open(&store, options().sign_with(key)).await;
    let signed = owner.backup(&stack).run().await.unwrap();
    assert_eq!(owner.latest("shop").await.unwrap(), *signed.id());
    stack.clock().advance(std::time::Duration::from_secs(60));
    open(&store, options()).await.backup(&stack).run().await.unwrap();
    assert_eq!(owner.latest("shop").await.unwrap_err().kind(), ErrorKind::Integrity);
}

/// An announcement that nobody believes would only stand in the way of the next one.
pub(crate) async fn a_deletion_in_a_signed_repository_must_be_signed() {
    let key = SigningKey::generate().unwrap();
    let store = Arc::new(InMemory::new());
    let signing = open(&store, options().sign_with(key.clone())).await;
    let stack = stack_of([Shelf::new("books").with("titles", text(10, 1))]);
    for _ in 0..2 {
        signing.backup(&stack).run().await.unwrap();
        stack.clock().advance(std::time::Duration::from_secs(60));
    }
    let policy = Retention::new().keep_last(1);
    let reading = open(&store, options().trust(key.trusted())).await;
    let plan = reading.plan_retention(&policy).await.unwrap();
    assert_eq!(plan.deletions().count(), 1);
    assert_eq!(reading.apply_retention(plan).await.unwrap_err().kind(), ErrorKind::Config);
    let id = signing.latest("shop").await.unwrap();
    let unsigned = reading.verify(&id, VerifyLevel::Content).await.unwrap().evidence;
    assert!(matches!(unsigned, EvidenceState::Unsigned(_)), "{unsigned:?}");

    let signed = signing.verify(&id, VerifyLevel::Content).await.unwrap().evidence;
    assert!(matches!(signed, EvidenceState::Recorded(_)), "{signed:?}");
    let plan = signing.plan_retention(&policy).await.unwrap();
    signing.apply_retention(plan).await.unwrap();
    assert_eq!(reading.list().await.unwrap().len(), 1);
}

pub(crate) async fn each_manifest_names_the_one_before() {
    let store = Arc::new(InMemory::new());
    let repository = open(&store, options()).await;
    let stack = stack_of([Shelf::new("books").with("titles", text(10, 1))]);
    let first = repository.backup(&stack).run().await.unwrap();
    stack.clock().advance(std::time::Duration::from_secs(60));
    let second = repository.backup(&stack).run().await.unwrap();
    assert_eq!(first.manifest().prev, None);
    let prev = second.manifest().prev.clone().unwrap();
    let hash = blake3::hash(&bytes(&store, &object(&first, "manifest.json")).await).to_hex().to_string();
    assert_eq!((prev.id, prev.manifest_blake3), (*first.id(), hash));
}

pub(crate) async fn an_encrypted_manifest_shows_only_what_is_needed_without_a_key() {
    let identity = Identity::generate().unwrap();
    let recipient = identity.recipients().remove(0);
    let writer = || RepositoryOptions::new().encrypt_to(recipient).encrypt_manifest();
    let store = Arc::new(InMemory::new());
    let backup = back_up(&open(&store, writer()).await).await;
    let whole = backup.manifest().clone();
    assert!(!whole.is_sealed() && whole.services[0].census.is_some());

    let public = bytes(&store, &object(&backup, "manifest.json")).await;
    let public = String::from_utf8(public).unwrap();
    let artifact = &whole.services[0].artifacts[0];
    assert!(!artifact.spec.restore_command.is_empty());
    for hidden in [&artifact.spec.restore_command, &artifact.plain.blake3, &whole.services[0].endpoint] {
        assert!(!public.contains(hidden.as_str()), "{hidden} in {public}");
    }
    let blind = open(&store, writer()).await;
    assert!(blind.manifest(backup.id()).await.unwrap().is_sealed());
    assert!(blind.verify(backup.id(), VerifyLevel::Stored).await.unwrap().is_ok());
    let seeing = blind.clone().with_identity(identity.clone());
    assert_eq!(seeing.manifest(backup.id()).await.unwrap(), whole);

    let stranger = blind.clone().with_identity(Identity::generate().unwrap());
    assert_ne!(stranger.manifest(backup.id()).await.unwrap_err().kind(), ErrorKind::Integrity);
    let path = object(&backup, "manifest.json.age");
    let mut sealed = bytes(&store, &path).await;
    *sealed.last_mut().unwrap() ^= 1;
    store.put(&path, sealed.into()).await.unwrap();
    assert_eq!(seeing.manifest(backup.id()).await.unwrap_err().kind(), ErrorKind::Integrity);
}

pub(crate) async fn a_key_that_does_not_fit_is_found_when_the_repository_is_opened() {
    let (identity, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let encrypted = || RepositoryOptions::new().encrypt_to(identity.recipients().remove(0));
    let store = Arc::new(InMemory::new());
    open(&store, encrypted()).await;
    open(&store, encrypted().with_identity(identity.clone())).await;
    let refused = |options| Repository::with_store(Arc::clone(&store) as Arc<dyn ObjectStore>, options);
    let error = refused(encrypted().with_identity(other.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert_eq!(refused(options()).await.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(refused(RepositoryOptions::new()).await.unwrap_err().kind(), ErrorKind::Config);
    // Recipients may change; whoever is among them reads what is written from then on.
    open(&store, encrypted().encrypt_to(other.recipients().remove(0)).with_identity(other)).await;
}

/// The signature is checked by a tool that knows nothing of this project.
pub(crate) async fn openssl_checks_a_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let openssl = || Tool::new("/usr/bin/openssl");
    let make = openssl().args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(at("key.pem"));
    make.spawn().unwrap().wait().await.unwrap();
    let key = SigningKey::from_file(at("key.pem")).unwrap();
    std::fs::write(at("trust.pem"), key.trusted().to_pem()).unwrap();
    let url = at("repository");
    let repository = Repository::open_or_create(url.to_str().unwrap(), options().sign_with(key)).await.unwrap();
    let folder = url.join("backups/shop").join(back_up(&repository).await.id().to_string());
    let check = async |manifest: PathBuf| {
        let tool = openssl().args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]).arg(at("trust.pem"));
        tool.arg("-in").arg(manifest).arg("-sigfile").arg(folder.join("manifest.sig")).spawn().unwrap().wait().await
    };
    check(folder.join("manifest.json")).await.unwrap();
    check(url.join("stackkit.json")).await.unwrap_err();
}

pub(crate) async fn a_cache_gives_what_the_storage_gives_and_is_never_believed() {
    let (store, directory) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let key = SigningKey::generate().unwrap();
    let cached = open(&store, options().sign_with(key).with_cache(directory.path())).await;
    let backup = back_up(&cached).await;
    let ids = |entries: Vec<stackkit_backup::BackupEntry>| {
        entries.iter().map(|entry| (entry.id, entry.is_complete())).collect::<Vec<_>>()
    };
    assert_eq!(ids(cached.list().await.unwrap()), [(*backup.id(), true)]);
    let files = crate::support::files(directory.path());
    assert_eq!(files.len(), 1);
    assert_eq!(ids(cached.list().await.unwrap()), [(*backup.id(), true)]);

    // A damaged entry is read again from the storage; a foreign one is not believed.
    std::fs::write(&files[0], b"damaged").unwrap();
    assert_eq!(ids(cached.list().await.unwrap()), [(*backup.id(), true)]);
    assert_ne!(std::fs::read(&files[0]).unwrap(), b"damaged");

    // A manifest that changed is another object for the cache, and what is gone leaves it.
    let path = object(&backup, "manifest.json");
    let manifest = bytes(&store, &path).await;
    store.put(&path, manifest[1..].to_vec().into()).await.unwrap();
    assert_eq!(ids(cached.list().await.unwrap()), [(*backup.id(), false)]);
    store.delete(&path).await.unwrap();
    assert_eq!(ids(cached.list().await.unwrap()), []);
    assert_eq!(crate::support::files(directory.path()).len(), 0);
}

pub(crate) async fn a_listing_with_a_cache_reads_only_what_is_new() {
    let (plan, directory) = (Plan::new(usize::MAX, When::Before), tempfile::tempdir().unwrap());
    let store = Arc::new(Faulty { inner: Arc::new(InMemory::new()), plan: Arc::clone(&plan) });
    let key = SigningKey::generate().unwrap();
    let options = options().sign_with(key).with_cache(directory.path());
    let repository = Repository::with_store(store, options).await.unwrap();
    for _ in 0..3 {
        back_up(&repository).await;
    }
    let listed = async |expected: usize| {
        let before = plan.calls();
        assert_eq!(repository.list().await.unwrap().len(), expected);
        plan.calls() - before
    };
    assert_eq!(listed(3).await, 1 + 3 * 2, "one listing; of each backup the manifest and its signature");
    assert_eq!(listed(3).await, 1, "one listing");
    back_up(&repository).await;
    assert_eq!(listed(4).await, 1 + 2, "one listing, and what is new");
}
