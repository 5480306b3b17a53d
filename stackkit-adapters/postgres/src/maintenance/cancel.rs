//! Ends a statement on the server when nobody waits for it any more.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::CancelToken;

use crate::client::Session;
use crate::config::PostgresConfig;
use crate::connect::cancel;

/// How long the request may take when a future is dropped: a connection and 16 bytes. The server notices a lost client
/// by itself too, from version 14 on (`client_connection_check_interval`).
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// A statement under way. Dropping it before [`Running::end`] asks the server to cancel: a `REINDEX` whose client is gone
/// would go on for hours.
pub(crate) struct Running<'a> {
    config: &'a PostgresConfig,
    token: Option<CancelToken>,
}

impl<'a> Running<'a> {
    pub(crate) fn begin(config: &'a PostgresConfig, session: &Session) -> Self {
        Self { config, token: Some(session.cancel_token()) }
    }

    /// The statement has ended by itself.
    pub(crate) fn end(mut self) {
        self.token = None;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else { return };
        let send = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let request = async { timeout(CANCEL_TIMEOUT, cancel(self.config, &token)).await };
            runtime.block_on(request).ok()?.ok()
        };
        // A thread of its own: blocking on a runtime inside another one is not allowed.
        let sent = std::thread::scope(|scope| scope.spawn(send).join());
        if !matches!(sent, Ok(Some(()))) {
            tracing::warn!("the request to cancel a maintenance statement could not be sent");
        }
    }
}
