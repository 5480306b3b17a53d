//! Locks against deletion.

use std::fmt;

/// How strictly an object is locked in a bucket with object lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectLockMode {
    /// Whoever has the right `s3:BypassGovernanceRetention` can still delete it.
    Governance,
    /// Nobody can delete it or shorten the lock before it ends, the bucket's owner included.
    Compliance,
}

impl ObjectLockMode {
    /// The word that S3 uses: `GOVERNANCE` or `COMPLIANCE`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

impl fmt::Display for ObjectLockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
