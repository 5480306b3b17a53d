//! Transitions as runs of a command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::health::{Event, Sink};
use crate::process::Tool;

/// How long a command may run unless [`CommandSink::with_timeout`] says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a command for each transition, with the facts in its environment: `STACKKIT_STACK`, `STACKKIT_SERVICE`,
/// `STACKKIT_FROM`, `STACKKIT_TO`, `STACKKIT_AT`, `STACKKIT_FLAPPING` (`true` or `false`) and `STACKKIT_MESSAGE`.
///
/// The command is run directly, not by a shell. It is killed, with its children, at its timeout.
///
/// ```
/// use stackkit_core::health::{CommandSink, MonitorOptions};
/// let page = CommandSink::new("/usr/local/bin/page", ["--queue", "databases"]);
/// let options = MonitorOptions::new().with_sink(page);
/// ```
#[derive(Debug)]
pub struct CommandSink {
    path: PathBuf,
    args: Vec<OsString>,
    limit: Duration,
}

impl CommandSink {
    /// Runs the program at `path` with `args`.
    pub fn new<I, T>(path: impl Into<PathBuf>, args: I) -> Self
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString>,
    {
        Self { path: path.into(), args: args.into_iter().map(Into::into).collect(), limit: COMMAND_TIMEOUT }
    }

    /// Sets how long one run may take; 10 s unless set.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

#[async_trait]
impl Sink for CommandSink {
    fn name(&self) -> &'static str {
        "command"
    }

    fn timeout(&self) -> Duration {
        self.limit
    }

    async fn publish(&self, event: &Event) -> Result<()> {
        let transition = &event.transition;
        let tool = Tool::new(&self.path)
            .args(&self.args)
            .env("STACKKIT_STACK", event.stack.as_ref())
            .env("STACKKIT_SERVICE", transition.service.as_str())
            .env("STACKKIT_FROM", transition.from.as_str())
            .env("STACKKIT_TO", transition.to.as_str())
            .env("STACKKIT_AT", transition.at.to_string())
            .env("STACKKIT_FLAPPING", transition.flapping.to_string())
            .env("STACKKIT_MESSAGE", event.to_string());
        tool.output(self.limit).await.map(drop)
    }
}
