//! From what the system says to the one error type.

use std::io;

use stackkit_core::{Error, ErrorKind, Phase};

/// What can go wrong on the way to an observation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("the host name can't be resolved")]
    Resolve(#[source] io::Error),
    #[error("the host name has no address")]
    NoAddress,
    #[error("an earlier look-up of the host name has not returned")]
    ResolverStuck,
    #[error("nothing accepts connections there")]
    Connect(#[source] io::Error),
    #[error("the operating system denies access")]
    Denied(#[source] io::Error),
    #[error("no answer before the deadline")]
    Deadline(Phase),
    #[error("the connection failed")]
    Io(Phase, #[source] io::Error),
    #[error("the server closed the connection")]
    Closed(Phase),
    #[error("an earlier look has not returned")]
    Stuck,
    #[error("the thread that looked ended without an answer")]
    Looker(#[source] Option<io::Error>),
    #[cfg(feature = "http")]
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[cfg(feature = "http")]
    #[error("{}", crate::http::certificate_words(.0))]
    Certificate(rustls::CertificateError),
    #[cfg(feature = "http")]
    #[error("the answer is not of the protocol")]
    Protocol(#[source] hyper::Error),
    #[cfg(feature = "http")]
    #[error("the connection ended before the whole answer was there")]
    Exchange(Phase, #[source] hyper::Error),
}

impl CheckError {
    /// A failure to connect: what is denied will not be allowed by waiting.
    pub(crate) fn connect(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied { Self::Denied(error) } else { Self::Connect(error) }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Resolve(_) | Self::NoAddress | Self::Connect(_) | Self::Io(..) | Self::Closed(_) => {
                ErrorKind::Unreachable
            }
            Self::Denied(_) => ErrorKind::PermissionDenied,
            Self::Deadline(_) | Self::Stuck | Self::ResolverStuck => ErrorKind::Timeout,
            Self::Looker(_) => ErrorKind::Io,
            #[cfg(feature = "http")]
            Self::Tls(_) | Self::Exchange(..) => ErrorKind::Unreachable,
            #[cfg(feature = "http")]
            Self::Certificate(_) => ErrorKind::Config,
            #[cfg(feature = "http")]
            Self::Protocol(_) => ErrorKind::Unexpected,
        }
    }

    fn phase(&self) -> Option<Phase> {
        match self {
            Self::Resolve(_) | Self::NoAddress | Self::ResolverStuck => Some(Phase::Dns),
            Self::Connect(_) | Self::Denied(_) => Some(Phase::Connect),
            Self::Deadline(phase) | Self::Io(phase, _) | Self::Closed(phase) => Some(*phase),
            Self::Stuck | Self::Looker(_) => None,
            #[cfg(feature = "http")]
            Self::Tls(_) | Self::Certificate(_) => Some(Phase::Tls),
            #[cfg(feature = "http")]
            Self::Protocol(_) => Some(Phase::Decode),
            #[cfg(feature = "http")]
            Self::Exchange(phase, _) => Some(*phase),
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            Self::Stuck | Self::ResolverStuck => Some("stuck"),
            #[cfg(feature = "http")]
            Self::Certificate(error) => Some(crate::http::certificate_code(error)),
            _ => None,
        }
    }
}

impl From<CheckError> for Error {
    fn from(error: CheckError) -> Self {
        let mut mapped = Self::new(error.kind(), error.to_string());
        if let Some(phase) = error.phase() {
            mapped = mapped.with_phase(phase);
        }
        if let Some(code) = error.code() {
            mapped = mapped.with_code(code);
        }
        match error {
            CheckError::Resolve(source)
            | CheckError::Connect(source)
            | CheckError::Denied(source)
            | CheckError::Io(_, source)
            | CheckError::Looker(Some(source)) => mapped.with_source(source),
            #[cfg(feature = "http")]
            CheckError::Tls(source) => mapped.with_source(source),
            #[cfg(feature = "http")]
            CheckError::Certificate(reason) => mapped.with_source(rustls::Error::InvalidCertificate(reason)),
            #[cfg(feature = "http")]
            CheckError::Protocol(source) | CheckError::Exchange(_, source) => mapped.with_source(source),
            _ => mapped,
        }
    }
}
