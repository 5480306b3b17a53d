//! How the tool ends: one code for each way, and the error that goes with it.

use std::process::ExitCode;

use stackkit::{Error, ErrorKind};

/// The fact that the engine adds to each error of a repository's storage.
pub(crate) const STORED_OBJECT: &str = "object";

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
        // A full repository fails the dump of a service, and so names both: the object tells whose failure it is.
        let is_stored = error.context().any(|(key, _)| key == STORED_OBJECT);
        let exit = match (error.kind(), error.service()) {
            (ErrorKind::Config, _) | (ErrorKind::Unsupported, None) => Exit::Usage,
            (ErrorKind::Integrity, _) | (_, None) => Exit::Repository,
            (_, Some(_)) if is_stored => Exit::Repository,
            (_, Some(_)) => Exit::Service,
        };
        Self { exit, error }
    }
}

#[cfg(test)]
mod tests {
    use stackkit::ServiceId;

    use super::*;

    #[test]
    fn whose_failure_it_is_decides_the_code() {
        let error = |kind| Error::new(kind, "text");
        let service = || ServiceId::new("cache").unwrap();
        for (error, exit) in [
            (error(ErrorKind::Config).with_service(service()), Exit::Usage),
            (error(ErrorKind::Unsupported), Exit::Usage),
            (error(ErrorKind::Unreachable).with_service(service()), Exit::Service),
            (error(ErrorKind::Integrity).with_service(service()), Exit::Repository),
            (error(ErrorKind::Io).with_context("object", "backups/x").with_service(service()), Exit::Repository),
            (error(ErrorKind::Io).with_context("entry", "TABLE DATA t").with_service(service()), Exit::Service),
            (error(ErrorKind::Io), Exit::Repository),
        ] {
            let text = error.to_string();
            assert_eq!(Failure::repository(error).exit, exit, "{text}");
        }
    }
}
