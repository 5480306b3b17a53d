//! What a backup tells while it runs.

use stackkit_core::ServiceId;
use stackkit_core::backup::ArtifactName;

/// Takes the events of a backup. Called from the backup's own task: it must not block.
///
/// Every `Fn(&ProgressEvent)` is one.
///
/// ```
/// use stackkit_backup::{Progress, ProgressEvent};
/// let bars = |event: &ProgressEvent| eprintln!("{event:?}");
/// let _: &dyn Progress = &bars;
/// ```
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: &ProgressEvent);
}

impl<F: Fn(&ProgressEvent) + Send + Sync> Progress for F {
    fn event(&self, event: &ProgressEvent) {
        self(event);
    }
}

/// A step of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressEvent {
    /// A service's point in time is pinned.
    Pinned {
        /// The service.
        service: ServiceId,
    },
    /// Bytes of an artifact were taken; told every 8 MiB.
    Written {
        /// The service.
        service: ServiceId,
        /// The artifact.
        artifact: ArtifactName,
        /// Its plain bytes until now.
        plain_bytes: u64,
    },
    /// An artifact exists.
    Stored {
        /// The service.
        service: ServiceId,
        /// The artifact.
        artifact: ArtifactName,
        /// Its plain bytes.
        plain_bytes: u64,
        /// Its stored bytes.
        stored_bytes: u64,
    },
    /// A service's dump is done.
    Dumped {
        /// The service.
        service: ServiceId,
    },
    /// A service failed; without partial backups the whole backup does.
    Failed {
        /// The service.
        service: ServiceId,
        /// The error's public text.
        message: String,
    },
    /// The manifest is written: the backup exists.
    Committed,
}
