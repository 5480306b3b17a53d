//! A session of the driver, for queries whose answers are small.

use std::time::Duration;

use stackkit_core::Result;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tokio_postgres::{CancelToken, Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::task::AbortOnDropHandle;

use crate::config::PostgresConfig;
use crate::connect;
use crate::error::{PostgresError, QueryResult};
use crate::prepared::Prepared;

/// Shown by the server in `pg_stat_activity`.
pub(crate) const APPLICATION_NAME: &str = "stackkit";

/// Turns every limit off that could end a long session, those of later versions included, and makes text stable:
/// a row under row security is an error, not missing in silence. The path comes first: what a role has for one may
/// lead to functions of others.
const PREPARE_LONG_SESSION: &str = "SET search_path = pg_catalog;
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('statement_timeout', \
    'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout');
    SET row_security = off; SET datestyle = ISO; SET intervalstyle = postgres;
    SET timezone = 'UTC'; SET bytea_output = hex; SET extra_float_digits = 3";

/// How the protocol says goodbye: `Terminate`, and its length.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// How long the server may take to end a session that was closed. It takes milliseconds as a rule; whoever hangs longer
/// is met by the next connection.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// One connection. Dropping it ends the task that drives it, and the connection with it.
pub(crate) struct Session {
    client: Client,
    /// The server's major version, as it said at the start; nothing if it said none.
    pub(crate) major: Option<u32>,
    /// Whether the probe's statements are prepared on this connection.
    pub(crate) prepared: Prepared,
    driver: AbortOnDropHandle<()>,
    stream: connect::Stream,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("major", &self.major).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a connection to `database` by `deadline`, or within the configured time if that is shorter.
    pub(crate) async fn open(config: &PostgresConfig, database: &str, deadline: Option<Instant>) -> Result<Self> {
        let started = connect::connect(config, database, deadline).await?;
        let driver = started.driver;
        let task = tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
            }
        });
        let (client, major, stream) = (started.client, started.major, started.stream);
        Ok(Self { client, major, prepared: Prepared::default(), driver: AbortOnDropHandle::new(task), stream })
    }

    /// A connection for work that takes as long as it takes, but for waiting for locks.
    pub(crate) async fn open_long(config: &PostgresConfig, database: &str) -> Result<Self> {
        let session = Self::open(config, database, None).await?;
        session.execute(&prepare_long(config)).await?;
        Ok(session)
    }

    /// Runs statements that return nothing of interest, in one round trip.
    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.query()
    }

    /// The rows of all statements in `sql`, in one round trip, every value as text.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>> {
        let messages = self.client.simple_query(sql).await.query()?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// The first row of a query that has one.
    pub(crate) async fn row(&self, sql: &str) -> Result<SimpleQueryRow> {
        let row = self.rows(sql).await?.into_iter().next();
        Ok(row.ok_or(PostgresError::Answer("a row"))?)
    }

    /// Ends the connection and waits until the server has ended its session, so that the place of it is free: a role or a
    /// database may have few. A server closes the stream when the session is gone (`socket_close` in `pqcomm.c`).
    pub(crate) async fn close(self) {
        let Self { client, driver, stream, .. } = self;
        driver.abort();
        let _aborted = driver.await;
        drop(client);
        let Some(mut stream) = stream() else { return };
        let end = async {
            stream.write_all(&TERMINATE).await?;
            stream.flush().await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        };
        // A stream that is broken has no session any more.
        let _ended = timeout(CLOSE_WAIT, end).await;
    }

    /// What a request to end this session's statement is made with: see [`connect::cancel`].
    pub(crate) fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

/// What a session for long work is prepared with.
pub(crate) fn prepare_long(config: &PostgresConfig) -> String {
    format!("{PREPARE_LONG_SESSION}; SET lock_timeout = {}", config.lock_timeout.as_millis().max(1))
}

/// The text in column `index` of `row`, if it is not NULL.
pub(crate) fn text(row: &SimpleQueryRow, index: usize) -> Result<&str> {
    Ok(row.get(index).ok_or(PostgresError::Answer("a value that is not null"))?)
}

/// The whole number in column `index` of `row`.
pub(crate) fn number(row: &SimpleQueryRow, index: usize) -> Result<u64> {
    Ok(text(row, index)?.parse().map_err(|_not_a_number| PostgresError::Answer("a whole number"))?)
}
