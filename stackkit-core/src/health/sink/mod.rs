//! Where transitions go: a log, a command, a channel, or whatever implements [`Sink`].

mod channel;
mod command;
mod log;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use serde::Serialize;
use tokio::time::timeout;

use crate::error::Result;
use crate::health::{Changes, Report, ServiceReport, Transition};

pub use channel::ChannelSink;
pub use command::CommandSink;
pub use log::LogSink;

/// How long a sink may take for one event, unless it says otherwise: as long as an HTTP request with its retries may.
pub const SINK_TIMEOUT: Duration = Duration::from_secs(30);

/// A transition with what is known of the service and of its stack.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// The stack's name.
    pub stack: Arc<str>,
    /// What changed.
    #[serde(flatten)]
    pub transition: Transition,
    /// The service after the transition.
    #[serde(skip)]
    pub service: Arc<ServiceReport>,
    /// The report that it was found in.
    #[serde(skip)]
    pub report: Arc<Report>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Transition { service, from, to, .. } = &self.transition;
        write!(f, "{}: {service} ", self.stack)?;
        match (self.transition.flapping, from == to) {
            (true, _) => write!(f, "flaps, and is {to} at the moment: no more is told until it is calm")?,
            (false, true) => write!(f, "is calm again, and {to}")?,
            (false, false) => write!(f, "turned from {from} to {to}")?,
        }
        if let Some(causes) = self.service.causes() {
            write!(f, " because of {causes}")?;
        }
        if let Some(failure) = &self.service.failure {
            write!(f, ": {}", failure.message)?;
        }
        Ok(())
    }
}

/// Where transitions go. Each sink has a task of its own, one event at a time: a slow one delays neither probing nor other
/// sinks. What happens meanwhile is kept as one transition a service, from the state that the sink was told to the newest, so
/// nothing piles up.
///
/// ```
/// use stackkit_core::health::{Event, Sink};
/// #[derive(Debug)]
/// struct Print;
/// #[stackkit_core::async_trait]
/// impl Sink for Print {
///     fn name(&self) -> &str { "print" }
///     async fn publish(&self, event: &Event) -> stackkit_core::Result<()> {
///         println!("{event}");
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Sink: fmt::Debug + Send + Sync + 'static {
    /// What it is called in the log when it fails.
    fn name(&self) -> &str;

    /// How long one event may take; [`SINK_TIMEOUT`] unless overridden. Then the future is dropped.
    fn timeout(&self) -> Duration {
        SINK_TIMEOUT
    }

    /// Tells one event.
    ///
    /// # Errors
    /// Are logged, and end nothing; so is a panic.
    ///
    /// # Cancel safety
    /// Is dropped at its timeout and when the monitor is.
    async fn publish(&self, event: &Event) -> Result<()>;
}

/// Tells a sink every transition until the monitor is gone. What goes wrong in the sink stays there.
pub(crate) async fn feed(sink: Arc<dyn Sink>, mut changes: Changes) {
    while let Some(event) = changes.next_event().await {
        let told = AssertUnwindSafe(async { timeout(sink.timeout(), sink.publish(&event)).await });
        match told.catch_unwind().await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::warn!(sink = sink.name(), error = %error.chain(), "a sink could not be told");
            }
            Ok(Err(_elapsed)) => tracing::warn!(sink = sink.name(), "a sink did not end in time"),
            Err(_panic) => tracing::error!(sink = sink.name(), "a sink panicked"),
        }
    }
}
