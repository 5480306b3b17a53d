//! How the tool ends: one code for each way, and the error that goes with it.

use std::process::ExitCode;

use stackkit::{Error, ErrorKind};

/// The exit codes; they are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// The answer is no: unhealthy, not verified, nothing to restore.
    No,
    /// The command line, the environment or the configuration is wrong.
    Usage,
    /// A service failed.
    Service,
    /// The repository failed.
    Repository,
    /// A signal came; nothing is half-written.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Service => 3,
            Exit::Repository => 4,
            // As a shell counts an interrupt: 128 + SIGINT.
            Exit::Interrupted => 130,
        })
    }
}

/// Why a command could not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: Error,
}

/// What a command ends with.
pub(crate) type Outcome<T = Exit> = Result<T, Failure>;

impl Failure {
    /// Of the command line or the configuration.
    pub(crate) fn usage(error: Error) -> Self {
        Self { exit: Exit::Usage, error }
    }

    /// Of a call on the repository, which may talk to services too: their errors name them. Damaged bytes are the
    /// repository's, whosever they are; a storage that this version does not know is a matter of configuration.
    pub(crate) fn repository(error: Error) -> Self {
        let exit = match (error.kind(), error.service()) {
            (ErrorKind::Config, _) | (ErrorKind::Unsupported, None) => Exit::Usage,
            (ErrorKind::Integrity, _) | (_, None) => Exit::Repository,
            (_, Some(_)) => Exit::Service,
        };
        Self { exit, error }
    }
}
