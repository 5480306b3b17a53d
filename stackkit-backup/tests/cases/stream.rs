//! Bytes in are bytes out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stackkit_backup::{Repository, VerifyLevel};
use stackkit_core::ErrorKind;
use stackkit_core::backup::RestoreOptions;
use stackkit_core::process::Tool;

use crate::support::faulty::{Faulty, Plan, When};
use crate::support::shelf::Shelf;
use crate::support::{FRAME, in_memory, local, options, stack_of, text};

/// The sizes at which frames and parts begin and end.
fn sizes() -> Vec<usize> {
    vec![0, 1, FRAME - 1, FRAME, FRAME + 1, 5 * FRAME + 7]
}

fn shelf_of_all_sizes() -> Shelf {
    sizes().into_iter().fold(Shelf::new("shelf"), |shelf, size| {
        // Every second one does not compress, so stored parts get full too.
        let bytes = match size % 2 {
            0 => text(size, 7),
            _ => std::iter::repeat_with({
                let mut random = fastrand::Rng::with_seed(9);
                move || random.u8(..)
            })
            .take(size)
            .collect(),
        };
        shelf.with(&format!("s{size}"), bytes)
    })
}

pub(crate) async fn all_sizes_survive() {
    let mut stored: Option<Vec<String>> = None;
    for chunk_bytes in [1000, 64 << 10, 3 * FRAME, 16 * FRAME] {
        let repository = in_memory().await;
        let shelf = shelf_of_all_sizes().with_chunk_bytes(chunk_bytes);
        let (stack, before) = (stack_of([shelf.clone()]), shelf.items());
        let backup = repository.backup(&stack).run().await.unwrap();
        let report = repository.verify_with(backup.id(), VerifyLevel::Content, &stack).await.unwrap();
        assert!(report.is_ok(), "{report}");
        assert!(report.artifacts.iter().all(|artifact| artifact.inspection.is_some()));
        // The stored bytes depend on the content alone, not on how it was handed over.
        let hashes = backup.manifest().artifacts().map(|(_, artifact)| artifact.stored.blake3.clone()).collect();
        assert_eq!(stored.get_or_insert_with(|| Vec::clone(&hashes)), &hashes);
        shelf.wipe();
        let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
        repository.apply_restore(plan, &stack).await.unwrap();
        assert_eq!(shelf.items(), before, "chunks of {chunk_bytes}");
    }
}

pub(crate) async fn zstd_reads_every_artifact() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let shelf = shelf_of_all_sizes();
    let backup = repository.backup(&stack_of([shelf.clone()])).run().await.unwrap();
    let folder = directory.path().join("backups/shop").join(backup.id().to_string()).join("shelf");
    for (name, bytes) in shelf.items() {
        let (stored, plain) = (folder.join(format!("{name}.zst")), directory.path().join(&name));
        let zstd = Tool::new("/usr/bin/zstd").args(["-d", "-q", "-f", "-o"]).arg(&plain).arg(&stored);
        zstd.spawn().unwrap().wait().await.unwrap();
        assert_eq!(std::fs::read(plain).unwrap(), bytes, "{name}");
    }
}

pub(crate) async fn ranges_read_only_their_frames() {
    let shelf = Shelf::new("shelf").with("item", text(3 * FRAME + 100, 3));
    let bytes = shelf.items()["item"].clone();
    let plan = Plan::new(usize::MAX, When::Before);
    let store = Arc::new(Faulty { inner: Arc::new(object_store::memory::InMemory::new()), plan: Arc::clone(&plan) });
    let repository = Repository::with_store(store, options()).await.unwrap();
    let stack = stack_of([shelf]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let source = repository.source(backup.id(), "shelf").await.unwrap();
    let name = source.artifacts()[0].name().clone();
    let end = bytes.len();
    for range in [0..0, 0..1, 5..FRAME, FRAME - 1..FRAME + 1, 2 * FRAME..end, 0..end, end - 1..end, end..end] {
        let (start, stop) = (range.start as u64, range.end as u64);
        let calls = plan.calls();
        let mut reader = source.open_range(&name, start..stop).await.unwrap();
        let mut read = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut read).await.unwrap();
        assert_eq!(read, bytes[range.clone()], "{range:?}");
        // The index, and one read for the few frames.
        assert!(plan.calls() - calls <= 2, "{range:?}: {} calls", plan.calls() - calls);
    }
    for range in [0..end as u64 + 1, u64::MAX..u64::MAX] {
        assert_eq!(source.open_range(&name, range).await.err().unwrap().kind(), ErrorKind::Config);
    }
}

pub(crate) async fn any_size_chunk_and_range_survives() {
    for seed in 0..24 {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes = text(random.usize(0..3 * FRAME), seed);
        let shelf = Shelf::new("shelf").with("item", bytes.clone()).with_chunk_bytes(random.usize(1..2 * FRAME));
        let repository = in_memory().await;
        let backup = repository.backup(&stack_of([shelf])).run().await.unwrap();
        let source = repository.source(backup.id(), "shelf").await.unwrap();
        let name = source.artifacts()[0].name().clone();
        for _ in 0..8 {
            let start = random.usize(0..=bytes.len());
            let end = random.usize(start..=bytes.len());
            let mut read = Vec::new();
            let mut reader = source.open_range(&name, start as u64..end as u64).await.unwrap();
            tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut read).await.unwrap();
            assert!(read == bytes[start..end], "seed {seed}: {start}..{end} of {}", bytes.len());
        }
    }
}

pub(crate) async fn many_open_artifacts_make_progress() {
    let items = (0..100).map(|n| (format!("item{n}"), text(FRAME + n, n as u64)));
    let shelf = items.fold(Shelf::new("shelf"), |shelf, (name, bytes)| shelf.with(&name, bytes)).with_interleaving();
    let repository = in_memory().await;
    let stack = stack_of([shelf]);
    let backup = tokio::time::timeout(Duration::from_secs(60), repository.backup(&stack).run()).await.unwrap().unwrap();
    assert_eq!(backup.manifest().services[0].artifacts.len(), 100);
    assert!(repository.verify(backup.id(), VerifyLevel::Content).await.unwrap().is_ok());
}

pub(crate) async fn a_stalled_storage_stops_the_dump() {
    let bytes = Bytes::from(std::iter::repeat_with(|| fastrand::u8(..)).take(64 * FRAME).collect::<Vec<_>>());
    let shelf = Shelf::new("shelf").with("item", bytes).with_chunk_bytes(FRAME);
    let plan = Plan::new(usize::MAX, When::Before);
    let store = Arc::new(Faulty { inner: Arc::new(object_store::memory::InMemory::new()), plan: Arc::clone(&plan) });
    let repository = Repository::with_store(store, options()).await.unwrap();
    let content = Arc::clone(&shelf.content);
    let stack = stack_of([shelf]);
    let written = || content.chunks_written.load(std::sync::atomic::Ordering::SeqCst);
    let backup = repository.backup(&stack).run();
    let mut backup = std::pin::pin!(backup);
    plan.stall_parts();
    // The dump goes on until every buffer is full, and not one chunk further.
    let stopped = async {
        let mut last = usize::MAX;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        while written() != last || last == 0 {
            last = written();
            tick.tick().await;
        }
    };
    tokio::select! {
        done = &mut backup => panic!("the backup ended: {done:?}"),
        () = stopped => {}
    }
    assert!(written() < 40, "{} chunks of 1 MiB were taken", written());
}

pub(crate) async fn a_stalled_storage_holds_up_no_other() {
    let noise = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(move || random.u8(..)).take(64 * FRAME).collect::<Vec<_>>()
    };
    let plan = Plan::new(usize::MAX, When::Before);
    let store = Arc::new(Faulty { inner: Arc::new(object_store::memory::InMemory::new()), plan: Arc::clone(&plan) });
    let stalled = Repository::with_store(store, options()).await.unwrap();
    plan.stall_parts();
    let shelf = Shelf::new("shelf").with("item", noise(1)).with_chunk_bytes(FRAME);
    let content = Arc::clone(&shelf.content);
    let (first, second) = (stack_of([shelf]), stack_of([Shelf::new("shelf").with("item", noise(2))]));
    let good = in_memory().await;
    let others = async {
        // The pool is full of the stalled backup's frames: it takes no more.
        let mut last = usize::MAX;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        while content.chunks_written.load(std::sync::atomic::Ordering::SeqCst) != last || last == 0 {
            last = content.chunks_written.load(std::sync::atomic::Ordering::SeqCst);
            tick.tick().await;
        }
        tokio::time::timeout(Duration::from_secs(30), good.backup(&second).run()).await
    };
    tokio::select! {
        done = stalled.backup(&first).run() => panic!("the backup ended: {done:?}"),
        other = others => drop(other.unwrap().unwrap()),
    }
}
