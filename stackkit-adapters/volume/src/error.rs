//! The crate's own error, and the one conversion into [`stackkit_core::Error`].

use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;
use stackkit_core::backup::CensusDifference;
use stackkit_core::{Error, ErrorKind, Phase};

use crate::archive::ArchiveError;

/// What goes wrong with a directory or its archive.
#[derive(Debug)]
pub(crate) enum VolumeError {
    /// The system refused `action` on `path`.
    Os { action: &'static str, path: PathText, errno: Errno },
    /// The swap stopped half-way and could not be undone.
    HalfSwapped { old: PathText, errno: Errno },
    /// The archive can't be read.
    Archive(ArchiveError),
    /// A member of the archive would write outside the target, or twice.
    Refused { path: PathText, reason: &'static str },
    /// It can't be stored or restored; nothing is damaged.
    Unsupported { path: PathText, reason: &'static str },
    /// The path holds something else than a directory.
    NotADirectory { path: PathText },
    /// The target is not what it was when the plan was made.
    Stale { path: PathText },
    /// The plan can't be carried out here.
    Plan { reason: String },
    /// The restored data is not what was dumped.
    Census { differences: Vec<CensusDifference> },
    /// An earlier look at the directory has not returned.
    Stuck { path: PathText },
    /// Whoever waited for the work is gone.
    Cancelled,
    /// The thread that did the work panicked or could not start.
    Worker(Option<tokio::task::JoinError>),
}

/// The result of the crate's own functions.
pub(crate) type Result<T, E = VolumeError> = std::result::Result<T, E>;

/// A path for people: what is no UTF-8 is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathText(String);

impl PathText {
    /// The path `bytes`, relative to the volume; the volume itself is `.`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self(".".to_owned()),
            _ => Self(String::from_utf8_lossy(bytes).escape_debug().to_string()),
        }
    }
}

impl From<&std::path::Path> for PathText {
    fn from(path: &std::path::Path) -> Self {
        Self::new(path.as_os_str().as_encoded_bytes())
    }
}

impl From<&PathBuf> for PathText {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl fmt::Display for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes an error of a system call's.
pub(crate) fn os(action: &'static str, path: impl Into<PathText>) -> impl FnOnce(Errno) -> VolumeError {
    let path = path.into();
    move |errno| VolumeError::Os { action, path, errno }
}

/// As [`os`], for a path inside the volume.
pub(crate) fn os_at(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> VolumeError {
    os(action, PathText::new(path))
}

impl From<ArchiveError> for VolumeError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

/// How many differences of a census an error names; the rest is counted.
const DIFFERENCES_SHOWN: usize = 3;

impl From<VolumeError> for Error {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::Os { action, path, errno: errno @ (Errno::BUSY | Errno::XDEV) } => Self::new(
                ErrorKind::Unsupported,
                "a mount point or a lower layer of an overlay can't be moved; restore elsewhere",
            )
            .with_operation(action)
            .with_context("path", path)
            .with_source(std::io::Error::from(errno)),
            VolumeError::HalfSwapped { old, errno } => {
                Self::new(ErrorKind::Io, "the new data is not in its place, and the old data could not be put back")
                    .with_context("old_data", old)
                    .with_source(std::io::Error::from(errno))
            }
            VolumeError::Os { action, path, errno } => {
                Self::io(action, std::io::Error::from(errno)).with_context("path", path)
            }
            VolumeError::Archive(fault) => {
                let kind = if fault.fault.is_unsupported() { ErrorKind::Unsupported } else { ErrorKind::Integrity };
                Self::new(kind, format!("the archive can't be read: {}", fault.fault))
                    .with_context("offset", fault.offset)
            }
            VolumeError::Refused { path, reason } => {
                Self::integrity(format!("the archive holds an entry that is refused: {reason}"))
                    .with_context("path", path)
            }
            VolumeError::Unsupported { path, reason } => {
                Self::new(ErrorKind::Unsupported, reason).with_context("path", path)
            }
            VolumeError::NotADirectory { path } => {
                Self::config("the path of the volume is not a directory").with_context("path", path)
            }
            VolumeError::Stale { path } => {
                Self::new(ErrorKind::Incompatible, "the directory changed since the plan was made; make a new plan")
                    .with_context("path", path)
            }
            VolumeError::Plan { reason } => Self::new(ErrorKind::Incompatible, reason),
            VolumeError::Census { differences } => census_error(&differences),
            VolumeError::Stuck { path } => Self::new(ErrorKind::Timeout, "the file system does not answer: stuck")
                .with_code("stuck")
                .with_phase(Phase::Query)
                .with_context("path", path),
            VolumeError::Cancelled => Self::new(ErrorKind::Cancelled, "the caller gave up"),
            VolumeError::Worker(source) => {
                let error = Self::unexpected("the thread that reads or writes the directory failed");
                match source {
                    Some(source) => error.with_source(source),
                    None => error,
                }
            }
        }
    }
}

fn census_error(differences: &[CensusDifference]) -> Error {
    let error = Error::integrity("the restored files are not those of the dump");
    let shown = differences.iter().take(DIFFERENCES_SHOWN);
    shown.fold(error, |error, difference| error.with_context("difference", difference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_what_a_caller_acts_on() {
        let kind = |errno| Error::from(os_at("open", b"a")(errno)).kind();
        assert_eq!(kind(Errno::ACCESS), ErrorKind::PermissionDenied);
        assert_eq!(kind(Errno::NOENT), ErrorKind::NotFound);
        assert_eq!(kind(Errno::NOSPC), ErrorKind::Io);
        assert_eq!(kind(Errno::ROFS), ErrorKind::Io);
        assert_eq!(kind(Errno::BUSY), ErrorKind::Unsupported);
    }

    #[test]
    fn names_cannot_forge_lines() {
        assert_eq!(PathText::new(b"a\nb\xff").to_string(), "a\\nb\u{fffd}");
        assert_eq!(PathText::new(b"").to_string(), ".");
    }
}
