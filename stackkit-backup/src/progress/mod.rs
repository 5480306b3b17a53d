//! What an operation tells while it runs: one stream of events, and a meter that makes rate and time left of it.

mod counted;
mod meter;

use std::fmt;
use std::sync::Arc;

use stackkit_core::ServiceId;
use stackkit_core::backup::ArtifactName;

pub(crate) use counted::{Counted, Steps};
pub use meter::{ArtifactProgress, Meter, ProgressSnapshot};

use crate::hook::HookPoint;
use crate::id::BackupId;

/// Takes the events of an operation. Called from the operation's own task: it must not block.
///
/// Every `Fn(&ProgressEvent)` is one, and so is [`Meter`].
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

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// A backup of a stack.
    Backup,
    /// A check of a backup.
    Verify,
    /// Backups are copied to another repository.
    Copy,
    /// A backup is brought back.
    Restore,
    /// Expired backups, or what crashes left, are removed.
    Prune,
}

/// Which part of an operation runs. An operation goes through some of them, in an order of its own, and ends with
/// [`Done`](Self::Done) if it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProgressPhase {
    /// What is needed is looked up, and hooks run.
    Preparing,
    /// Backup: each service pins its point in time.
    Pinning,
    /// Backup: plain bytes are read from the services, and stored.
    Dumping,
    /// Backup: every byte was handed over; the storage is asked whether it has them.
    Storing,
    /// Backup, copy: the manifest is written.
    Committing,
    /// Verify, restore: all bytes are read and checked. A drill comes back to it for each service.
    Checking,
    /// Copy: stored bytes are copied.
    Copying,
    /// Restore, drill: plain bytes are given to the services.
    Restoring,
    /// Prune: objects are removed.
    Removing,
    /// The operation has succeeded.
    Done,
}

impl ProgressPhase {
    /// The word for it: `dumping`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Pinning => "pinning",
            Self::Dumping => "dumping",
            Self::Storing => "storing",
            Self::Committing => "committing",
            Self::Checking => "checking",
            Self::Copying => "copying",
            Self::Restoring => "restoring",
            Self::Removing => "removing",
            Self::Done => "done",
        }
    }

    /// Whether bytes are counted in it: such a phase begins to count at 0.
    #[must_use]
    pub fn moves_bytes(self) -> bool {
        matches!(self, Self::Dumping | Self::Checking | Self::Copying | Self::Restoring | Self::Removing)
    }
}

impl fmt::Display for ProgressPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step of an operation. Numbers of bytes are totals until now, never differences: an event that is not seen is made
/// good by the next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressEvent {
    /// The operation begins; told first.
    Started {
        /// Which one.
        operation: Operation,
    },
    /// A phase begins.
    Phase {
        /// Which one.
        phase: ProgressPhase,
        /// How many bytes it will read, or for [`ProgressPhase::Removing`] free: for [`ProgressPhase::Dumping`] an
        /// estimate (see [`Expected`](Self::Expected)), else the exact number. `None`: not known, or not yet.
        expected_bytes: Option<u64>,
    },
    /// Backup: the stack's last backup was looked up, so it is known how many bytes there will be about.
    Expected {
        /// As many as that one read of the same services.
        bytes: u64,
    },
    /// Backup, restore: a hook runs.
    Hook {
        /// When.
        point: HookPoint,
        /// Its name.
        name: String,
        /// The service that it is for; `None`: for all.
        service: Option<ServiceId>,
    },
    /// Backup: a service's point in time is pinned.
    Pinned {
        /// The service.
        service: ServiceId,
    },
    /// Backup: bytes of an artifact were taken; told every 8 MiB, and every second while bytes come.
    Written {
        /// The service.
        service: ServiceId,
        /// The artifact.
        artifact: ArtifactName,
        /// Its plain bytes until now.
        plain_bytes: u64,
        /// How many bytes of the object were made of them until now.
        stored_bytes: u64,
    },
    /// Backup: an artifact exists.
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
    /// Backup: a service's dump is done.
    Dumped {
        /// The service.
        service: ServiceId,
    },
    /// Verify, copy, restore: bytes of an artifact were read in this phase: plain ones, but stored ones in a copy and in
    /// a verify at the level stored.
    Read {
        /// The service.
        service: ServiceId,
        /// The artifact.
        artifact: ArtifactName,
        /// How many until now.
        bytes: u64,
    },
    /// Restore, drill: a service has its data back, a drill's in a scratch store.
    Restored {
        /// The service.
        service: ServiceId,
    },
    /// Prune: a backup, or what was left of one, is gone.
    Removed {
        /// The backup.
        backup: BackupId,
        /// How many bytes that freed.
        freed_bytes: u64,
    },
    /// A service failed. Unless partial results were asked for, the whole operation does.
    Failed {
        /// The service.
        service: ServiceId,
        /// The error's public text.
        message: String,
    },
    /// Backup, copy: the manifest is written, so the backup exists.
    Committed,
}

/// Where events go, if anybody listens.
#[derive(Clone, Default)]
pub(crate) struct Reporter(Option<Arc<dyn Progress>>);

impl Reporter {
    pub(crate) fn new(progress: Option<Arc<dyn Progress>>) -> Self {
        Self(progress)
    }

    pub(crate) fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn tell(&self, event: impl FnOnce() -> ProgressEvent) {
        if let Some(progress) = &self.0 {
            progress.event(&event());
        }
    }

    pub(crate) fn started(&self, operation: Operation) {
        self.tell(|| ProgressEvent::Started { operation });
    }

    pub(crate) fn phase(&self, phase: ProgressPhase, expected_bytes: Option<u64>) {
        self.tell(|| ProgressEvent::Phase { phase, expected_bytes });
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reporter").field(&self.is_heard()).finish()
    }
}
