//! Backup engine of stackkit: pipeline, repository, manifest, verify, restore.
