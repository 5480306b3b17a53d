//! Health: one warm connection; one round trip, but for the inventory.

use std::time::Duration;

use async_trait::async_trait;
use stackkit_core::health::{Axis, Metric, Rule, Tier};
use stackkit_core::{Error, ErrorKind, HealthCheck, Observation, Phase, ProbeContext, Result};
use tokio::time::Instant;

use crate::client::Connection;
use crate::error::RedisError;
use crate::metrics::{Answers, Info, Look, METRICS, Question, observe, rules};
use crate::resp::Reply;
use crate::service::Redis;

/// By how much a probe ends before its deadline: so that it is this file that says in which phase the time ran out, not
/// the runner that drops it.
const DEADLINE_MARGIN: Duration = Duration::from_millis(10);

#[async_trait]
impl HealthCheck for Redis {
    /// `Ping` is one `PING`. `Vitals` is `PING`, `INFO` and a few short questions in one round trip; a right that is
    /// missing for one of these makes its measurements unavailable and no more. `Inventory` looks at the server's
    /// settings and samples its keys by `SCAN`. Needs the rights `+ping +info`.
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        let deadline = deadline(cx);
        let mut connection = self.checkout(deadline).await.map_err(self.named("probe"))?;
        let seen = match cx.tier() {
            Tier::Vitals => self.vitals(&mut connection, cx).await,
            Tier::Inventory => self.inventory(&mut connection, cx).await,
            _ => ping(&mut connection, deadline).await,
        };
        let seen = seen.map_err(self.named("probe"))?;
        self.warm(|slot| *slot = Some(connection));
        Ok(seen)
    }

    async fn reset(&self) {
        self.warm(Option::take);
    }

    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Ping, Tier::Vitals, Tier::Inventory]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        rules(self.writes_axis())
    }
}

/// When a probe gives up by itself.
pub(crate) fn deadline(cx: &ProbeContext) -> Instant {
    cx.deadline().checked_sub(DEADLINE_MARGIN.min(cx.remaining() / 2)).unwrap_or_else(|| cx.deadline())
}

impl Redis {
    /// The warm connection if it is still good, else another one.
    async fn checkout(&self, deadline: Instant) -> Result<Connection> {
        if let Some(mut warm) = self.warm(Option::take)
            && warm.is_clean().await
        {
            return Ok(warm);
        }
        self.connect(deadline).await
    }

    /// What refused writes are about.
    pub(crate) fn writes_axis(&self) -> Axis {
        if self.config().reads_only { Axis::Risk } else { Axis::Ready }
    }

    async fn vitals(&self, connection: &mut Connection, cx: &ProbeContext) -> Result<Observation> {
        let now = cx.clock().instant();
        let is_cluster = cx.previous().and_then(|seen| seen.info.get("mode")).is_some_and(|mode| mode == "cluster");
        let questions: Vec<Question> =
            self.refusals(|refusals| Question::all(is_cluster).filter(|q| refusals.allow(*q, now)).collect());
        let first: [&[&[u8]]; 2] = [&[b"PING"], &[b"INFO"]];
        let commands: Vec<&[&[u8]]> =
            first.into_iter().chain(questions.iter().map(|question| question.command())).collect();
        let mut replies = connection.pipeline(&commands, deadline(cx)).await?.into_iter();
        let pong = replies.next().ok_or(RedisError::Answer)?;
        let info = replies.next().map(Info::from_reply);
        let refuses_writes = match answered(pong, info.as_ref().and_then(|info| info.as_ref().ok()))? {
            Pong::Plain => false,
            Pong::RefusesWrites => true,
        };
        let info = info.ok_or(RedisError::Answer)??;
        let mut answers = Answers::default();
        questions.into_iter().zip(replies).for_each(|(question, reply)| answers.put(question, reply));
        self.refusals(|refusals| refusals.merge(&mut answers, now));
        let writes = self.writes_axis();
        Ok(observe(&Look { info: &info, answers: &answers, cx, refuses_writes, writes }))
    }
}

async fn ping(connection: &mut Connection, deadline: Instant) -> Result<Observation> {
    let pong = connection.pipeline(&[&[b"PING"]], deadline).await?.into_iter().next().ok_or(RedisError::Answer)?;
    // What it refuses is for the vitals to tell.
    answered(pong, None).map(|_pong| Observation::new())
}

/// What a server that answers says to `PING`.
enum Pong {
    Plain,
    /// A server that can't write its files refuses writes, and `PING` with them: it does answer.
    RefusesWrites,
}

fn answered(reply: Reply, info: Option<&Info>) -> Result<Pong> {
    match reply {
        Reply::Status(text) if text == b"PONG" => Ok(Pong::Plain),
        Reply::Error(error) if error.code == "MISCONF" => Ok(Pong::RefusesWrites),
        Reply::Error(error) if error.code == "LOADING" => Err(loading(info)),
        Reply::Error(error) => Err(RedisError::Server(error).into()),
        _ => Err(RedisError::Answer.into()),
    }
}

/// Up, but not yet able to serve; says how far it is where the server tells.
pub(crate) fn loading(info: Option<&Info>) -> Error {
    let error = Error::new(ErrorKind::Starting, "the server is loading its data").with_phase(Phase::Query);
    match info.and_then(|info| info.text("loading_loaded_perc")) {
        Some(percent) => error.with_code("LOADING").with_context("loaded_percent", percent),
        None => error.with_code("LOADING"),
    }
}
