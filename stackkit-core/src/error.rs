//! The one error type of stackkit.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::backup::TargetState;
use crate::service::ServiceId;

/// A boxed cause, as [`Error::with_source`] takes it.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// The result of every fallible operation in stackkit.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in terms that a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is wrong; mend it and start again.
    Config,
    /// Nothing answers at the address.
    Unreachable,
    /// The deadline passed before an answer came.
    Timeout,
    /// The server does not accept the credentials.
    Unauthenticated,
    /// The credentials are right, but a right is missing.
    PermissionDenied,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already.
    AlreadyExists,
    /// This version of the server or of stackkit cannot do it.
    Unsupported,
    /// A vendor tool is not installed, or is too old.
    ToolMissing,
    /// A vendor tool ran and failed.
    ToolFailed,
    /// Bytes are not what they were: damaged, cut or foreign.
    Integrity,
    /// Two versions or states do not fit each other, a stale plan among them.
    Incompatible,
    /// Somebody else holds it; try again later.
    Busy,
    /// The server is up but still starting.
    Starting,
    /// The server is up but has no room for another client.
    Saturated,
    /// The caller cancelled.
    Cancelled,
    /// The operating system or the storage failed, a full disk among them.
    Io,
    /// A bug of stackkit or an answer that the protocol does not allow.
    Unexpected,
}

impl ErrorKind {
    /// The kind as the snake-case word that JSON views print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Unsupported => "unsupported",
            Self::ToolMissing => "tool_missing",
            Self::ToolFailed => "tool_failed",
            Self::Integrity => "integrity",
            Self::Incompatible => "incompatible",
            Self::Busy => "busy",
            Self::Starting => "starting",
            Self::Saturated => "saturated",
            Self::Cancelled => "cancelled",
            Self::Io => "io",
            Self::Unexpected => "unexpected",
        }
    }

    /// Whether the same call may succeed when it is made again.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout | Self::Busy | Self::Starting | Self::Saturated)
    }

    /// Whether waiting alone, with nobody changing the configuration, may mend it.
    ///
    /// Waiting for a stack to start stops at once on an error that this says no to: a wrong password does not
    /// become right. `Io` may mend (a disk gets room, a server finishes its recovery).
    #[must_use]
    pub fn mends_by_waiting(self) -> bool {
        self.retryable() || matches!(self, Self::Io)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The step of a conversation with a server in which an error arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Resolving the host name.
    Dns,
    /// Opening the connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Presenting credentials.
    Auth,
    /// Waiting for a connection of a pool.
    Checkout,
    /// Waiting for the answer to a command.
    Query,
    /// Reading the answer.
    Decode,
}

impl Phase {
    /// The phase as the snake-case word that JSON views print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Checkout => "checkout",
            Self::Query => "query",
            Self::Decode => "decode",
        }
    }
}

/// Whether an operation is worth repeating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryClass {
    /// Repeating cannot help.
    Never,
    /// Repeating later may help.
    Later,
    /// It was repeated, and still failed.
    Exhausted,
}

/// The error of every operation: a kind to act on, own facts to show, and the cause to log.
///
/// `Display` prints one lower-case line of stackkit's own facts, never the cause's text; [`Error::chain`] prints
/// the causes too and is for logs. The type is one pointer wide.
///
/// ```
/// use stackkit_core::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::Unreachable, "nothing listens")
///     .with_operation("connect")
///     .with_context("host", "db.internal")
///     .with_context("port", 5432)
///     .with_source(std::io::Error::other("connection refused"));
/// assert_eq!(error.kind(), ErrorKind::Unreachable);
/// assert_eq!(error.to_string(), "connect: nothing listens (host=db.internal, port=5432)");
/// assert_eq!(error.chain().to_string(), "connect: nothing listens (host=db.internal, port=5432): connection refused");
/// ```
pub struct Error(Box<Inner>);

const _: () = assert!(size_of::<Error>() == size_of::<usize>(), "a Result<()> must stay one word");

struct Inner {
    kind: ErrorKind,
    retry_exhausted: bool,
    operation: Option<&'static str>,
    service: Option<ServiceId>,
    phase: Option<Phase>,
    code: Option<String>,
    target: Option<TargetState>,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` that says `message`: one lower-case line without a full stop, own facts only.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            retry_exhausted: false,
            operation: None,
            service: None,
            phase: None,
            code: None,
            target: None,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// [`ErrorKind::Config`] with a message.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// [`ErrorKind::Unreachable`] during `operation`, caused by `source`.
    pub fn unreachable(operation: &'static str, source: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Unreachable, "the server can't be reached").with_operation(operation).with_source(source)
    }

    /// [`ErrorKind::Unexpected`] with a message: a bug, or an answer that no protocol allows.
    pub fn unexpected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unexpected, message)
    }

    /// [`ErrorKind::Integrity`] with a message.
    pub fn integrity(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Integrity, message)
    }

    /// An input or output error during `operation`, with the kind that fits the system's code.
    #[must_use]
    pub fn io(operation: &'static str, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Os;
        let (kind, message) = match source.kind() {
            Os::NotFound => (ErrorKind::NotFound, "no such file or directory"),
            Os::PermissionDenied => (ErrorKind::PermissionDenied, "the operating system denies access"),
            Os::AlreadyExists => (ErrorKind::AlreadyExists, "exists already"),
            Os::TimedOut => (ErrorKind::Timeout, "the operating system timed out"),
            Os::StorageFull | Os::QuotaExceeded => (ErrorKind::Io, "the disk is full"),
            Os::ReadOnlyFilesystem => (ErrorKind::Io, "the file system is read-only"),
            Os::ConnectionRefused => (ErrorKind::Unreachable, "the connection was refused"),
            Os::ConnectionReset | Os::ConnectionAborted | Os::BrokenPipe | Os::UnexpectedEof => {
                (ErrorKind::Io, "the connection or stream ended early")
            }
            _ => (ErrorKind::Io, "input or output failed"),
        };
        Self::new(kind, message).with_operation(operation).with_source(source)
    }

    /// Replaces the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Names the operation, unless one is named already: the innermost knows best.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the service, unless one is named already.
    #[must_use]
    pub fn with_service(mut self, service: ServiceId) -> Self {
        self.0.service.get_or_insert(service);
        self
    }

    /// Sets the phase of the conversation.
    #[must_use]
    pub fn with_phase(mut self, phase: Phase) -> Self {
        self.0.phase = Some(phase);
        self
    }

    /// Sets the vendor's own code: SQLSTATE, Redis error prefix, reply code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// Says which data a failed restore left in the target.
    #[must_use]
    pub fn with_target(mut self, target: TargetState) -> Self {
        self.0.target = Some(target);
        self
    }

    /// Adds a fact. Never a secret: the value is printed.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Sets the cause. `Display` never prints it; [`Error::chain`] and `source()` do.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Marks that retries were made and did not help.
    #[must_use]
    pub fn with_retries_exhausted(mut self) -> Self {
        self.0.retry_exhausted = true;
        self
    }

    /// What went wrong, in terms to act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone: own words, fit for a public view.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed, if it was named.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The service it concerns, if one was named.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceId> {
        self.0.service.as_ref()
    }

    /// The phase of the conversation, if known.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.0.phase
    }

    /// The vendor's own code, if there is one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Which data a failed restore left in the target, if the failure was a restore's.
    #[must_use]
    pub fn target(&self) -> Option<TargetState> {
        self.0.target
    }

    /// The facts added with [`Error::with_context`], in order.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// Whether the same call may succeed when it is made again, and whether that was tried.
    #[must_use]
    pub fn retry(&self) -> RetryClass {
        match (self.0.kind.retryable(), self.0.retry_exhausted) {
            (_, true) => RetryClass::Exhausted,
            (true, false) => RetryClass::Later,
            (false, false) => RetryClass::Never,
        }
    }

    /// Whether the same call may succeed when it is made again.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.retry() == RetryClass::Later
    }

    /// Whether waiting alone may mend it: see [`ErrorKind::mends_by_waiting`].
    #[must_use]
    pub fn mends_by_waiting(&self) -> bool {
        self.0.kind.mends_by_waiting()
    }

    /// Prints this error and all its causes, outermost first, joined by `": "`. For logs, never for public views.
    #[must_use]
    pub fn chain(&self) -> Chain<'_> {
        Chain(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(service) = &inner.service {
            write!(f, "{service}: ")?;
        }
        if let Some(operation) = inner.operation {
            write!(f, "{operation}: ")?;
        }
        write_line(f, &inner.message)?;
        let code = inner.code.iter().map(|code| ("code", code.as_str()));
        let target = inner.target.map(|target| ("target", target.as_str()));
        let mut separator = " (";
        for (key, value) in self.context().chain(code).chain(target) {
            write!(f, "{separator}{key}=")?;
            write_line(f, value)?;
            separator = ", ";
        }
        if separator == ", " {
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// Keeps a text on its line: a name may hold a line feed, or what a terminal takes for a command.
fn write_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "{}", OneLine(text))
}

/// Prints a text on one line, its control characters escaped: names of files, databases and keys are not ours.
///
/// ```
/// assert_eq!(stackkit_core::OneLine("shop\n  drop all").to_string(), r"shop\n  drop all");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |c: char| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) };
        self.0.chars().try_for_each(escaped)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}: {})", self.0.kind, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Prints an error with its causes: see [`Error::chain`].
pub struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_never_prints_the_source() {
        let error = Error::io("read", std::io::Error::other("driver text"));
        assert_eq!(error.to_string(), "read: input or output failed");
        assert!(error.chain().to_string().ends_with(": driver text"));
    }

    #[test]
    fn display_stays_on_one_line() {
        let error = Error::config("a\nb").with_context("path", "x\u{1b}[2Jy\tü");
        assert_eq!(error.to_string(), "a\\nb (path=x\\u{1b}[2Jy\\tü)");
    }

    #[test]
    fn innermost_operation_and_service_win() {
        let service = |text: &str| ServiceId::new(text).expect("a valid id");
        let error = Error::config("bad")
            .with_operation("inner")
            .with_service(service("a"))
            .with_operation("outer")
            .with_service(service("b"));
        assert_eq!(error.to_string(), "a: inner: bad");
    }

    #[test]
    fn a_wrong_password_does_not_mend_by_waiting() {
        assert!(!ErrorKind::Unauthenticated.mends_by_waiting());
        assert!(!ErrorKind::NotFound.mends_by_waiting());
        assert!(ErrorKind::Unreachable.mends_by_waiting());
        assert!(ErrorKind::Starting.mends_by_waiting());
    }

    #[test]
    fn exhausted_retries_are_not_retryable() {
        let error = Error::new(ErrorKind::Busy, "held");
        assert!(error.retryable());
        assert!(!error.with_retries_exhausted().retryable());
    }
}
