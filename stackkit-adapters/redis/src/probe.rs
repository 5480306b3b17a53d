//! Health: one warm connection, one round trip.

use async_trait::async_trait;
use stackkit_core::health::Tier;
use stackkit_core::{Error, ErrorKind, HealthCheck, Observation, Phase, ProbeContext, Result};
use tokio::time::Instant;

use crate::client::Connection;
use crate::error::RedisError;
use crate::metrics::{Info, observe};
use crate::resp::Reply;
use crate::service::Redis;

#[async_trait]
impl HealthCheck for Redis {
    /// `Ping` is one `PING`; the other tiers are `PING` and `INFO` in one round trip. Needs the rights `+ping +info`.
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        let deadline = cx.deadline();
        let mut connection = self.checkout(deadline).await.map_err(self.named("probe"))?;
        let seen = look(&mut connection, cx).await.map_err(self.named("probe"))?;
        self.warm(|slot| *slot = Some(connection));
        Ok(seen)
    }

    async fn reset(&self) {
        self.warm(Option::take);
    }

    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Ping, Tier::Vitals]
    }
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
}

async fn look(connection: &mut Connection, cx: &ProbeContext) -> Result<Observation> {
    let commands: &[&[&[u8]]] = match cx.tier() {
        Tier::Ping => &[&[b"PING"]],
        _ => &[&[b"PING"], &[b"INFO"]],
    };
    let mut replies = connection.pipeline(commands, cx.deadline()).await?.into_iter();
    let pong = replies.next().ok_or(RedisError::Answer)?;
    let info = replies.next().map(Info::from_reply);
    match pong {
        Reply::Status(text) if text == b"PONG" => {}
        Reply::Error(error) if error.code == "LOADING" => return Err(loading(info.and_then(Result::ok).as_ref())),
        Reply::Error(error) => return Err(RedisError::Server(error).into()),
        _ => return Err(RedisError::Answer.into()),
    }
    match info.transpose()? {
        Some(info) => Ok(observe(&info, cx.previous(), cx.clock().now())),
        None => Ok(Observation::new()),
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
