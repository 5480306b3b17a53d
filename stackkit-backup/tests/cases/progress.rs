//! What a backup and a restore tell of themselves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stackkit_backup::{Meter, Progress, ProgressEvent, ProgressPhase, Trigger};
use stackkit_core::backup::RestoreOptions;
use stackkit_core::{Clock, ErrorKind};

use crate::support::shelf::Shelf;
use crate::support::{FRAME, in_memory, stack_of, text};

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
    let stored: u64 = backup.manifest().artifacts().map(|(_, artifact)| artifact.stored.bytes).sum();
    let expected = [
        (ProgressPhase::Preparing, None),
        (ProgressPhase::Checking, Some(stored)),
        (ProgressPhase::Restoring, Some(40 * FRAME as u64)),
        (ProgressPhase::Done, None),
    ];
    assert_eq!(watcher.phases(), expected);
    let steps = written(&watcher);
    assert!(steps.len() >= 6, "the checked bytes, and each 8 MiB: {steps:?}");
    assert_eq!(steps.first(), Some(&(stored, 0)));
    assert_eq!(steps.last(), Some(&(40 * FRAME as u64, 0)));
}

pub(crate) async fn a_lock_that_the_storage_lacks_is_refused_at_once() {
    let repository = in_memory().await;
    let stack = stack_of([Shelf::new("database").with("dump", text(10, 1))]);
    let error = repository.backup(&stack).with_retain_for(Duration::from_secs(86_400)).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(repository.list_all().await.unwrap().is_empty());
}
