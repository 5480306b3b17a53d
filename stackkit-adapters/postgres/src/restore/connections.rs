//! How many connections a restore works with.

use futures_util::future::join_all;
use stackkit_core::{ErrorKind, Result};

use super::session::Loading;
use super::toc::Toc;
use crate::config::PostgresConfig;

/// How many connections are asked for at once: a server keeps as many waiting as it has room for, and few of a socket.
const OPENED_AT_ONCE: usize = 4;

/// How many connections are given back where the server had too few: the swap needs two, and somebody may have to look.
const SPARE_CONNECTIONS: usize = 3;

/// Opens `jobs` connections, but no more than can have something to do, or as many as the server has for us: one at least.
/// Gives a warning where it had fewer.
///
/// # Errors
/// Those of the first connection, and every other than `Saturated` of the others.
pub(super) async fn open(
    config: &PostgresConfig,
    database: &str,
    toc: &Toc,
    jobs: usize,
) -> Result<(Vec<Loading>, Option<String>)> {
    let wanted = jobs.min(toc.entries.len()).max(1);
    let open = || Loading::open(config, database, toc, jobs);
    let mut sessions = vec![open().await?];
    let mut is_full = false;
    while !is_full && sessions.len() < wanted {
        let more = (wanted - sessions.len()).min(OPENED_AT_ONCE);
        for opened in join_all((0..more).map(|_| open())).await {
            match opened {
                Ok(session) => sessions.push(session),
                Err(error) if error.kind() == ErrorKind::Saturated => is_full = true,
                Err(error) => return Err(error),
            }
        }
    }
    if is_full {
        sessions.truncate(sessions.len().saturating_sub(SPARE_CONNECTIONS).max(1));
    }
    let few = format!("the server had {} of {wanted} connections for the restore", sessions.len());
    let few = (sessions.len() < wanted).then_some(few);
    Ok((sessions, few))
}
