//! What made a backup run.

use std::fmt;

/// What made a backup run; written into its manifest.
///
/// ```
/// use stackkit_backup::Trigger;
/// assert_eq!(Trigger::Schedule.to_string(), "schedule");
/// assert_eq!(Trigger::Other("deploy".to_owned()).as_str(), "deploy");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trigger {
    /// A [`Schedule`](crate::Schedule).
    Schedule,
    /// A person.
    Manual,
    /// A restore is about to overwrite what is backed up here.
    BeforeRestore,
    /// Anything else, in the caller's word.
    Other(String),
}

impl Trigger {
    /// The word for it: `schedule`, `manual`, `before_restore`, or the caller's.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::BeforeRestore => "before_restore",
            Self::Other(word) => word,
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
