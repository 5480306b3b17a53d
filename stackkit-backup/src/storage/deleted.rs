//! What a deletion did.

use jiff::Timestamp;

/// What became of an object that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// It is not there any more. A storage that does not tell whether it was there says this too.
    Gone,
    /// It was not there.
    Absent,
    /// It is protected from deletion, and still there.
    Locked {
        /// When the protection ends; `None` if it has no end that is known, as with a legal hold.
        until: Option<Timestamp>,
    },
}

/// What becomes of the bytes of deleted objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeletedBytes {
    /// They are freed.
    Freed,
    /// The bucket keeps them as old versions, until a rule of the bucket or its owner removes them.
    KeptAsVersions,
}
