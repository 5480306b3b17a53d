//! What a manifest must not say, whoever wrote it: each number is used in sums, each name finds one record.

use std::collections::BTreeSet;

use stackkit_core::{Error, Result};

use super::{ArtifactRecord, Manifest};

/// The most bytes that the artifacts of a backup can have together, as they are or stored: an exbibyte, which no storage
/// holds and no sum of which overflows.
const BYTES_MAX: u64 = 1 << 60;

/// Checks that no service and no artifact is named twice, and that no number is larger than any storage.
///
/// # Errors
/// `Integrity`.
pub(super) fn check(manifest: &Manifest) -> Result<()> {
    let mut services = BTreeSet::new();
    for service in &manifest.services {
        let mut artifacts = BTreeSet::new();
        let twice = service.artifacts.iter().find(|artifact| !artifacts.insert(artifact.spec.name.as_str()));
        if let Some(twice) = twice {
            return Err(Error::integrity("the manifest names an artifact twice")
                .with_context("artifact", &twice.spec.name)
                .with_service(service.id.clone()));
        }
        if !services.insert(service.id.as_str()) {
            return Err(Error::integrity("the manifest names a service twice").with_service(service.id.clone()));
        }
    }
    let total = |bytes: fn(&ArtifactRecord) -> u64| {
        manifest.artifacts().map(|(_, artifact)| bytes(artifact)).fold(0, u64::saturating_add)
    };
    let largest = total(|artifact| artifact.plain.bytes).max(total(|artifact| artifact.stored.bytes));
    let inside = manifest.artifacts().all(|(_, artifact)| artifact.frames.index_offset <= artifact.stored.bytes);
    match inside && largest <= BYTES_MAX {
        true => Ok(()),
        false => Err(Error::integrity("the manifest names more bytes than there can be")),
    }
}
