//! The one place where failures of sockets, driver and server become stackkit's errors.

use std::error::Error as StdError;
use std::io;

use stackkit_core::{Endpoint, Error, ErrorKind, Phase, Result};

/// What can fail between this crate and a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostgresError {
    /// The host name has no address.
    #[error("the host name can't be resolved")]
    Resolve(Endpoint, #[source] io::Error),
    /// Nothing accepts the connection.
    #[error("the connection can't be opened")]
    Connect(Endpoint, #[source] io::Error),
    /// The conversation ended before the server was ready for queries.
    #[error("the start-up of the connection failed")]
    Handshake(Endpoint, Handshake, #[source] tokio_postgres::Error),
    /// The server answered a query with an error, or went away.
    #[error("a query failed")]
    Query(#[source] tokio_postgres::Error),
    /// The server answered a query of our own session with an error.
    #[error("a query failed")]
    Server(Reply),
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline(Endpoint, Phase),
    /// The answer does not have the shape that the query asks for.
    #[error("the answer can't be read")]
    Answer(&'static str),
    /// The server is older than what the queries read.
    #[error("the server is too old")]
    TooOld(u32),
}

/// An error as the server words it. The words may hold data: they are only ever a source.
#[derive(Debug, Clone, Default, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Reply {
    /// The SQLSTATE.
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: String,
    /// Where it happened, such as a line of a copy.
    pub(crate) place: String,
}

/// What is known about a start-up that failed beyond what the driver tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handshake {
    /// TLS was demanded and the server did not get as far as to begin it.
    pub(crate) tls_refused: bool,
    /// There was a password to send.
    pub(crate) has_password: bool,
}

impl From<PostgresError> for Error {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Resolve(at, source) => {
                let error = Self::new(ErrorKind::Unreachable, "the host name can't be resolved").with_phase(Phase::Dns);
                located(error, &at).with_source(source)
            }
            PostgresError::Connect(at, source) => {
                // A socket whose queue is full says so at once; over TCP the attempt waits.
                let is_full = source.kind() == io::ErrorKind::WouldBlock;
                let kind = if is_full { ErrorKind::Saturated } else { ErrorKind::Unreachable };
                located(Self::new(kind, connect_message(&source)), &at).with_phase(Phase::Connect).with_source(source)
            }
            PostgresError::Handshake(at, known, source) => located(handshake(known, source), &at),
            PostgresError::Query(source) => query(source),
            PostgresError::Server(reply) => {
                let too_long = (ErrorKind::Unsupported, TOO_LONG);
                let (kind, message) = if is_too_long(&reply) { too_long } else { classify(&reply.code) };
                Self::new(kind, message).with_code(&reply.code).with_phase(Phase::Query).with_source(reply)
            }
            PostgresError::Deadline(at, phase) => {
                located(Self::new(ErrorKind::Timeout, "the server did not answer in time"), &at).with_phase(phase)
            }
            PostgresError::TooOld(major) => {
                Self::new(ErrorKind::Unsupported, "the server is older than version 12").with_context("version", major)
            }
            PostgresError::Answer(what) => Self::new(ErrorKind::Unexpected, "the server's answer can't be read")
                .with_phase(Phase::Decode)
                .with_context("expected", what),
        }
    }
}

/// What is told of a value that no `COPY` can write. A length that was damaged looks the same.
const TOO_LONG: &str =
    "a value or a row is too long: as text it may have 1 GB (a bytea 512 MB), or its length is damaged";

/// The most that a server asks for a value that is only too long, in bytes: a `bytea` of 1 GB as text, and room for the
/// rest of its row. Lengths that are damaged are far beyond as a rule.
const ASKED_BYTES_MAX: u64 = 4 << 30;

/// Whether a value or a row is too long for the text that the server makes of it (`MaxAllocSize` in `memutils.h`, and
/// `enlargeStringInfo`); the first is an internal error, whose text is never translated.
fn is_too_long(reply: &Reply) -> bool {
    let asked = reply.message.strip_prefix("invalid memory alloc request size ").and_then(|size| size.parse().ok());
    let is_row = reply.code == "54000" && reply.detail.contains("Cannot enlarge string buffer");
    is_row || (reply.code == "XX000" && asked.is_some_and(|bytes: u64| bytes <= ASKED_BYTES_MAX))
}

/// Adds where it happened: host and port, or the socket's path.
fn located(error: Error, at: &Endpoint) -> Error {
    match (&at.path, at.port) {
        (Some(path), _) => error.with_context("socket", path),
        (None, Some(port)) => error.with_context("host", &at.host).with_context("port", port),
        (None, None) => error.with_context("host", &at.host),
    }
}

fn connect_message(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => "nothing listens there",
        io::ErrorKind::WouldBlock => "more clients wait there than the server takes",
        io::ErrorKind::PermissionDenied => "the operating system denies access to the socket",
        _ => "the connection can't be opened",
    }
}

fn handshake(known: Handshake, source: tokio_postgres::Error) -> Error {
    if source.as_db_error().is_some() {
        return server(source, Phase::Auth);
    }
    let cause = source.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let is_tls = cause.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<rustls::Error>());
    let (kind, phase, message) = match cause {
        Some(_) if is_tls => (ErrorKind::Config, Phase::Tls, "the TLS handshake failed"),
        Some(_) => (ErrorKind::Unreachable, Phase::Auth, "the connection ended during start-up"),
        None if source.is_closed() => (ErrorKind::Unreachable, Phase::Auth, "the connection ended during start-up"),
        None if known.tls_refused => (ErrorKind::Config, Phase::Tls, "the server does not offer TLS"),
        None if known.has_password => (ErrorKind::Unauthenticated, Phase::Auth, "the authentication failed"),
        None => (ErrorKind::Unauthenticated, Phase::Auth, "the server asks for a password and none is configured"),
    };
    Error::new(kind, message).with_phase(phase).with_source(source)
}

fn query(source: tokio_postgres::Error) -> Error {
    if source.as_db_error().is_some() {
        return server(source, Phase::Query);
    }
    let is_decode = source.source().is_some_and(|cause| !cause.is::<io::Error>());
    match is_decode {
        true => Error::unexpected("the server's answer can't be read").with_phase(Phase::Decode).with_source(source),
        false => {
            Error::new(ErrorKind::Unreachable, "the connection ended").with_phase(Phase::Query).with_source(source)
        }
    }
}

/// An error that the server itself sent.
fn server(source: tokio_postgres::Error, phase: Phase) -> Error {
    let code = source.code().map_or_else(String::new, |state| state.code().to_owned());
    let (kind, message) = classify(&code);
    Error::new(kind, message).with_code(code).with_phase(phase).with_source(source)
}

/// The kind and the public words of an SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(crate) fn classify(sqlstate: &str) -> (ErrorKind, &'static str) {
    match sqlstate {
        "28P01" => (ErrorKind::Unauthenticated, "the server refuses the password"),
        "28000" => (ErrorKind::Unauthenticated, "the server refuses this user from here"),
        "3D000" => (ErrorKind::NotFound, "the database does not exist"),
        "42P01" | "42704" | "3F000" => (ErrorKind::NotFound, "an object does not exist"),
        "42P04" | "42710" | "23505" => (ErrorKind::AlreadyExists, "the object exists already"),
        "53300" => (ErrorKind::Saturated, "the server has no connection left"),
        "57P03" => (ErrorKind::Starting, "the server is starting or stopping"),
        "42501" => (ErrorKind::PermissionDenied, "a right is missing"),
        "57014" => (ErrorKind::Timeout, "the server ended the query at its deadline"),
        "55P03" => (ErrorKind::Busy, "somebody else holds a lock"),
        "55000" => (ErrorKind::Busy, "the object is not in a state for this; a database may be closed for a swap"),
        "55006" => (ErrorKind::Busy, "the object is in use"),
        "40P01" | "40001" => (ErrorKind::Busy, "a concurrent transaction won"),
        "57P01" | "57P02" => (ErrorKind::Unreachable, "the server ended the connection"),
        "25006" => (ErrorKind::PermissionDenied, "the server is read-only"),
        "0A000" => (ErrorKind::Unsupported, "the server can't do this"),
        "53100" => (ErrorKind::Io, "the server's disk is full"),
        _ => match sqlstate.get(..2) {
            Some("08") => (ErrorKind::Unreachable, "the connection failed"),
            Some("28") => (ErrorKind::Unauthenticated, "the server refuses the credentials"),
            Some("53") => (ErrorKind::Saturated, "the server lacks a resource"),
            Some("58") => (ErrorKind::Io, "the server's operating system failed"),
            Some("XX") => (ErrorKind::Integrity, "the server found damaged data or a bug of its own"),
            _ => (ErrorKind::Unexpected, "the server refused a query"),
        },
    }
}

/// Turns the driver's errors of a query into stackkit's.
pub(crate) trait QueryResult<T> {
    fn query(self) -> Result<T>;
}

impl<T> QueryResult<T> for std::result::Result<T, tokio_postgres::Error> {
    fn query(self) -> Result<T> {
        self.map_err(|source| PostgresError::Query(source).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_become_kinds_to_act_on() {
        for (state, kind) in [
            ("28P01", ErrorKind::Unauthenticated),
            ("28000", ErrorKind::Unauthenticated),
            ("3D000", ErrorKind::NotFound),
            ("53300", ErrorKind::Saturated),
            ("53200", ErrorKind::Saturated),
            ("53100", ErrorKind::Io),
            ("57P03", ErrorKind::Starting),
            ("42501", ErrorKind::PermissionDenied),
            ("57014", ErrorKind::Timeout),
            ("55006", ErrorKind::Busy),
            ("08006", ErrorKind::Unreachable),
            ("22012", ErrorKind::Unexpected),
            ("", ErrorKind::Unexpected),
            ("ü", ErrorKind::Unexpected),
        ] {
            assert_eq!(classify(state).0, kind, "{state}");
        }
    }

    #[test]
    fn a_length_is_too_long_or_damaged() {
        let kind = |size: &str| {
            let message = format!("invalid memory alloc request size {size}");
            let reply = Reply { code: "XX000".into(), message, detail: String::new(), place: String::new() };
            Error::from(PostgresError::Server(reply)).kind()
        };
        assert_eq!(kind("1080000003"), ErrorKind::Unsupported);
        assert_eq!(kind("18446744073709551613"), ErrorKind::Integrity);
    }

    #[test]
    fn connecting_names_host_and_port_or_the_socket() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = Error::from(PostgresError::Connect(Endpoint::new("postgres", "db", 7), refused()));
        assert_eq!(error.to_string(), "nothing listens there (host=db, port=7)");
        let error = Error::from(PostgresError::Connect(Endpoint::local("postgres", "/run/s"), refused()));
        assert_eq!(error.to_string(), "nothing listens there (socket=/run/s)");
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let full = io::Error::from(io::ErrorKind::WouldBlock);
        let error = Error::from(PostgresError::Connect(Endpoint::local("postgres", "/run/s"), full));
        assert_eq!(error.kind(), ErrorKind::Saturated);
    }
}
