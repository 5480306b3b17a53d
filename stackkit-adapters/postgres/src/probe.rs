//! Looks at a server over one warm connection.

use std::time::Duration;

use async_trait::async_trait;
use stackkit_core::health::{Metric, Rule, Tier};
use stackkit_core::{HealthCheck, Observation, ProbeContext, Result};
use tokio::time::timeout_at;

use crate::client::Session;
use crate::error::PostgresError;
use crate::metrics::{self, Fields};
use crate::posture;
use crate::service::Postgres;

/// The part of the time that is left which the server gets, in tenths: it must end a query, and the answer must
/// arrive, before the runner drops the probe.
const SERVER_TENTHS: u32 = 9;

/// What a server's deadline is a multiple of, in milliseconds, unless it is shorter than that.
const MILLIS_ROUNDED: u128 = 100;

/// Sees sessions, locks, transactions, wraparound, cache, replication, archiving and checkpoints in one round trip, of
/// statements that the connection plans once.
///
/// [`Tier::Inventory`] tells sizes, tables, indexes, extensions, slow statements and the posture, in two: that reads the
/// size of every file, 32 to 50 ms with 2 000 tables against 0.3 ms for the vitals. Fields that need a right are
/// `unavailable` without it, and name the grant.
#[async_trait]
impl HealthCheck for Postgres {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        self.observe(cx).await.map_err(self.named("probe"))
    }

    async fn reset(&self) {
        self.warm(|warm| *warm = None);
    }

    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Ping, Tier::Vitals, Tier::Inventory]
    }

    fn metrics(&self) -> &'static [Metric] {
        metrics::METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        metrics::rules(self.config())
    }
}

impl Postgres {
    async fn observe(&self, cx: &ProbeContext) -> Result<Observation> {
        let warm = self.warm(Option::take).filter(|session| !session.is_closed());
        let mut session = match warm {
            Some(session) => session,
            None => Session::open(self.config(), &self.config().database, Some(cx.deadline())).await?,
        };
        // The session is put back only when the whole answer was read: after an error or a drop it is gone.
        let late = |_elapsed| PostgresError::Deadline(self.config().endpoint(), stackkit_core::Phase::Query);
        let observation = timeout_at(cx.deadline(), self.ask(&mut session, cx)).await.map_err(late)??;
        self.warm(|warm| *warm = Some(session));
        Ok(observation)
    }

    async fn ask(&self, session: &mut Session, cx: &ProbeContext) -> Result<Observation> {
        if cx.tier() == Tier::Ping {
            session.execute("").await?;
            return Ok(Observation::new());
        }
        let major = session.major.ok_or(PostgresError::Answer("the server's version"))?;
        if major < metrics::VERSION_MIN {
            return Err(PostgresError::TooOld(major).into());
        }
        match cx.tier() {
            Tier::Inventory => self.inventory(session, major, cx).await,
            _ => {
                let rows = session.prepared_rows(&limits(cx), &metrics::vitals_sql(major)).await?;
                Ok(metrics::observe(&metrics::read_all(&rows), cx))
            }
        }
    }

    async fn inventory(&self, session: &Session, major: u32, cx: &ProbeContext) -> Result<Observation> {
        let facts = session.row(&format!("{}; {}", limits(cx), metrics::facts_sql())).await?;
        let facts = Fields::read(&facts);
        let rows = session.rows(&format!("{}; {}", limits(cx), metrics::inventory_sql(major, &facts))).await?;
        let observation = metrics::take_inventory(&facts, &metrics::read_all(&rows), cx);
        Ok(posture::findings(self.config(), &facts).into_iter().fold(observation, Observation::finding))
    }
}

/// The server's deadline, and a path that can't lead to functions of others.
///
/// Local to the one transaction that all statements of a message are: behind a pooler the session is not ours.
fn limits(cx: &ProbeContext) -> String {
    let millis = server_millis(cx.remaining());
    format!("SET LOCAL statement_timeout = {millis}; SET LOCAL search_path = pg_catalog")
}

/// The part of the time left that the server gets, in milliseconds, never 0: that would be no limit. A long one is
/// rounded down, because `pg_stat_statements` keeps an entry for each text.
fn server_millis(remaining: Duration) -> u128 {
    let millis = (remaining * SERVER_TENTHS / 10).as_millis();
    match millis {
        0 => 1,
        1..MILLIS_ROUNDED => millis,
        _ => millis / MILLIS_ROUNDED * MILLIS_ROUNDED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_ends_before_the_runner_and_few_texts_are_sent() {
        let millis = |remaining| server_millis(Duration::from_millis(remaining));
        assert_eq!((millis(3000), millis(2999), millis(2900)), (2700, 2600, 2600));
        assert_eq!((millis(100), millis(1), millis(0)), (90, 1, 1));
    }
}
