//! Encrypted repositories.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_backup::{Backup, Identity, Recipient, Repository, RepositoryOptions, VerifyLevel};
use stackkit_core::ErrorKind;
use stackkit_core::backup::{ArtifactName, ArtifactSource, RestoreOptions};
use stackkit_core::process::Tool;
use tokio::io::AsyncReadExt;

use crate::support::faulty::{Faulty, Plan, When};
use crate::support::shelf::Shelf;
use crate::support::{FRAME, files, noise, stack_of, text};

/// Bytes of a chunk of age, and with its tag.
const CHUNK: usize = 64 << 10;
const SEALED: usize = CHUNK + 16;

/// Bytes of a header for one recipient, and of the nonce behind it.
const HEAD: usize = 184;

/// The tools of the vendors, where they are installed.
const AGE: &str = "/usr/bin/age";
const AGE_KEYGEN: &str = "/usr/bin/age-keygen";
const ZSTD: &str = "/usr/bin/zstd";

/// Why the vendors' tools can't be asked, if they can't.
pub(crate) fn no_tools() -> Option<&'static str> {
    let missing = [AGE, AGE_KEYGEN, ZSTD].iter().any(|tool| !Path::new(tool).exists());
    (missing && !stackkit_fixtures::is_required("age"))
        .then_some("age or zstd is not installed: cargo xtask servers age")
}

fn identity() -> Identity {
    Identity::generate().unwrap()
}

fn options_for(identity: &Identity) -> RepositoryOptions {
    let to = identity.recipients().into_iter();
    to.fold(RepositoryOptions::new(), RepositoryOptions::encrypt_to)
}

async fn in_memory(identity: &Identity) -> (Arc<dyn ObjectStore>, Repository) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = Repository::with_store(Arc::clone(&store), options_for(identity)).await.unwrap();
    (store, repository)
}

/// What is read in the order of a shelf: sizes at which frames and chunks begin and end, with bytes that do not compress.
fn shelf_of_edges() -> Shelf {
    let frames = [0, 1, FRAME, FRAME + 1, 2 * FRAME + 17];
    // With the frame's own bytes and the index some of these end a chunk to the byte.
    let chunks = (CHUNK - 64)..=CHUNK + 4;
    let sizes = frames.into_iter().chain(chunks);
    sizes.fold(Shelf::new("shelf"), |shelf, size| shelf.with(&format!("s{size}"), noise(size, size as u64)))
}

pub(crate) async fn all_sizes_survive() {
    let identity = identity();
    let (_, repository) = in_memory(&identity).await;
    let shelf = shelf_of_edges();
    let (stack, before) = (stack_of([shelf.clone()]), shelf.items());
    let backup = repository.backup(&stack).run().await.unwrap();
    let at_an_edge = backup.manifest().artifacts().filter(|(_, artifact)| {
        let compressed = artifact.frames.index_offset + 17 + 8 * artifact.frames.count;
        compressed > 0 && compressed % CHUNK as u64 == 0
    });
    assert_eq!(at_an_edge.count(), 1, "one ends with a full chunk");
    let stored = repository.verify(backup.id(), VerifyLevel::Stored).await.unwrap();
    assert!(stored.is_ok(), "the host without a key can check what is stored: {stored}");
    let refused = repository.verify(backup.id(), VerifyLevel::Content).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");

    let repository = repository.with_identity(identity);
    let report = repository.verify_with(backup.id(), VerifyLevel::Content, &stack).await.unwrap();
    assert!(report.is_ok(), "{report}");
    shelf.wipe();
    let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    repository.apply_restore(plan, &stack).await.unwrap();
    assert_eq!(shelf.items(), before);
}

pub(crate) async fn only_the_recipients_can_read() {
    let (first, second, stranger) = (identity(), identity(), identity());
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let options = options_for(&first).encrypt_to(second.recipients()[0]);
    let repository = Repository::with_store(store, options).await.unwrap();
    let shelf = Shelf::new("shelf").with("item", text(3000, 1));
    let backup = repository.backup(&stack_of([shelf.clone()])).run().await.unwrap();
    let named: Vec<String> = backup.manifest().artifacts().next().unwrap().1.encryption.recipients.clone();
    assert_eq!(named, [first.recipients()[0].to_string(), second.recipients()[0].to_string()]);

    for reader in [&first, &second] {
        let source = repository.clone().with_identity(reader.clone()).source(backup.id(), "shelf").await.unwrap();
        assert_eq!(read_all(&*source).await, shelf.items()["item"]);
    }
    let name = ArtifactName::new("item").unwrap();
    let source = repository.clone().with_identity(stranger).source(backup.id(), "shelf").await.unwrap();
    let refused = source.open(&name).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused}");
    let source = repository.source(backup.id(), "shelf").await.unwrap();
    let refused = source.open(&name).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(named.iter().all(|recipient| refused.to_string().contains(recipient)), "{refused}");
}

async fn read_all(source: &dyn ArtifactSource) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = source.open(source.artifacts()[0].name()).await.unwrap();
    reader.read_to_end(&mut bytes).await.unwrap();
    bytes
}

pub(crate) async fn any_range_is_that_of_the_plain_bytes() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let size = random.usize(0..4 * FRAME);
        let bytes = if random.bool() { text(size, seed) } else { noise(size, seed) };
        let identity = identity();
        let (_, repository) = in_memory(&identity).await;
        let backup =
            repository.backup(&stack_of([Shelf::new("shelf").with("item", bytes.clone())])).run().await.unwrap();
        let source = repository.with_identity(identity).source(backup.id(), "shelf").await.unwrap();
        let name = source.artifacts()[0].name().clone();
        for _ in 0..8 {
            let start = random.usize(0..=bytes.len());
            let end = random.usize(start..=bytes.len());
            let mut read = Vec::new();
            let mut reader = source.open_range(&name, start as u64..end as u64).await.unwrap();
            reader.read_to_end(&mut read).await.unwrap();
            assert!(read == bytes[start..end], "seed {seed}: {start}..{end} of {}", bytes.len());
        }
    }
}

pub(crate) async fn a_range_reads_only_its_chunks() {
    let identity = identity();
    let plan = Plan::new(usize::MAX, When::Before);
    let store = Arc::new(Faulty { inner: Arc::new(InMemory::new()), plan: Arc::clone(&plan) });
    let repository = Repository::with_store(store, options_for(&identity)).await.unwrap();
    let shelf = Shelf::new("shelf").with("item", noise(8 * FRAME, 1));
    let backup = repository.backup(&stack_of([shelf.clone()])).run().await.unwrap();
    let source = repository.with_identity(identity).source(backup.id(), "shelf").await.unwrap();
    let name = source.artifacts()[0].name().clone();
    for range in [5_u64..6, 5 * FRAME as u64 - 1..5 * FRAME as u64 + 1] {
        let calls = plan.calls();
        let mut read = Vec::new();
        source.open_range(&name, range.clone()).await.unwrap().read_to_end(&mut read).await.unwrap();
        let at = |offset: u64| usize::try_from(offset).unwrap();
        assert_eq!(read, shelf.items()["item"][at(range.start)..at(range.end)]);
        // Header, index, and at most two reads for two frames of a MiB.
        assert!(plan.calls() - calls <= 4, "{} calls", plan.calls() - calls);
    }
}

/// Each byte of the object's header, and some of each chunk.
fn places(stored: usize) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(4);
    let header = (0..HEAD + 20).chain((HEAD + 20..stored).step_by(9973));
    header.chain((0..64).map(|_| random.usize(0..stored))).chain([stored - 1]).filter(|at| *at < stored).collect()
}

pub(crate) async fn flips_and_cuts_are_damage_and_are_located() {
    let identity = identity();
    let (store, repository) = in_memory(&identity).await;
    let repository = repository.with_identity(identity);
    let shelf = Shelf::new("shelf").with("item", noise(2 * FRAME + 100, 1));
    let backup = repository.backup(&stack_of([shelf])).run().await.unwrap();
    let path = object_path(&backup, "item");
    let good = store.get(&path).await.unwrap().bytes().await.unwrap();
    let check = async |bytes: Vec<u8>, what: String| {
        store.put(&path, bytes.into()).await.unwrap();
        for level in [VerifyLevel::Stored, VerifyLevel::Content] {
            let report = repository.verify(backup.id(), level).await.unwrap();
            assert!(!report.is_ok(), "{what} is not found");
        }
        repository.verify(backup.id(), VerifyLevel::Content).await.unwrap()
    };
    for at in places(good.len()) {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let report = check(bytes, format!("a flip at {at}")).await;
        let finding = &report.artifacts[0].findings[0];
        let offset = usize::try_from(finding.offset.unwrap()).unwrap();
        // In the header or by the first chunk, or at the chunk where the frame begins that it is in.
        assert!(offset <= at.max(HEAD) && at.max(HEAD) - offset < FRAME + 2 * SEALED, "{at}: {finding}");
    }
    for left in [0, 10, 150, 300, SEALED, good.len() - SEALED, good.len() - 1] {
        check(good[..left].to_vec(), format!("a cut at {left}")).await;
    }
    check([&good[..], b"x"].concat(), "a byte too many".to_owned()).await;
    let mut swapped = good.to_vec();
    swapped[HEAD + SEALED..HEAD + 3 * SEALED].rotate_left(SEALED);
    check(swapped, "swapped chunks".to_owned()).await;
    store.put(&path, good.into()).await.unwrap();
    assert!(repository.verify(backup.id(), VerifyLevel::Content).await.unwrap().is_ok());
}

fn object_path(backup: &Backup, name: &str) -> object_store::path::Path {
    format!("backups/shop/{}/shelf/{name}.zst.age", backup.id()).into()
}

/// Runs a vendor's tool to its end.
async fn run(tool: Tool) {
    tool.spawn().unwrap().wait().await.unwrap();
}

/// An identity that `age-keygen` made.
async fn keygen(directory: &Path) -> (PathBuf, Identity) {
    let key = directory.join("key.txt");
    run(Tool::new(AGE_KEYGEN).arg("-o").arg(&key)).await;
    let identity = Identity::from_file(&key).unwrap();
    (key, identity)
}

async fn on_disk(directory: &Path, identity: &Identity) -> Repository {
    let root = directory.join("repository");
    Repository::open_or_create(root.to_str().unwrap(), options_for(identity)).await.unwrap()
}

pub(crate) async fn age_and_zstd_read_every_artifact() {
    let directory = tempfile::tempdir().unwrap();
    let (key, identity) = keygen(directory.path()).await;
    let repository = on_disk(directory.path(), &identity).await;
    let sizes = [0, 1, CHUNK, FRAME, FRAME + 1, 5 * FRAME + 7];
    let shelf = sizes.into_iter().fold(Shelf::new("shelf"), |shelf, size| {
        shelf.with(&format!("s{size}"), text(size, 7)).with(&format!("n{size}"), noise(size, 7))
    });
    let backup = repository.backup(&stack_of([shelf.clone()])).run().await.unwrap();
    let folder = directory.path().join("repository/backups/shop").join(backup.id().to_string()).join("shelf");
    let (opened, plain) = (directory.path().join("opened.zst"), directory.path().join("plain"));
    for (name, bytes) in shelf.items() {
        let stored = folder.join(format!("{name}.zst.age"));
        run(Tool::new(AGE).args(["-d", "-i"]).arg(&key).arg("-o").arg(&opened).arg(&stored)).await;
        run(Tool::new(ZSTD).args(["-d", "-q", "-f", "-o"]).arg(&plain).arg(&opened)).await;
        assert_eq!(std::fs::read(&plain).unwrap(), bytes, "{name}");
    }
}

pub(crate) async fn what_age_encrypts_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (key, identity) = keygen(directory.path()).await;
    let recipient: Recipient = identity.recipients()[0];
    let repository = on_disk(directory.path(), &identity).await;
    let shelf = Shelf::new("shelf").with("item", text(3 * FRAME + 5, 7));
    let backup = repository.backup(&stack_of([shelf.clone()])).run().await.unwrap();
    let stored = files(&directory.path().join("repository")).into_iter().find(|file| file.ends_with("item.zst.age"));
    let (stored, opened) = (stored.unwrap(), directory.path().join("opened.zst"));
    run(Tool::new(AGE).args(["-d", "-i"]).arg(&key).arg("-o").arg(&opened).arg(&stored)).await;
    run(Tool::new(AGE).args(["-r", &recipient.to_string(), "-o"]).arg(&stored).arg(&opened)).await;
    let repository = repository.with_identity(identity);
    let source = repository.source(backup.id(), "shelf").await.unwrap();
    let bytes = &shelf.items()["item"];
    for range in [0..bytes.len(), FRAME - 5..2 * FRAME + 5] {
        let mut read = Vec::new();
        let name = ArtifactName::new("item").unwrap();
        let mut reader = source.open_range(&name, range.start as u64..range.end as u64).await.unwrap();
        reader.read_to_end(&mut read).await.unwrap();
        assert!(read == bytes[range.clone()], "{range:?}");
    }
    // The bytes are right, but they are not those that the manifest has.
    let report = repository.verify(backup.id(), VerifyLevel::Content).await.unwrap();
    assert!(!report.is_ok(), "{report}");
}
