//! Verify: whether a backup is still what it was.

mod chain;
mod check;
mod drill;
mod evidence;
mod last;
mod locate;
mod report;
mod sample;
mod verification;

use stackkit_core::{Error, ErrorKind, Result, Stack};

pub use chain::{ChainFault, ChainFinding, ChainHead, ChainReport};
pub(crate) use check::Check;
pub use drill::{CensusVerdict, DrillVerdict};
pub use evidence::{Evidence, EvidenceState};
pub(crate) use last::Last;
pub use report::{ArtifactVerdict, Finding, RepositoryFinding, VerifyLevel, VerifyReport};
pub use sample::Sample;
pub(crate) use sample::Share;
pub use verification::Verification;

use crate::id::BackupId;
use crate::keys::TrustedKey;
use crate::repository::Repository;

impl Repository {
    /// Checks a backup, the chain that it is in, and the repository's own two objects, and leaves evidence.
    /// [`verification`](Self::verification) has options; the level drill needs one.
    ///
    /// What is damaged is in the report; an error means that the check could not be made.
    ///
    /// # Errors
    /// `NotFound` if there is no such backup; `Integrity` if its manifest is damaged or not trusted, naming it; `Config`
    /// for the level drill, and for an encrypted backup without an identity; the storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: then no evidence is left.
    pub async fn verify(&self, id: &BackupId, level: VerifyLevel) -> Result<VerifyReport> {
        self.verification(id).level(level).run().await
    }

    /// As [`verify`](Self::verify); at the level `Content` each provider of the stack parses its artifacts too, as
    /// the vendor would.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    ///
    /// # Cancel safety
    /// As [`verify`](Self::verify).
    pub async fn verify_with(&self, id: &BackupId, level: VerifyLevel, stack: &Stack) -> Result<VerifyReport> {
        self.verification(id).level(level).with_stack(stack).run().await
    }

    /// Prepares a check of a backup, at the level [`Content`](VerifyLevel::Content) unless it is said;
    /// [`Verification::run`] makes it.
    pub fn verification<'a>(&'a self, id: &BackupId) -> Verification<'a> {
        Verification::new(self, *id)
    }

    /// Whether a document that this key signed (`None`: nobody) is believed, as a manifest would be.
    fn believes(&self, signer: Option<TrustedKey>) -> bool {
        self.trust().accept(self.trust().judge(signer), self.marker().is_signed()).is_ok()
    }
}

/// Whether an error is a property of the backup, and not of the way to it. `ToolFailed`: a vendor's tool that a provider
/// asked refuses the bytes.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Integrity | ErrorKind::Io | ErrorKind::ToolFailed)
}
