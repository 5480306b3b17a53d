//! Backup engine of stackkit: pipeline, repository, manifest, verify, restore.
mod error;
mod id;
pub mod manifest;
mod pipeline;
pub use id::BackupId;
