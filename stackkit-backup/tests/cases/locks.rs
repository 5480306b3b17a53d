//! What a backup leaves in a bucket: locks where they were asked for, and nothing of a failure.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use stackkit_backup::{Backup, GcOptions, ProgressEvent, PruneOutcome, Repository, Retention, SigningKey};
use stackkit_core::{Clock, ErrorKind, Stack};
use stackkit_fixtures::BucketKind;

use crate::support::s3::Keys;
use crate::support::shelf::{Fault, Shelf};
use crate::support::{FRAME, noise, options, stack_of, text};

/// How long the backups of these cases are locked.
const LOCKED: Duration = Duration::from_secs(3600);

pub(crate) async fn a_backup_is_locked_until_the_time_in_its_manifest() {
    let minio = stackkit_fixtures::minio_server().await.unwrap();
    let bucket = minio.bucket_of(BucketKind::Locking).await.unwrap();
    let keys = Keys::of(&minio);
    let url = keys.url(&minio.endpoint(), &bucket);
    let signed = options().sign_with(SigningKey::generate().unwrap());
    let repository = Repository::open_or_create(&url, signed.clone()).await.unwrap();
    // The times of locks are the server's, so the stack's clock has to be right.
    let stack = Stack::builder("shop").service(Shelf::new("shelf").with("item", text(FRAME, 1)));
    let stack = stack.build().unwrap();
    let before = Timestamp::now();
    let first = repository.backup(&stack).with_retain_for(LOCKED).run().await.unwrap();
    let until = first.manifest().retain_until.unwrap();
    assert_eq!(until.subsec_nanosecond(), 0, "storages know whole seconds");
    let ahead = until.duration_since(before).as_secs_f64();
    assert!((3600.0..3700.0).contains(&ahead), "{ahead}");
    let past = repository.backup(&stack).with_retain_until(before).run().await.unwrap_err();
    assert_eq!(past.kind(), ErrorKind::Config);

    // Another that is not locked can go; this one can't.
    let second = repository.backup(&stack).run().await.unwrap();
    assert_eq!(second.manifest().retain_until, None);
    let third = repository.backup(&stack).run().await.unwrap();
    let policy = Retention::new().keep_id(*third.id()).with_grace(Duration::ZERO);
    // By a clock that is wrong by two hours the lock is over. The storage's own is right.
    let wrong = Clock::fixed(Timestamp::now());
    wrong.advance(Duration::from_secs(2 * 3600));
    let repository = Repository::open(&url, signed.with_clock(wrong)).await.unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        let plan = repository.plan_retention(&policy).await.unwrap().force();
        outcomes.extend(repository.apply_retention(plan).await.unwrap().backups);
    }
    let outcome = |id| outcomes.iter().rfind(|result| result.backup == id).map(|result| result.outcome.clone());
    assert_eq!(outcome(*first.id()), Some(PruneOutcome::Retained { until: Some(until) }), "{outcomes:?}");
    assert!(matches!(outcome(*second.id()), Some(PruneOutcome::Purged { .. })), "{outcomes:?}");
}

pub(crate) async fn a_policy_locks_the_first_backup_of_each_period() {
    let minio = stackkit_fixtures::minio_server().await.unwrap();
    let bucket = minio.bucket_of(BucketKind::Locking).await.unwrap();
    let keys = Keys::of(&minio);
    let repository = Repository::open_or_create(&keys.url(&minio.endpoint(), &bucket), options()).await.unwrap();
    // Locks are about the server's time. The day's first seconds: they are never in the future, and no period begins meanwhile.
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let clock = Clock::fixed(today.at(0, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp());
    let stack_with = |fault: Option<Fault>| {
        let (good, other) = (Shelf::new("good").with("item", "x"), Shelf::new("other").with("item", "y"));
        let other = fault.into_iter().fold(other, Shelf::with_fault);
        Stack::builder("shop").clock(clock.clone()).service(good).service(other).build().unwrap()
    };
    let stack = stack_with(None);
    let policy = Retention::new().keep_last(3).keep_daily(7).keep_monthly(12);
    let until = |backup: &Backup| backup.manifest().retain_until;
    let partial = stack_with(Some(Fault::RunFailsAtTheEnd));
    let partial = repository.backup(&partial).partial().with_retain_by(&policy).run().await.unwrap();
    assert_eq!(until(&partial), None, "what is partial takes no place");
    clock.advance(Duration::from_secs(1));
    let first = repository.backup(&stack).with_retain_by(&policy).run().await.unwrap();
    assert_eq!(until(&first), policy.lock_until(first.manifest().started, &[]));
    let in_a_year = today.checked_add(11.months()).unwrap().first_of_month();
    assert!(until(&first).unwrap().to_zoned(TimeZone::UTC).date() > in_a_year);
    clock.advance(Duration::from_secs(1));
    let second = repository.backup(&stack).with_retain_by(&policy).run().await.unwrap();
    assert_eq!(until(&second), None, "another one of the same day");
    clock.advance(Duration::from_secs(1));
    let last = Retention::new().keep_last(3);
    assert_eq!(until(&repository.backup(&stack).with_retain_by(&last).run().await.unwrap()), None);
    let empty = repository.backup(&stack).with_retain_by(&Retention::new()).run().await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Config);
    clock.advance(Duration::from_secs(1));
    let within = Retention::new().keep_within(3.days());
    let within = repository.backup(&stack).with_retain_by(&within).run().await.unwrap();
    assert_eq!(until(&within), Some(clock.now() + 72.hours()));
    let policy = Retention::new().keep_last(1).with_grace(Duration::ZERO);
    let report = repository.apply_retention(repository.plan_retention(&policy).await.unwrap().force()).await.unwrap();
    let gone: Vec<_> = report.backups.iter().map(|result| result.backup).collect();
    assert!(gone.contains(second.id()) && !gone.contains(first.id()) && !gone.contains(within.id()), "{report}");
}

pub(crate) async fn a_failed_backup_leaves_no_unfinished_upload() {
    let minio = stackkit_fixtures::minio_server().await.unwrap();
    let bucket = minio.bucket().await.unwrap();
    let keys = Keys::of(&minio);
    let url = keys.url(&minio.endpoint(), &bucket);
    // In two hours everything that is left is garbage.
    let later = Clock::fixed(Timestamp::now());
    later.advance(Duration::from_secs(2 * 3600));
    let repository = Repository::open_or_create(&url, options().with_clock(later)).await.unwrap();
    let hanging = Shelf::new("hanging").with("item", noise(13 * FRAME, 1)).with_chunk_bytes(12 * FRAME);
    let stack = stack_of([hanging.with_fault(Fault::RunHangsHalfway)]);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let progress = move |event: &ProgressEvent| {
        if let ProgressEvent::Written { .. } = event {
            stop.send_replace(true);
        }
    };
    let mut stopped_now = stopped.clone();
    let run = repository.backup(&stack).with_progress(std::sync::Arc::new(progress)).stop_when(async move {
        let _ = stopped_now.wait_for(|stopped| *stopped).await;
    });
    let error = run.run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(*stopped.borrow());
    assert!(repository.list_all().await.unwrap().is_empty());
    let plan = repository.plan_gc(&GcOptions::new().with_min_age(Duration::from_secs(3600))).await.unwrap();
    assert_eq!(repository.apply_gc(plan).await.unwrap().uploads, 0);
}

pub(crate) async fn a_prune_of_a_versioned_bucket_tells_that_bytes_are_kept() {
    let minio = stackkit_fixtures::minio_server().await.unwrap();
    let bucket = minio.bucket_of(BucketKind::Versioned).await.unwrap();
    let keys = Keys::of(&minio);
    let repository = Repository::open_or_create(&keys.url(&minio.endpoint(), &bucket), options()).await.unwrap();
    let stack = stack_of([Shelf::new("shelf").with("item", noise(FRAME, 1))]);
    let first = *repository.backup(&stack).run().await.unwrap().id();
    stack.clock().advance(LOCKED);
    let second = *repository.backup(&stack).run().await.unwrap().id();
    let policy = Retention::new().keep_id(second).with_grace(Duration::ZERO);
    let plan = repository.plan_retention(&policy).await.unwrap();
    let report = repository.apply_retention(plan).await.unwrap();
    let [pruned] = &report.backups[..] else { panic!("{report}") };
    assert_eq!(pruned.backup, first);
    let PruneOutcome::Purged { freed_bytes: 0, kept_bytes } = pruned.outcome else { panic!("{report}") };
    assert!(kept_bytes > FRAME as u64, "{report}");
    assert_eq!(report.freed_bytes(), 0);
    let left: Vec<_> = repository.list_all().await.unwrap().into_iter().map(|entry| entry.id).collect();
    assert_eq!(left, [second]);
    assert!(repository.check_chain("shop", None).await.unwrap().is_ok());
}
