//! The one place where the storage's errors become stackkit's.

use std::error::Error as StdError;
use std::io;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use object_store::Error as StoreError;
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind, Result};

use crate::storage::NotAFile;

/// Turns an error of the storage during `operation` on `path` into stackkit's. The fact `object` marks it as one of the
/// storage, also when it failed a service's dump.
pub(crate) fn storage(operation: &'static str, path: &Path, source: StoreError) -> Error {
    let plain = |kind, message: &str| Error::new(kind, message).with_operation(operation);
    let error = match &source {
        StoreError::NotFound { .. } => plain(ErrorKind::NotFound, "the repository has no such object"),
        StoreError::AlreadyExists { .. } => plain(ErrorKind::AlreadyExists, "the object exists already"),
        StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
            plain(ErrorKind::Busy, "the object was changed by somebody else")
        }
        StoreError::PermissionDenied { .. } => plain(ErrorKind::PermissionDenied, "the repository denies access"),
        StoreError::Unauthenticated { .. } => {
            plain(ErrorKind::Unauthenticated, "the repository does not accept the credentials")
        }
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            plain(ErrorKind::Unsupported, "the repository's storage can't do this")
        }
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            plain(ErrorKind::Config, "the repository's storage does not accept this")
        }
        StoreError::Generic { source, .. } if source.is::<NotAFile>() => {
            plain(ErrorKind::Integrity, "something that is no file is in the place of the object")
        }
        StoreError::JoinError { .. } => plain(ErrorKind::Cancelled, "the runtime ended"),
        other => {
            // The text of the system is behind the storage's own error, which becomes the source below.
            let system = system_code(other).map(|code| Error::io(operation, io::Error::from(code)));
            match (system, network_fault(other)) {
                (Some(system), None) => plain(system.kind(), system.message()),
                // A failed handshake is an unknown fault to the system.
                (Some(system), Some(_)) if system.kind() != ErrorKind::Io => plain(system.kind(), system.message()),
                (_, Some((kind, message))) => plain(kind, message),
                (None, None) => plain(ErrorKind::Io, "the repository's storage failed"),
            }
        }
    };
    error.with_context("object", path).with_source(source)
}

/// Waits for the work of a provider. A panic in it fails the service, as any other error of it does; its text may hold
/// anything, so it is not told.
pub(crate) async fn contained<T>(operation: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    // What a panic may leave broken is the provider's own, and it is not asked for anything again in this backup.
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|_panic| Err(Error::unexpected("the provider panicked").with_operation(operation)))
}

/// The kind of the first error of the operating system among the causes.
fn system_code(error: &StoreError) -> Option<io::ErrorKind> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(system) = error.downcast_ref::<io::Error>() {
            return Some(system.kind());
        }
        cause = error.source();
    }
    None
}

/// What the HTTP client says of a request that got no answer, where the operating system says nothing.
#[cfg(feature = "s3")]
fn network_fault(error: &StoreError) -> Option<(ErrorKind, &'static str)> {
    use object_store::client::{HttpError, HttpErrorKind};
    let mut cause = error.source();
    while let Some(error) = cause {
        match error.downcast_ref::<HttpError>().map(HttpError::kind) {
            Some(HttpErrorKind::Timeout) => {
                return Some((ErrorKind::Timeout, "the repository's storage did not answer in time"));
            }
            Some(HttpErrorKind::Connect) => {
                return Some((ErrorKind::Unreachable, "the repository's storage can't be reached"));
            }
            _ => cause = error.source(),
        }
    }
    None
}

#[cfg(not(feature = "s3"))]
fn network_fault(_error: &StoreError) -> Option<(ErrorKind, &'static str)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_and_the_storage_text_stays_a_source() {
        let cause = io::Error::new(io::ErrorKind::StorageFull, "driver text");
        let error = storage("write", &Path::from("a/b"), StoreError::Generic { store: "Test", source: cause.into() });
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(error.to_string(), "write: the disk is full (object=a/b)");
        assert!(error.chain().to_string().contains("driver text"));
    }
}
