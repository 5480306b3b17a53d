//! The end of the transaction, and what became of it where the connection was lost.

use std::time::Duration;

use stackkit_core::backup::TargetState;
use stackkit_core::{Clock, Error, ErrorKind, Result};

use super::super::session::Loading;
use crate::client::{Session, text};
use crate::config::PostgresConfig;
use crate::error::PostgresError;
use crate::wire::value;

/// How long to ask a server that was lost in the commit what became of it: it may restart, and recover from its log first.
const SETTLE_WAIT: Duration = Duration::from_secs(60);

/// The pause between two tries. A server starts within a second as a rule.
const PAUSE: Duration = Duration::from_millis(100);

/// Commits. Gives a warning if the connection was lost and the server did it all the same.
///
/// # Errors
/// With a [`TargetState`]: `Unknown` only if the server does not come back in time.
pub(super) async fn commit(config: &PostgresConfig, loading: &mut Loading) -> Result<Option<String>> {
    // A commit that the log has not reached could be lost after it was told.
    let ask = "SET LOCAL synchronous_commit = on; SELECT txid_current()";
    let rows = loading.wire.rows(ask).await?;
    let number = rows.first().map(|row| value(row, 0)).transpose()?.ok_or(PostgresError::Answer("a row"))?.to_owned();
    let Err(error) = loading.wire.execute(b"COMMIT").await else { return Ok(None) };
    if error.kind() != ErrorKind::Unreachable {
        return Err(error.with_target(TargetState::Old));
    }
    match settled(config, &number).await {
        Ok(status) if status == "committed" => {
            Ok(Some("the connection was lost in the commit, which was done".to_owned()))
        }
        Ok(_aborted) => Err(error.with_target(TargetState::Old)),
        Err(second) => {
            tracing::error!(error = %second.chain(), "the server was lost in the commit");
            Err(error.with_target(TargetState::Unknown))
        }
    }
}

/// What became of a transaction, once it ended.
async fn settled(config: &PostgresConfig, number: &str) -> Result<String> {
    let deadline = Clock::system().deadline(SETTLE_WAIT);
    loop {
        match status(config, number).await {
            Ok(status) if status != "in progress" => return Ok(status),
            Err(error) if !error.mends_by_waiting() => return Err(error),
            Err(error) if Clock::system().instant() >= deadline => return Err(error),
            _ if Clock::system().instant() >= deadline => {
                return Err(Error::new(ErrorKind::Timeout, "a transaction does not end").with_context("number", number));
            }
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn status(config: &PostgresConfig, number: &str) -> Result<String> {
    let session = Session::open_long(config, &config.database).await?;
    Ok(text(&session.row(&format!("SELECT txid_status({number})")).await?, 0)?.to_owned())
}
