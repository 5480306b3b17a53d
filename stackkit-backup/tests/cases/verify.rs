//! Samples, drills and evidence.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use stackkit_backup::{
    ArtifactVerdict, Backup, CensusVerdict, Evidence, EvidenceState, Identity, Repository, RepositoryOptions, Sample,
    SigningKey, VerifyLevel, VerifyReport,
};
use stackkit_core::backup::ScratchStores;
use stackkit_core::{Clock, ErrorKind};

use crate::support::scratch::Shelves;
use crate::support::shelf::{Fault, Shelf};
use crate::support::{FRAME, files, in_memory, local, options, stack_of, text, until};

fn parts(of: u32) -> impl Iterator<Item = Sample> {
    (1..=of).map(move |part| Sample::new(part, of).unwrap())
}

fn checked(report: &VerifyReport) -> u64 {
    report.artifacts.iter().map(|verdict| verdict.checked_bytes).sum()
}

fn plain_bytes(backup: &Backup) -> u64 {
    backup.manifest().artifacts().map(|(_, artifact)| artifact.plain.bytes).sum()
}

/// One artifact is cut into runs of frames, the others are shared out whole.
pub(crate) async fn each_byte_is_in_exactly_one_part() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    every_frame_is_read(&repository, directory.path(), "zst", |found| found == 1).await;
}

/// A chunk of the encryption that two parts share is found by both.
pub(crate) async fn each_encrypted_byte_is_in_a_part() {
    let directory = tempfile::tempdir().unwrap();
    let identity = Identity::generate().unwrap();
    let options = RepositoryOptions::new().encrypt_to(identity.recipients()[0]).with_identity(identity);
    let repository = Repository::open_or_create(directory.path().to_str().unwrap(), options).await.unwrap();
    every_frame_is_read(&repository, directory.path(), "zst.age", |found| found >= 1).await;
}

async fn every_frame_is_read(
    repository: &Repository,
    directory: &Path,
    ending: &str,
    is_right: impl Fn(usize) -> bool,
) {
    let shelf = Shelf::new("shelf").with("large", text(4 * FRAME + 9, 1)).with("small", text(99, 2)).with("empty", "");
    let stack = stack_of([shelf, Shelf::new("other").with("x", text(FRAME + 1, 3))]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let verify = async |level, sample| {
        repository.verification(backup.id()).level(level).with_stack(&stack).sample(sample).run().await.unwrap()
    };
    let mut read = 0;
    for sample in parts(3) {
        let report = verify(VerifyLevel::Content, sample).await;
        assert!(report.is_ok() && report.to_string().contains(&format!("part {sample}")), "{report}");
        read += checked(&report);
    }
    assert_eq!(read, plain_bytes(&backup));
    // A byte in every frame; the frame index is checked in every part.
    for (service, record) in backup.manifest().artifacts() {
        let path = artifact(directory, &backup, &format!("{}/{}.{ending}", service.id, record.spec.name));
        let good = std::fs::read(&path).unwrap();
        let frames = usize::try_from(record.frames.count).unwrap();
        let end = usize::try_from(record.frames.index_offset).unwrap();
        for at in (0..frames).map(|frame| (2 * frame + 1) * end / (2 * frames)) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let mut found = [0, 0];
            for sample in parts(3) {
                found[0] += usize::from(!verify(VerifyLevel::Stored, sample).await.is_ok());
                found[1] += usize::from(!verify(VerifyLevel::Content, sample).await.is_ok());
            }
            assert!(found[0] == 1 && is_right(found[1]), "byte {at} of {}: {found:?}", path.display());
        }
        std::fs::write(&path, &good).unwrap();
    }
}

/// Whoever has no key compares the encrypted manifest with its hash; drills need a key.
pub(crate) async fn an_encrypted_manifest_is_checked_without_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let identity = Identity::generate().unwrap();
    let options = RepositoryOptions::new().encrypt_to(identity.recipients()[0]).encrypt_manifest();
    let repository = Repository::open_or_create(directory.path().to_str().unwrap(), options).await.unwrap();
    let stack = stack_of([Shelf::new("shelf").with("x", text(99, 1))]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let report = repository.verify(backup.id(), VerifyLevel::Stored).await.unwrap();
    assert!(report.is_ok(), "{report}");
    let scratch = Shelves::default();
    let drill = async |repository: &Repository| {
        repository.verification(backup.id()).level(VerifyLevel::Drill).with_scratch(&scratch).run().await
    };
    let error = drill(&repository).await.unwrap_err();
    assert_eq!((error.kind(), scratch.open_count(), scratch.restores()), (ErrorKind::Config, 0, 0), "{error}");
    let stranger = repository.clone().with_identity(Identity::generate().unwrap());
    assert_eq!(drill(&stranger).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    let owner = repository.clone().with_identity(identity);
    let report = drill(&owner).await.unwrap();
    assert!(report.is_ok() && report.drills[0].census == CensusVerdict::Equal, "{report}");

    let sealed = artifact(directory.path(), &backup, "manifest.json.age");
    flip(&sealed);
    for gone in [false, true] {
        if gone {
            std::fs::remove_file(&sealed).unwrap();
        }
        let report = repository.verify(backup.id(), VerifyLevel::Stored).await.unwrap();
        assert!(!report.is_restorable() && report.to_string().contains("manifest.json.age"), "{report}");
        assert!(!repository.evidence(backup.id()).await.unwrap()[0].ok);
        assert!(owner.verify(backup.id(), VerifyLevel::Stored).await.is_err());
    }
}

pub(crate) async fn a_drill_restores_every_service_and_counts() {
    let repository = in_memory().await;
    let (a, b) = (Shelf::new("a").with("x", text(2 * FRAME, 1)), Shelf::new("b").with("y", text(7, 2)).with("z", ""));
    let stack = stack_of([a.clone(), b.clone()]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let scratch = Shelves::default();
    let report =
        repository.verification(backup.id()).level(VerifyLevel::Drill).with_scratch(&scratch).run().await.unwrap();
    assert!(report.is_ok(), "{report}");
    assert_eq!((scratch.open_count(), scratch.restores()), (0, 2));
    let seen: Vec<_> = report.drills.iter().map(|drill| (drill.service.as_str(), drill.census)).collect();
    assert_eq!(seen, [("a", CensusVerdict::Equal), ("b", CensusVerdict::Equal)]);
    assert_eq!(report.drills[0].restored_bytes, 2 * FRAME as u64);
    assert_eq!(checked(&report), plain_bytes(&backup));
    assert!(report.artifacts.iter().all(|verdict| verdict.inspection.is_some()), "the scratch store parses them");
    let made: Vec<_> = scratch.made.lock().unwrap().iter().map(Shelf::items).collect();
    assert_eq!(made, [a.items(), b.items()]);
    let since = Evidence::whole_since(&repository.evidence(backup.id()).await.unwrap(), VerifyLevel::Drill);
    assert!(since.is_some());
}

pub(crate) async fn a_drill_tells_what_did_not_come_back() {
    for (fault, census, text) in [
        (Fault::LosesAnItem, CensusVerdict::Different, "bytes: expected 3, found 2"),
        (Fault::RestoreFails, CensusVerdict::NotCompared, "the tool refuses it"),
        (Fault::RestorePanics, CensusVerdict::NotCompared, "the provider panicked"),
    ] {
        let repository = in_memory().await;
        let stack = stack_of([Shelf::new("shelf").with("x", "1").with("y", "22")]);
        let backup = repository.backup(&stack).run().await.unwrap();
        let scratch = Shelves::with_fault(fault);
        let report =
            repository.verification(backup.id()).level(VerifyLevel::Drill).with_scratch(&scratch).run().await.unwrap();
        assert!(!report.is_ok() && !report.is_restorable(), "{report}");
        assert_eq!((report.drills[0].census, scratch.open_count()), (census, 0), "{report}");
        assert!(report.to_string().contains(text), "{report}");
        let evidence = repository.evidence(backup.id()).await.unwrap();
        assert!(!evidence[0].ok && evidence[0].findings.iter().any(|finding| finding.contains(text)), "{evidence:?}");
    }
}

pub(crate) async fn a_damaged_service_is_not_drilled() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let stack = stack_of([Shelf::new("a").with("x", text(99, 1)), Shelf::new("b").with("y", text(99, 2))]);
    let backup = repository.backup(&stack).run().await.unwrap();
    flip(&artifact(directory.path(), &backup, "a/x.zst"));
    let scratch = Shelves::default();
    let report =
        repository.verification(backup.id()).level(VerifyLevel::Drill).with_scratch(&scratch).run().await.unwrap();
    let damaged: Vec<_> =
        report.artifacts.iter().map(|verdict: &ArtifactVerdict| !verdict.findings.is_empty()).collect();
    assert_eq!((damaged, scratch.restores(), scratch.open_count()), (vec![true, false], 1, 0), "{report}");
    assert!(!report.drills[0].is_ok() && report.drills[1].is_ok(), "{report}");
}

pub(crate) async fn a_drill_that_is_dropped_leaves_no_store() {
    let repository = in_memory().await;
    let stack = stack_of([Shelf::new("shelf").with("x", "1")]);
    let id = *repository.backup(&stack).run().await.unwrap().id();
    let scratch = Arc::new(Shelves::with_fault(Fault::RestoreHangs));
    let drill = tokio::spawn({
        let (repository, scratch) = (repository.clone(), Arc::clone(&scratch));
        async move { repository.verification(&id).level(VerifyLevel::Drill).with_scratch(&*scratch).run().await }
    });
    until("the restore has begun", || scratch.restores() == 1).await;
    assert_eq!(scratch.open_count(), 1);
    drill.abort();
    until("the scratch store is gone", || scratch.open_count() == 0).await;
    assert!(repository.evidence(&id).await.unwrap().is_empty());
}

pub(crate) async fn what_can_not_be_checked_is_an_error() {
    let repository = in_memory().await;
    let stack = stack_of([Shelf::new("shelf").with("x", "1")]);
    let id = *repository.backup(&stack).run().await.unwrap().id();
    assert_eq!(repository.verify(&id, VerifyLevel::Drill).await.unwrap_err().kind(), ErrorKind::Config);
    let scratch = Shelves::default();
    let sampled = repository.verification(&id).level(VerifyLevel::Drill).with_scratch(&scratch);
    let error = sampled.sample(Sample::new(1, 2).unwrap()).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    // A server that is down, or a store that nobody has, says nothing of the backup.
    let down = Shelves::with_fault(Fault::ServerIsDown);
    let fixtures = stackkit_fixtures::scratch();
    let stores: [(&dyn ScratchStores, ErrorKind); 2] =
        [(&down, ErrorKind::Unreachable), (&fixtures, ErrorKind::Unsupported)];
    for (scratch, kind) in stores {
        let drill = repository.verification(&id).level(VerifyLevel::Drill).with_scratch(scratch);
        let error = drill.run().await.unwrap_err();
        assert_eq!((error.kind(), error.service().map(|id| id.as_str())), (kind, Some("shelf")), "{error}");
    }
    assert_eq!(down.open_count(), 0);
    assert!(repository.evidence(&id).await.unwrap().is_empty());
}

pub(crate) async fn every_run_leaves_evidence_if_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::fixed("2026-11-21T07:00:00Z".parse().unwrap());
    let url = directory.path().to_str().unwrap();
    let repository = Repository::open_or_create(url, options().with_clock(clock.clone())).await.unwrap();
    let stack = stack_of([Shelf::new("shelf").with("x", text(99, 1))]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let good = repository.verify(backup.id(), VerifyLevel::Stored).await.unwrap();
    clock.advance(Duration::from_secs(60));
    flip(&artifact(directory.path(), &backup, "shelf/x.zst"));
    let bad = repository.verify(backup.id(), VerifyLevel::Content).await.unwrap();
    let evidence = repository.evidence(backup.id()).await.unwrap();
    assert_eq!(
        evidence.iter().map(|one| (one.level, one.ok)).collect::<Vec<_>>(),
        [(VerifyLevel::Content, false), (VerifyLevel::Stored, true)]
    );
    assert_eq!(evidence[0].finished, "2026-11-21T07:01:00Z".parse().unwrap());
    assert_eq!((&evidence[0].manifest_blake3, evidence[0].findings.len()), (&good.manifest_blake3, 1));
    for report in [good, bad] {
        let EvidenceState::Recorded(object) = &report.evidence else { panic!("{report}") };
        let text = std::fs::read_to_string(directory.path().join(object)).unwrap();
        assert!(text.contains("\"schema\": \"stackkit.evidence/1\""), "{text}");
        assert!(report.to_string().contains(object), "{report}");
    }

    // Where nothing can be written the verify goes on.
    std::fs::remove_dir_all(directory.path().join("verify")).unwrap();
    std::fs::write(directory.path().join("verify"), "in the way").unwrap();
    let report = repository.verify(backup.id(), VerifyLevel::Stored).await.unwrap();
    assert!(matches!(report.evidence, EvidenceState::NotRecorded(_)), "{report}");
    assert!(report.to_string().contains("evidence: not recorded ("), "{report}");
}

pub(crate) async fn evidence_counts_only_for_what_it_saw() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let stack = stack_of([Shelf::new("shelf").with("x", text(5 * FRAME, 1))]);
    let newest = async || repository.newest_verified(&repository.list().await.unwrap()).await.unwrap();
    let older = *repository.backup(&stack).run().await.unwrap().id();
    assert_eq!(newest().await, None);
    repository.verify(&older, VerifyLevel::Stored).await.unwrap();
    assert_eq!(newest().await, None, "a hash of stored bytes is no proof that they can be read");
    repository.verify(&older, VerifyLevel::Content).await.unwrap();
    assert_eq!(newest().await, Some(older));

    stack.clock().advance(Duration::from_secs(60));
    let newer = repository.backup(&stack).run().await.unwrap();
    for sample in parts(3).take(2) {
        repository.verification(newer.id()).sample(sample).run().await.unwrap();
    }
    assert_eq!(newest().await, Some(older), "one part is missing");
    repository.verification(newer.id()).sample(Sample::new(3, 3).unwrap()).run().await.unwrap();
    assert_eq!(newest().await, Some(*newer.id()));

    // Evidence is not believed if it is damaged, or lies below another backup's name.
    let folder = directory.path().join("verify").join(newer.id().to_string());
    let kept: Vec<(PathBuf, Vec<u8>)> =
        files(&folder).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    assert_eq!(kept.len(), 3);
    flip(&kept[0].0);
    assert_eq!((repository.evidence(newer.id()).await.unwrap().len(), newest().await), (2, Some(older)));
    std::fs::write(&kept[0].0, &kept[0].1).unwrap();
    let foreign = directory.path().join("verify/20261121T061531Z-00000000");
    std::fs::rename(&folder, &foreign).unwrap();
    assert_eq!(newest().await, Some(older));
    assert!(repository.evidence(&"20261121T061531Z-00000000".parse().unwrap()).await.unwrap().is_empty());
    std::fs::rename(&foreign, &folder).unwrap();
    assert_eq!(newest().await, Some(*newer.id()));

    // A later run that finds damage ends it.
    flip(&artifact(directory.path(), &newer, "shelf/x.zst"));
    repository.verify(newer.id(), VerifyLevel::Stored).await.unwrap();
    assert_eq!(newest().await, Some(older));
}

pub(crate) async fn only_evidence_of_trusted_keys_counts() {
    let store = Arc::new(InMemory::new());
    let (key, foreign) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let open = async |options| Repository::with_store(store.clone(), options).await.unwrap();
    let signing = open(options().sign_with(key.clone())).await;
    let stack = stack_of([Shelf::new("shelf").with("x", "1")]);
    let id = *signing.backup(&stack).run().await.unwrap().id();
    let count = async || signing.evidence(&id).await.unwrap().len();
    for untrusted in [options().trust(key.trusted()), options().sign_with(foreign).trust(key.trusted())] {
        let report = open(untrusted).await.verify(&id, VerifyLevel::Content).await.unwrap();
        assert!(!matches!(report.evidence, EvidenceState::NotRecorded(_)), "{report}");
        assert_eq!(count().await, 0);
    }
    signing.verify(&id, VerifyLevel::Content).await.unwrap();
    assert_eq!(count().await, 1);
    assert_eq!(signing.newest_verified(&signing.list().await.unwrap()).await.unwrap(), Some(id));
}

fn artifact(directory: &Path, backup: &Backup, below: &str) -> PathBuf {
    directory.join("backups/shop").join(backup.id().to_string()).join(below)
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}
