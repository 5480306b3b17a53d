//! Backup engine of stackkit: pipeline, repository, manifest, verify, restore.
mod error;
mod id;
pub mod manifest;
mod pipeline;
mod repository;
mod restore;
mod run;
mod verify;
pub use id::BackupId;
pub use repository::{BackupEntry, EntryState, Repository, RepositoryOptions};
pub use restore::{StackRestorePlan, StackRestoreReport};
pub use run::{Backup, BackupRun, Progress, ProgressEvent};
pub use verify::{ArtifactVerdict, Finding, RepositoryFinding, VerifyLevel, VerifyReport};
