//! Which of the databases they became, after the connection was lost; and cleaning up over another connection.

use std::time::Duration;

use stackkit_core::backup::TargetState;
use stackkit_core::{Clock, Error, ErrorKind, Result};
use tokio::time::Instant;

use super::{Oids, Swap};
use crate::client::{Session, text};
use crate::sql::literal;
use crate::target;

/// How long to ask a server that was lost in the swap what became of it: it may restart, and recover from its log first.
const SETTLE_WAIT: Duration = Duration::from_secs(60);

/// How long to try to remove the staging database where the connection was lost: a cut heals at once or takes long, and
/// `recover` removes it too.
const DISCARD_WAIT: Duration = Duration::from_secs(5);

/// The pause between two tries. A server starts within a second as a rule.
const PAUSE: Duration = Duration::from_millis(100);

/// A session as others see it.
pub(super) struct Own {
    pid: String,
    started: String,
}

impl Own {
    pub(super) async fn of(session: &Session) -> Result<Self> {
        let sql = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let row = session.row(sql).await?;
        Ok(Self { pid: text(&row, 0)?.to_owned(), started: text(&row, 1)?.to_owned() })
    }

    /// Ends it; whether it is gone.
    async fn end(&self, session: &Session) -> Result<bool> {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = {} AND backend_start = {}",
            self.pid,
            literal(&self.started)
        );
        Ok(session.rows(&sql).await?.is_empty())
    }
}

impl Swap<'_> {
    /// Finds out what became of a swap whose connection was lost with `error`. Gives warnings if it was done.
    pub(super) async fn settle(&self, own: &Own, oids: &[Oids], error: Error) -> Result<Vec<String>> {
        let deadline = Clock::system().deadline(SETTLE_WAIT);
        match self.holders(own, deadline).await {
            Ok(holders) if holders.iter().zip(oids).all(|(holder, oids)| holder.as_ref() == Some(&oids.staging)) => {
                Ok(vec!["the connection was lost in the swap, which was done".to_owned()])
            }
            Ok(holders) if holders.iter().zip(oids).all(|(holder, oids)| *holder == oids.target) => {
                Err(error.with_target(TargetState::Old))
            }
            Ok(_others) => Err(error.with_target(TargetState::Unknown)),
            Err(second) => {
                tracing::error!(error = %second.chain(), "the server was lost in the swap");
                Err(error
                    .with_target(TargetState::Unknown)
                    .with_context("mend", "plan a recovery when the server is back"))
            }
        }
    }

    /// The databases that have the targets' names once the lost session is gone.
    async fn holders(&self, own: &Own, deadline: Instant) -> Result<Vec<Option<String>>> {
        let session = self.reopen(deadline).await?;
        while !own.end(&session).await? {
            if Clock::system().instant() >= deadline {
                return Err(Error::new(ErrorKind::Timeout, "a session does not end").with_context("pid", &own.pid));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let mut holders = Vec::with_capacity(self.pairs.len());
        for pair in &self.pairs {
            holders.push(target::oid(&session, &pair.database).await?);
        }
        Ok(holders)
    }

    /// Another connection, as soon as there can be one.
    async fn reopen(&self, deadline: Instant) -> Result<Session> {
        loop {
            match self.helper().await {
                Err(error) if error.mends_by_waiting() && Clock::system().instant() < deadline => {}
                opened => return opened,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Removes a database, over another connection where the first one was lost.
    pub(super) async fn drop_database(&self, name: &str) -> Result<()> {
        if !self.admin.is_closed() {
            match self.drop_over(self.admin, name).await {
                Err(error) if error.kind() == ErrorKind::Unreachable => {}
                done => return done,
            }
        }
        let session = self.reopen(Clock::system().deadline(DISCARD_WAIT)).await?;
        self.drop_over(&session, name).await
    }

    async fn drop_over(&self, admin: &Session, name: &str) -> Result<()> {
        match self.pairs.iter().any(|pair| pair.staging == name) {
            true => target::drop_staging(self.service.config(), admin, name).await,
            false => target::drop_database(admin, name).await,
        }
    }
}
