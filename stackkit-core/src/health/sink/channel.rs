//! Transitions as messages of a channel.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::health::{Event, Sink};

/// Sends each event into a channel. While it is full the sink waits, however long, and newer transitions are kept as one a
/// service.
///
/// ```
/// use stackkit_core::health::{ChannelSink, MonitorOptions};
/// let (sink, mut events) = ChannelSink::new(16);
/// let options = MonitorOptions::new().with_sink(sink);
/// ```
#[derive(Debug)]
pub struct ChannelSink(mpsc::Sender<Event>);

impl ChannelSink {
    /// A sink and the end that receives; `capacity` events wait in between at most, one if it is 0.
    #[must_use]
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Self(sender), receiver)
    }
}

#[async_trait]
impl Sink for ChannelSink {
    fn name(&self) -> &'static str {
        "channel"
    }

    /// Never: waiting for room delays nothing else.
    fn timeout(&self) -> Duration {
        Duration::MAX
    }

    async fn publish(&self, event: &Event) -> Result<()> {
        let closed = |_closed| Error::new(ErrorKind::Unreachable, "nobody receives from the channel");
        self.0.send(event.clone()).await.map_err(closed)
    }
}
