//! A session of the driver, for queries whose answers are small.

use stackkit_core::Result;
use tokio::time::Instant;
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

/// One connection. Dropping it ends the task that drives it, and the connection with it.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    /// The server's major version, as it said at the start; nothing if it said none.
    pub(crate) major: Option<u32>,
    /// Whether the probe's statements are prepared on this connection.
    pub(crate) prepared: Prepared,
    _driver: AbortOnDropHandle<()>,
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
        let (client, major) = (started.client, started.major);
        Ok(Self { client, major, prepared: Prepared::default(), _driver: AbortOnDropHandle::new(task) })
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
