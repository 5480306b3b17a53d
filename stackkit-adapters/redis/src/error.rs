//! From what the server and the system say to the one error type.

use std::io;

use stackkit_core::{Error, ErrorKind, Phase};

use crate::rdb::Fault;
use crate::resp::{Invalid, ServerError};

/// What can go wrong in a conversation with a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedisError {
    #[error("the host name can't be resolved")]
    Resolve(#[source] io::Error),
    #[error("nothing accepts connections there")]
    Connect(#[source] io::Error),
    #[error("the operating system denies access to the socket")]
    Denied(#[source] io::Error),
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("the server's certificate is not trusted, or is not for this host")]
    Certificate(#[source] io::Error),
    #[error("no answer before the deadline")]
    Deadline(Phase),
    #[error("the connection failed")]
    Io(#[source] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server's answer is not of its protocol")]
    Protocol(#[source] Invalid),
    #[error("the server answered something else than the command allows")]
    Answer,
    #[error("{}", refusal(.0).1)]
    Server(ServerError),
    #[error("the rdb file is not sound")]
    Rdb(#[source] Fault),
}

impl RedisError {
    /// A failure to connect: a socket that may not be opened will not open by waiting.
    pub(crate) fn connect(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied { Self::Denied(error) } else { Self::Connect(error) }
    }

    /// A failure of the handshake: a certificate that is not trusted will not become so by waiting.
    pub(crate) fn tls(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => Self::Certificate(error),
            _ => Self::Tls(error),
        }
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        let message = error.to_string();
        let (kind, phase) = match &error {
            RedisError::Resolve(_) => (ErrorKind::Unreachable, Some(Phase::Dns)),
            RedisError::Connect(_) => (ErrorKind::Unreachable, Some(Phase::Connect)),
            RedisError::Denied(_) => (ErrorKind::PermissionDenied, Some(Phase::Connect)),
            RedisError::Tls(_) => (ErrorKind::Unreachable, Some(Phase::Tls)),
            RedisError::Certificate(_) => (ErrorKind::Config, Some(Phase::Tls)),
            RedisError::Deadline(phase) => (ErrorKind::Timeout, Some(*phase)),
            RedisError::Io(_) | RedisError::Closed => (ErrorKind::Unreachable, Some(Phase::Query)),
            RedisError::Protocol(_) | RedisError::Answer => (ErrorKind::Unexpected, Some(Phase::Decode)),
            RedisError::Server(refused) => {
                let kind = refusal(refused).0;
                (kind, Some(if kind == ErrorKind::Unauthenticated { Phase::Auth } else { Phase::Query }))
            }
            RedisError::Rdb(fault) if fault.is_unsupported() => (ErrorKind::Unsupported, None),
            RedisError::Rdb(_) => (ErrorKind::Integrity, None),
        };
        let mut mapped = Self::new(kind, message);
        if let Some(phase) = phase {
            mapped = mapped.with_phase(phase);
        }
        match error {
            RedisError::Server(refused) => mapped.with_code(refused.code.clone()).with_source(Refused(refused)),
            // The fault's own line is the message that a reader needs; it quotes no content.
            RedisError::Rdb(fault) => Self::new(kind, fault.to_string()),
            RedisError::Resolve(source)
            | RedisError::Connect(source)
            | RedisError::Denied(source)
            | RedisError::Tls(source)
            | RedisError::Certificate(source)
            | RedisError::Io(source) => mapped.with_source(source),
            RedisError::Protocol(source) => mapped.with_source(source),
            RedisError::Deadline(_) | RedisError::Closed | RedisError::Answer => mapped,
        }
    }
}

/// The server's own line, for logs.
#[derive(Debug, thiserror::Error)]
#[error("{} {}", .0.code, .0.text)]
struct Refused(ServerError);

/// An artifact that can't be read: the backup engine's own error if that is the cause.
pub(crate) fn unreadable(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("read the artifact", error),
    }
}

/// What an error reply means. Most have a code of their own; `ERR` is told apart by the texts that the server's source
/// has had unchanged since 2.6.
fn refusal(error: &ServerError) -> (ErrorKind, &'static str) {
    match error.code.as_str() {
        "WRONGPASS" => (ErrorKind::Unauthenticated, "wrong user or password"),
        "NOAUTH" => (ErrorKind::Unauthenticated, "the server asks for a password"),
        "NOPERM" => (ErrorKind::PermissionDenied, "the user lacks a right"),
        "DENIED" => (ErrorKind::PermissionDenied, "protected mode allows local clients only"),
        "LOADING" => (ErrorKind::Starting, "the server is loading its data"),
        "MASTERDOWN" | "NOMASTERLINK" => (ErrorKind::Busy, "the replica has no link to its master"),
        "BUSY" => (ErrorKind::Busy, "a script blocks the server"),
        "TRYAGAIN" | "CLUSTERDOWN" | "NOREPLICAS" => {
            (ErrorKind::Busy, "the server can't take the command at the moment")
        }
        "OOM" => (ErrorKind::Saturated, "the server is at its memory limit"),
        "MISCONF" => (ErrorKind::Io, "the server refuses writes because it can't save"),
        "READONLY" => (ErrorKind::Incompatible, "the server is a read-only replica"),
        "MOVED" | "ASK" | "CROSSSLOT" => (ErrorKind::Unsupported, "the server is part of a cluster"),
        "BUSYKEY" => (ErrorKind::AlreadyExists, "the key exists already"),
        "NOPROTO" => (ErrorKind::Unsupported, "the server does not speak this protocol"),
        "ERR" => plain_refusal(&error.text),
        _ => (ErrorKind::Unexpected, "the server refused the command"),
    }
}

fn plain_refusal(text: &str) -> (ErrorKind, &'static str) {
    const TEXTS: [(&str, ErrorKind, &str); 8] = [
        ("max number of clients", ErrorKind::Saturated, "the server has no room for another client"),
        ("unknown command", ErrorKind::Unsupported, "the server does not know the command"),
        ("unknown subcommand", ErrorKind::Unsupported, "the server does not know the command"),
        ("invalid password", ErrorKind::Unauthenticated, "wrong user or password"),
        ("AUTH <password> called without", ErrorKind::Unauthenticated, "the server has no password, but one was given"),
        (
            "Client sent AUTH, but no password",
            ErrorKind::Unauthenticated,
            "the server has no password, but one was given",
        ),
        ("DB index is out of range", ErrorKind::NotFound, "the server has no database of that number"),
        ("DUMP payload version or checksum", ErrorKind::Incompatible, "the server is too old for the value"),
    ];
    TEXTS
        .into_iter()
        .find(|(start, ..)| text.starts_with(start))
        .map_or((ErrorKind::Unexpected, "the server refused the command"), |(_, kind, message)| (kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(code: &str, text: &str) -> Error {
        RedisError::Server(ServerError { code: code.into(), text: text.into() }).into()
    }

    #[test]
    fn replies_become_kinds_to_act_on() {
        for (code, text, kind) in [
            ("WRONGPASS", "invalid username-password pair or user is disabled.", ErrorKind::Unauthenticated),
            ("NOPERM", "this user has no permissions to run the 'psync' command", ErrorKind::PermissionDenied),
            ("LOADING", "Redis is loading the dataset in memory", ErrorKind::Starting),
            ("ERR", "max number of clients reached", ErrorKind::Saturated),
            ("ERR", "unknown command 'PSYNC', with args beginning with: '?' ", ErrorKind::Unsupported),
            ("ERR", "Bad data format", ErrorKind::Unexpected),
            ("WHATEVER", "", ErrorKind::Unexpected),
        ] {
            assert_eq!(mapped(code, text).kind(), kind, "{code} {text}");
            assert_eq!(mapped(code, text).code(), Some(code));
        }
    }

    #[test]
    fn the_servers_text_is_for_logs_only() {
        let error = mapped("NOPERM", "canary");
        assert!(!error.to_string().contains("canary"));
        assert!(error.chain().to_string().contains("canary"));
    }

    #[test]
    fn a_damaged_file_and_an_unknown_one_are_told_apart() {
        assert_eq!(Error::from(RedisError::Rdb(Fault::Truncated { offset: 1 })).kind(), ErrorKind::Integrity);
        assert_eq!(Error::from(RedisError::Rdb(Fault::Version { version: 13 })).kind(), ErrorKind::Unsupported);
    }
}
