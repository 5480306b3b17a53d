//! What each operation tells of itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stackkit_backup::{
    GcOptions, Meter, Operation, Progress, ProgressEvent, ProgressPhase, Repository, Retention, Sample, Trigger,
    VerifyLevel,
};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::{Clock, ErrorKind};

use crate::support::scratch::Shelves;
use crate::support::shelf::Shelf;
use crate::support::{FRAME, in_memory, local, options, stack_of, text};

/// Keeps all events, and counts them like a bar would.
#[derive(Clone)]
struct Watcher {
    meter: Meter,
    events: Arc<Mutex<Vec<ProgressEvent>>>,
}

impl Watcher {
    fn new() -> Self {
        Self { meter: Meter::new(Clock::system()), events: Arc::default() }
    }

    fn phases(&self) -> Vec<(ProgressPhase, Option<u64>)> {
        let events = self.events.lock().unwrap();
        let phase = |event: &ProgressEvent| match event {
            ProgressEvent::Phase { phase, expected_bytes } => Some((*phase, *expected_bytes)),
            _ => None,
        };
        events.iter().filter_map(phase).collect()
    }

    fn removed(&self) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| matches!(event, ProgressEvent::Removed { .. })).count()
    }
}

impl Progress for Watcher {
    fn event(&self, event: &ProgressEvent) {
        self.meter.event(event);
        self.events.lock().unwrap().push(event.clone());
    }
}

pub(crate) async fn a_backup_is_estimated_by_the_last_one() {
    const BYTES: u64 = 20 * FRAME as u64;
    let repository = in_memory().await;
    let database = Shelf::new("database").with("dump", text(20 * FRAME, 1));
    let stack = stack_of([database.clone(), Shelf::new("cache").with("a", text(10, 2))]);
    let all = [
        ProgressPhase::Preparing,
        ProgressPhase::Pinning,
        ProgressPhase::Dumping,
        ProgressPhase::Storing,
        ProgressPhase::Committing,
        ProgressPhase::Done,
    ];
    for (only, expected) in [
        (&["database"][..], None),
        (&["database"], Some(BYTES)),
        (&["database", "cache"], None),
        (&["database", "cache"], Some(BYTES + 10)),
        (&["cache"], Some(10)),
    ] {
        let watcher = Watcher::new();
        let backup = repository.backup(&stack).only(only.iter().copied()).with_progress(Arc::new(watcher.clone()));
        let backup = backup.with_trigger(Trigger::Schedule).run().await.unwrap();
        stack.clock().advance(Duration::from_secs(1));
        let phases = watcher.phases();
        assert_eq!(phases.iter().map(|(phase, _)| *phase).collect::<Vec<_>>(), all);
        let end = watcher.meter.snapshot();
        // A backup that is over at once does not wait for it.
        if only.contains(&"database") {
            assert_eq!(end.expected_bytes, expected, "{only:?}");
        }
        let sum = |bytes: fn(&stackkit_backup::manifest::ArtifactRecord) -> u64| -> u64 {
            backup.manifest().artifacts().map(|(_, artifact)| bytes(artifact)).sum()
        };
        assert_eq!(end.read_bytes, sum(|artifact| artifact.plain.bytes));
        assert_eq!(end.stored_bytes, sum(|artifact| artifact.stored.bytes));
        assert_eq!((end.phase, end.artifacts.len()), (ProgressPhase::Done, only.len()));
        assert_eq!(backup.manifest().trigger.as_deref(), Some("schedule"));
    }
}

pub(crate) async fn bytes_are_told_while_they_come() {
    let repository = in_memory().await;
    let stack = stack_of([Shelf::new("database").with("dump", text(40 * FRAME, 1))]);
    let watcher = Watcher::new();
    let backup = repository.backup(&stack).with_progress(Arc::new(watcher.clone())).run().await.unwrap();
    let written = |watcher: &Watcher| -> Vec<(u64, u64)> {
        let events = watcher.events.lock().unwrap();
        let bytes = |event: &ProgressEvent| match event {
            ProgressEvent::Written { plain_bytes, stored_bytes, .. } => Some((*plain_bytes, *stored_bytes)),
            ProgressEvent::Read { bytes, .. } => Some((*bytes, 0)),
            _ => None,
        };
        events.iter().filter_map(bytes).collect()
    };
    let steps = written(&watcher);
    assert!(steps.len() >= 4, "{steps:?}");
    assert!(steps.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{steps:?}");
    // No wrapping, no extra events, for those who do not listen to a restore either.
    let watcher = Watcher::new();
    let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    repository.restore(plan, &stack).with_progress(Arc::new(watcher.clone())).run().await.unwrap();
    let expected = [
        (ProgressPhase::Preparing, None),
        (ProgressPhase::Checking, Some(40 * FRAME as u64)),
        (ProgressPhase::Restoring, Some(40 * FRAME as u64)),
        (ProgressPhase::Done, None),
    ];
    assert_eq!(watcher.phases(), expected);
    let steps = written(&watcher);
    assert!(steps.len() >= 10, "each 8 MiB, twice: {steps:?}");
    assert_eq!(steps.last(), Some(&(40 * FRAME as u64, 0)));
}

pub(crate) async fn a_lock_that_the_storage_lacks_is_refused_at_once() {
    let repository = in_memory().await;
    let stack = stack_of([Shelf::new("database").with("dump", text(10, 1))]);
    let error = repository.backup(&stack).with_retain_for(Duration::from_secs(86_400)).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let policy = Retention::new().keep_last(3);
    let error = repository.backup(&stack).with_retain_by(&policy).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(repository.list_all().await.unwrap().is_empty());
}

pub(crate) async fn a_verify_tells_what_it_reads() {
    const BYTES: u64 = 20 * FRAME as u64;
    let repository = in_memory().await;
    let stack =
        stack_of([Shelf::new("database").with("dump", text(20 * FRAME, 1)), Shelf::new("cache").with("a", "b")]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let stored: u64 = backup.manifest().artifacts().map(|(_, artifact)| artifact.stored.bytes).sum();
    let scratch = Shelves::default();
    let half = Sample::new(1, 2).unwrap();
    for (level, sample) in [
        (VerifyLevel::Stored, None),
        (VerifyLevel::Content, None),
        (VerifyLevel::Content, Some(half)),
        (VerifyLevel::Drill, None),
    ] {
        let watcher = Watcher::new();
        let verification = repository.verification(backup.id()).level(level).with_scratch(&scratch);
        let verification = sample.into_iter().fold(verification, stackkit_backup::Verification::sample);
        let report = verification.with_progress(Arc::new(watcher.clone())).run().await.unwrap();
        let read = report.artifacts.iter().map(|verdict| verdict.checked_bytes).sum();
        let phases = match (level, sample) {
            (VerifyLevel::Drill, _) => vec![
                (ProgressPhase::Checking, Some(BYTES)),
                (ProgressPhase::Restoring, Some(BYTES)),
                (ProgressPhase::Checking, Some(1)),
                (ProgressPhase::Restoring, Some(1)),
            ],
            _ => vec![(ProgressPhase::Checking, Some(read))],
        };
        let around = |phase| vec![(phase, None)];
        assert_eq!(
            watcher.phases(),
            [around(ProgressPhase::Preparing), phases, around(ProgressPhase::Done)].concat(),
            "{level}"
        );
        let end = watcher.meter.snapshot();
        assert_eq!(end.operation, Some(Operation::Verify));
        assert_eq!(end.read_bytes, if level == VerifyLevel::Drill { 1 } else { read });
        match (level, sample) {
            (VerifyLevel::Stored, _) => assert_eq!(read, stored),
            (_, Some(_)) => assert!((1..BYTES).contains(&read), "{read}"),
            _ => assert_eq!(read, BYTES + 1),
        }
        let steps =
            watcher.events.lock().unwrap().iter().filter(|event| matches!(event, ProgressEvent::Read { .. })).count();
        assert!(level == VerifyLevel::Stored || sample.is_some() || steps >= 4, "{level}: {steps} events");
    }
}

pub(crate) async fn a_copy_tells_what_it_moves() {
    let (here, there) = (in_memory().await, in_memory().await);
    let stack = stack_of([Shelf::new("database").with("dump", text(4 * FRAME, 1))]);
    let backup = here.backup(&stack).run().await.unwrap();
    let stored = backup.manifest().artifacts().map(|(_, artifact)| artifact.stored.bytes).sum();
    let watcher = Watcher::new();
    here.copy_to(&there).with_progress(Arc::new(watcher.clone())).run().await.unwrap();
    let expected = [
        (ProgressPhase::Preparing, None),
        (ProgressPhase::Copying, Some(stored)),
        (ProgressPhase::Committing, None),
        (ProgressPhase::Done, None),
    ];
    assert_eq!(watcher.phases(), expected);
    let end = watcher.meter.snapshot();
    assert_eq!((end.operation, end.read_bytes), (Some(Operation::Copy), stored));
}

pub(crate) async fn a_prune_and_a_collection_tell_what_they_free() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let stack = stack_of([Shelf::new("database").with("dump", text(FRAME, 1))]);
    for _ in 0..3 {
        repository.backup(&stack).run().await.unwrap();
        stack.clock().advance(Duration::from_secs(60));
    }
    let policy = Retention::new().keep_last(1).with_grace(Duration::ZERO);
    let plan = repository.plan_retention(&policy).await.unwrap().force();
    let watcher = Watcher::new();
    let report = repository.prune(plan).with_progress(Arc::new(watcher.clone())).run().await.unwrap();
    let freed = report.freed_bytes();
    let phases =
        |freed| [(ProgressPhase::Preparing, None), (ProgressPhase::Removing, Some(freed)), (ProgressPhase::Done, None)];
    assert_eq!((watcher.phases(), watcher.meter.snapshot().read_bytes), (phases(freed).to_vec(), freed));
    assert!(freed > 0 && watcher.removed() == 2, "{report}");

    let left = directory.path().join("backups/shop/20200101T000000Z-00000000/database");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("dump.zst"), [7; 500]).unwrap();
    let clock = Clock::fixed(jiff::Timestamp::now() + Duration::from_secs(72 * 3600));
    let later = Repository::open(directory.path().to_str().unwrap(), options().with_clock(clock)).await.unwrap();
    let plan = later.plan_gc(&GcOptions::new()).await.unwrap();
    let watcher = Watcher::new();
    later.gc(plan).with_progress(Arc::new(watcher.clone())).run().await.unwrap();
    assert_eq!((watcher.phases(), watcher.removed()), (phases(500).to_vec(), 1));
    assert_eq!(watcher.meter.snapshot().read_bytes, 500);
}
