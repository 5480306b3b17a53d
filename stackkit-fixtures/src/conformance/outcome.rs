//! How a scenario ends.

use std::fmt;

use libtest_mimic::{Completion, Failed};
use stackkit_core::{Error, ErrorKind};

use crate::require::is_required;

/// Why a scenario failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Something returned an error that the scenario did not expect.
    Error(Error),
    /// A sentence of the contract does not hold; which, and what was seen.
    Broken(String),
}

/// What a scenario gives.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Turns the end of a trial of the store `kind` into what the runner shows: a store whose server is not installed
    /// is ignored with the reason, or failed if `STACKKIT_REQUIRE` names it.
    pub(crate) fn completion(kind: &str, outcome: Outcome) -> Result<Completion, Failed> {
        match outcome {
            Ok(()) => Ok(Completion::Completed),
            Err(Self::Error(error)) if error.kind() == ErrorKind::ToolMissing && !is_required(kind) => {
                Ok(Completion::ignored_with(error))
            }
            Err(failure) => Err(Failed::from(failure)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "{:?}: {}", error.kind(), error.chain()),
            Self::Broken(sentence) => f.write_str(sentence),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Error(Error::io("test", error))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Broken(format!("JSON: {error}"))
    }
}

/// Fails with `sentence` unless `holds`.
///
/// # Errors
/// [`Failure::Broken`].
pub fn check(holds: bool, sentence: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::Broken(sentence())) }
}

/// Fails unless both are the same.
///
/// # Errors
/// [`Failure::Broken`] with both.
pub fn same<T: PartialEq + fmt::Debug>(what: &str, expected: &T, found: &T) -> Outcome {
    check(expected == found, || format!("{what}: expected {expected:?}, found {found:?}"))
}

/// Gives the error of a call that must fail with one of `kinds`.
///
/// # Errors
/// [`Failure::Broken`] if it succeeded or failed with another kind.
pub fn refused<T>(what: &str, kinds: &[ErrorKind], result: stackkit_core::Result<T>) -> Outcome<Error> {
    match result {
        Ok(_) => Err(Failure::Broken(format!("{what} succeeded"))),
        Err(error) if kinds.is_empty() || kinds.contains(&error.kind()) => Ok(error),
        Err(error) => {
            Err(Failure::Broken(format!("{what} failed with {:?}, not {kinds:?}: {}", error.kind(), error.chain())))
        }
    }
}
