//! The health engine: probes a stack in the background and serves a snapshot.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::error::{Error, ErrorKind, Result};
use crate::health::board::Board;
use crate::health::wait::Wanted;
use crate::health::{Changes, History, Report, Sink, Snapshot, poll, sink};
use crate::stack::Stack;

/// What a [`Monitor`] does beside probing.
///
/// ```
/// use stackkit_core::health::{LogSink, MonitorOptions};
/// let options = MonitorOptions::new().with_sink(LogSink::new());
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct MonitorOptions {
    /// Where transitions go.
    pub sinks: Vec<Arc<dyn Sink>>,
}

impl MonitorOptions {
    /// No sinks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells each transition to `sink` too. A slow sink delays nothing: see [`Sink`].
    #[must_use]
    pub fn with_sink(mut self, sink: impl Sink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }
}

/// Probes a stack in the background. Reading its report does no I/O; dropping it stops everything.
///
/// ```no_run
/// # use stackkit_core::{Monitor, Stack};
/// # use std::time::Duration;
/// # async fn run(stack: Stack) -> stackkit_core::Result<()> {
/// let monitor = Monitor::start(&stack);
/// monitor.wait_ready(Duration::from_secs(30)).await?;
/// let mut changes = monitor.changes();
/// while let Some(change) = changes.next().await {
///     println!("{}: {} -> {}", change.service, change.from, change.to);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Monitor {
    board: Arc<Board>,
    snapshot: Snapshot,
    /// One poll loop a service, one task a sink, and the publisher; aborted when the set is dropped.
    _tasks: JoinSet<()>,
}

impl Monitor {
    /// Starts to probe every service of the stack that has a health check, each at its own intervals.
    ///
    /// # Panics
    /// Outside a Tokio runtime, as every function that spawns.
    #[must_use]
    pub fn start(stack: &Stack) -> Self {
        Self::start_with(stack, MonitorOptions::new())
    }

    /// As [`Monitor::start`], with sinks.
    ///
    /// # Panics
    /// Outside a Tokio runtime, as every function that spawns.
    #[must_use]
    pub fn start_with(stack: &Stack, options: MonitorOptions) -> Self {
        let (board, snapshot) = Board::new(stack);
        let board = Arc::new(board);
        let mut tasks = JoinSet::new();
        for sink in options.sinks {
            tasks.spawn(sink::feed(sink, Changes::new(snapshot.reports.clone())));
        }
        for position in 0..board.probers.len() {
            tasks.spawn(poll::poll(board.clone(), position));
        }
        let publisher = board.clone();
        tasks.spawn(async move { publisher.publish_changes().await });
        Self { board, snapshot, _tasks: tasks }
    }

    /// The latest report: one read of a shared pointer, no I/O. See [`Snapshot::report`].
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        self.snapshot.report()
    }

    /// A cheap handle that reads reports, for HTTP routers and metrics. It does not keep the monitor running.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// The transitions from this moment on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::new(self.snapshot.reports.clone())
    }

    /// The last 24 hours of one service: see [`Snapshot::history`].
    #[must_use]
    pub fn history(&self, id: &str) -> Option<History> {
        self.snapshot.history(id)
    }

    /// Waits until each required service is ready, and gives the report that says so.
    ///
    /// # Errors
    /// At once, with its kind, on a failure that waiting can't mend (a wrong password, a missing database) of one of them or of
    /// what it needs, unless something that this needs is not ready yet; `Cancelled` once the stack drains; `Timeout` when `timeout` has passed, naming for each service that is
    /// not ready its attempts, last kind, phase and code, and for how long it has been so.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<Arc<Report>> {
        self.wait_for(&Wanted { ids: &[] }, timeout).await
    }

    /// As [`Monitor::wait_ready`], for these services and all that they need, whatever their criticality.
    ///
    /// # Errors
    /// As [`Monitor::wait_ready`]; `NotFound` if a service is not in the stack, or has no health check.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_ready_of<I, T>(&self, ids: I, timeout: Duration) -> Result<Arc<Report>>
    where
        I: IntoIterator<Item = T> + Send,
        T: Into<String>,
    {
        let mut wanted: Vec<String> = ids.into_iter().map(Into::into).collect();
        let report = self.report();
        let mut looked = 0;
        while let Some(id) = wanted.get(looked).cloned() {
            looked += 1;
            let service = report.service(&id).ok_or_else(|| self.no_such(&id))?;
            for dependency in service.dependencies.iter() {
                if !wanted.contains(dependency) && report.service(dependency).is_some() {
                    wanted.push(dependency.clone());
                }
            }
        }
        self.wait_for(&Wanted { ids: &wanted }, timeout).await
    }

    fn no_such(&self, id: &str) -> Error {
        let known: Vec<String> = self.report().services.iter().map(|service| service.id.to_string()).collect();
        let message = format!("no service called {id} is probed; there are: {}", known.join(", "));
        Error::new(ErrorKind::NotFound, message).with_operation("find the service")
    }

    async fn wait_for(&self, wanted: &Wanted<'_>, timeout: Duration) -> Result<Arc<Report>> {
        let mut reports = self.snapshot.reports.clone();
        let deadline = self.board.clock.deadline(timeout);
        loop {
            reports.mark_unchanged();
            let report = self.snapshot.report();
            if wanted.is_ready(&report) {
                return Ok(report);
            }
            if let Some(error) = wanted.permanent_failure(&report) {
                return Err(error);
            }
            if !matches!(timeout_at(deadline, reports.changed()).await, Ok(Ok(()))) {
                return Err(wanted.not_ready(&self.snapshot.report(), timeout, self.board.clock.instant()));
            }
        }
    }

    /// Turns readiness off, at once and for good; probing goes on. Call it when the process is told to end, wait until
    /// load balancers have seen it, then end. `live` and `startup` keep passing.
    ///
    /// ```no_run
    /// # async fn end(monitor: stackkit_core::Monitor) {
    /// monitor.begin_drain();
    /// assert!(!monitor.report().ready);
    /// # }
    /// ```
    pub fn begin_drain(&self) {
        self.board.begin_drain();
    }

    /// Announces that a service is worked on: for `lasting` its status is shown and counts for nothing, and its transitions
    /// are not told. A second call sets another end.
    ///
    /// # Errors
    /// `NotFound` if no such service is probed.
    pub fn begin_maintenance(&self, id: &str, lasting: Duration) -> Result<()> {
        match self.board.set_maintenance(id, Some(lasting)) {
            true => Ok(()),
            false => Err(self.no_such(id)),
        }
    }

    /// Ends the maintenance of a service before its time.
    ///
    /// # Errors
    /// `NotFound` if no such service is probed.
    pub fn end_maintenance(&self, id: &str) -> Result<()> {
        match self.board.set_maintenance(id, None) {
            true => Ok(()),
            false => Err(self.no_such(id)),
        }
    }
}
