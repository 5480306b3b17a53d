//! The backup engine of stackkit: it backs up a whole stack as one backup, all or nothing, checks it, and brings it
//! back.
//!
//! ```no_run
//! use stackkit_backup::{Identity, Repository, RepositoryOptions, Retention, SigningKey, VerifyLevel};
//! use stackkit_core::backup::RestoreOptions;
//!
//! # async fn example(stack: &stackkit_core::Stack) -> stackkit_core::Result<()> {
//! let options = RepositoryOptions::new()
//!     .encrypt_to("age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".parse()?)
//!     .sign_with(SigningKey::from_file("/etc/shop/signing.key")?);
//! let repository = Repository::open_or_create("file:///var/backups/shop", options).await?;
//!
//! let backup = repository.backup(stack).with_tag("nightly").run().await?;
//! println!("{backup}");
//! println!("{}", repository.verify(backup.id(), VerifyLevel::Stored).await?);
//! let plan = repository.plan_retention(&Retention::new().keep_daily(7).keep_monthly(12)).await?;
//! println!("{plan}");
//! println!("{}", repository.apply_retention(plan).await?);
//!
//! let repository = repository.with_identity(Identity::from_file("/media/key/identity.txt")?);
//! let plan = repository.plan_restore(backup.id(), stack, &RestoreOptions::new()).await?;
//! println!("{plan}");
//! println!("{}", repository.apply_restore(plan, stack).await?);
//! # Ok(())
//! # }
//! ```
//!
//! The nouns: a [`Repository`] is a place of backups, a directory or a bucket; a [`Backup`] is the dumps of one stack and a
//! [`Manifest`](manifest::Manifest), which is written last and makes it exist; an artifact is one of its byte streams,
//! the vendor's own format in standard zstd frames, in a standard age file; a [`StackRestorePlan`] says what a restore would overwrite.
//!
//! What is promised:
//! - Every service's point in time is pinned before the first byte moves; the spread is measured.
//! - A service that fails fails the backup, unless [`BackupRun::partial`] was said; what was stored is removed.
//! - Memory is constant: frames of 1 MiB from a fixed pool, for all backups of the process together. A slow
//!   repository slows the dump.
//! - Every error that concerns a service names it; every error of the storage has the fact `object`.
//! - No store is touched by a restore before every byte that it needs was read and checked.
//!
//! - A backup is listed only if it is whole. Deleting is announced first, and never touches another backup.
//!
//! What it does *not* do: it knows no datastore (those are [`BackupProvider`](stackkit_core::BackupProvider)s); it does not
//! deduplicate; it runs nothing by itself (an application drives a [`Schedule`]). What a killed process leaves has no
//! manifest: it is never listed as a backup, and [`Repository::plan_gc`] finds it.
//!
//! Features: `s3`, for repositories in buckets; none is on by default.
//!
//! `FORMAT.md` beside this crate describes every byte of a repository.

mod age;
mod copy;
mod error;
mod freshness;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod hook;
mod id;
mod keys;
mod lease;
pub mod manifest;
mod pipeline;
mod progress;
mod repository;
mod restore;
mod retention;
mod run;
mod schedule;
mod storage;
mod trust;
mod verify;

pub use copy::{CopiedBackup, CopyOutcome, CopyReport, CopyRun};
pub use freshness::BackupFreshness;
pub use gc::{GcItem, GcKind, GcOptions, GcPlan, GcReport, GcRun};
pub use hook::{Hook, HookContext, HookOutcome, HookPoint};
pub use id::BackupId;
pub use keys::{Identity, Recipient, SigningKey, TrustedKey};
pub use progress::{ArtifactProgress, Meter, Operation, Progress, ProgressEvent, ProgressPhase, ProgressSnapshot};
pub use repository::{BackupEntry, EntryState, Repository, RepositoryOptions};
pub use restore::{RestoreRun, StackRestorePlan, StackRestoreReport};
pub use retention::{
    Announcement, BackupSummary, Inventory, Period, PruneOutcome, PruneReport, PruneResult, PruneRun, Retention,
    RetentionAction, RetentionDecision, RetentionPlan, RetentionReason, RetentionTotals, SummaryState,
};
pub use run::{Backup, BackupRun, Trigger};
pub use schedule::{CronError, CronFault, CronField, MissedRuns, Schedule, ScheduledRun, Ticker};
pub use storage::{Capabilities, ObjectLockMode};
pub use trust::SignatureState;
pub use verify::{
    ArtifactVerdict, CensusVerdict, ChainFault, ChainFinding, ChainHead, ChainReport, DrillVerdict, Evidence,
    EvidenceState, Finding, RepositoryFinding, Sample, Verification, VerifyLevel, VerifyReport,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
