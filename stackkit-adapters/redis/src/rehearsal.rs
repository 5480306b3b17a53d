//! What a restore sends after the old data is gone, tried before: with arguments that the server refuses only after it
//! has looked at the user's rights, so nothing is changed.

use stackkit_core::{Error, Result};
use tokio::time::Instant;

use crate::client::Connection;
use crate::error::RedisError;
use crate::resp::{Reply, ServerError};

/// A key that no pattern but `~*` is likely to allow. It is only asked about.
const KEY: &[u8] = b"stackkit:rehearsal";

/// Commands of every restore: a lifetime below zero and an empty value are refused by every version.
const ALWAYS: &[&[&[u8]]] = &[
    &[b"RESTORE", KEY, b"-1", b"", b"REPLACE", b"ABSTTL"],
    &[b"TIME"],
    &[b"SCAN", b"0", b"COUNT", b"1"],
    &[b"TYPE", KEY],
    &[b"DBSIZE"],
];

/// Commands where there are functions: a library without a header, and a mode that is none.
const FUNCTIONS: &[&[&[u8]]] = &[&[b"FUNCTION", b"LOAD", b"REPLACE", b""], &[b"FUNCTION", b"FLUSH", KEY]];

/// Fails if the server would not take what a restore sends.
///
/// # Errors
/// `PermissionDenied`, `Unsupported` and the other kinds of refusals, naming the command.
pub(crate) async fn rehearse(connection: &mut Connection, functions: bool, deadline: Instant) -> Result<()> {
    let commands = [ALWAYS, if functions { FUNCTIONS } else { &[] }].concat();
    let replies = connection.pipeline(&commands, deadline).await?;
    for (command, reply) in commands.iter().zip(replies) {
        match reply {
            Reply::Error(error) if !is_about_the_arguments(&error) => return Err(refused(command, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the server would have run the command: it complains about the arguments, or has no memory now, of which there
/// is more when the old data is gone.
fn is_about_the_arguments(error: &ServerError) -> bool {
    match error.code.as_str() {
        "OOM" => true,
        "ERR" => !error.text.starts_with("unknown"),
        _ => false,
    }
}

fn refused(command: &[&[u8]], error: ServerError) -> Error {
    let word = |place: usize| command.get(place).map(|word| String::from_utf8_lossy(word)).unwrap_or_default();
    let name = if word(0) == "FUNCTION" { format!("{} {}", word(0), word(1)) } else { word(0).into_owned() };
    Error::from(RedisError::Server(error)).with_context("needs", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_command_and_complaints_about_arguments_are_none() {
        let error = |code: &str, text: &str| ServerError { code: code.into(), text: text.into() };
        for (code, text, would_run) in [
            ("ERR", "Invalid TTL value, must be >= 0", true),
            ("ERR", "Missing library metadata", true),
            ("ERR", "syntax error", true),
            ("OOM", "command not allowed when used memory > 'maxmemory'.", true),
            ("ERR", "unknown command 'RESTORE', with args beginning with: ", false),
            ("NOPERM", "this user has no permissions to run the 'restore' command", false),
            ("MISCONF", "", false),
            ("READONLY", "", false),
        ] {
            assert_eq!(is_about_the_arguments(&error(code, text)), would_run, "{code} {text}");
        }
        let named = |command| refused(command, error("NOPERM", "")).to_string();
        assert!(named(ALWAYS[0]).contains("needs=RESTORE"), "{}", named(ALWAYS[0]));
        assert!(named(FUNCTIONS[0]).contains("needs=FUNCTION LOAD"), "{}", named(FUNCTIONS[0]));
    }
}
