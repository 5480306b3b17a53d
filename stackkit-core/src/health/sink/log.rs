//! Transitions as events of `tracing`.

use async_trait::async_trait;

use crate::error::Result;
use crate::health::{Event, Sink, Status};

/// Logs each transition: `ERROR` for unhealthy, `WARN` for degraded and unknown, `INFO` for healthy.
#[derive(Debug, Default)]
pub struct LogSink(());

impl LogSink {
    /// A sink that logs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Sink for LogSink {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn publish(&self, event: &Event) -> Result<()> {
        let (stack, service) = (event.stack.as_ref(), event.transition.service.as_str());
        let (from, to) = (event.transition.from.as_str(), event.transition.to.as_str());
        match event.transition.to {
            Status::Unhealthy => tracing::error!(stack, service, from, to, "{event}"),
            Status::Degraded | Status::Unknown => tracing::warn!(stack, service, from, to, "{event}"),
            Status::Healthy => tracing::info!(stack, service, from, to, "{event}"),
        }
        Ok(())
    }
}
