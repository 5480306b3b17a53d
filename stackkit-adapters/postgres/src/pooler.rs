//! A pooler that gives each transaction another session of the server.
//!
//! Settings and locks of a session vanish behind it, and settings decide how rows are written as text and whether hidden
//! ones are an error: what goes through it could be wrong in silence. And what is set stays with a session that is then
//! another client's. So this looks before anything is set.

use stackkit_core::{Error, ErrorKind, Result};

use crate::client::{Session, text};
use crate::config::PostgresConfig;

/// Refuses to work through a pooler in transaction mode: it hands the session that one connection has just left to the
/// next one. Both are gone when this returns: a role may have no more than those that the work itself needs.
///
/// # Errors
/// `Unsupported` if two connections are one session of the server, or one is not the same session twice.
pub(crate) async fn refuse(config: &PostgresConfig) -> Result<()> {
    let pid = "SELECT pg_backend_pid()";
    let own = Session::open(config, &config.database, None).await?;
    let other = Session::open(config, &config.database, None).await?;
    let (first, others) = (own.row(pid).await?, other.row(pid).await?);
    let again = own.row(pid).await?;
    let is_direct = text(&first, 0)? != text(&others, 0)? && text(&first, 0)? == text(&again, 0)?;
    own.close().await;
    other.close().await;
    if is_direct {
        return Ok(());
    }
    let message = "two connections share a session of the server: a pooler in transaction mode is in between; \
        use a direct connection, or a pooler in session mode";
    Err(Error::new(ErrorKind::Unsupported, message).with_code("postgres.pooler"))
}
