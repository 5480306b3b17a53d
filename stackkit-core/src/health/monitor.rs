//! The health engine: probes a stack in the background and serves a snapshot.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::health::{Changes, Prober, Report, ServiceReport, Status, Tier};
use crate::stack::{Criticality, Intervals, STALE_POLLS, Stack};

/// The first wait between probes of a service that was never up: servers start within tens of milliseconds.
const STARTUP_POLL_FIRST: Duration = Duration::from_millis(20);
/// By which factor that wait grows, up to [`Intervals::poll_failing`].
const STARTUP_POLL_FACTOR: f64 = 1.5;
/// The wait after an error that waiting can't mend: repeated wrong passwords lock accounts.
const PERMANENT_FAILURE_POLL: Duration = Duration::from_secs(30);
/// How far a wait strays from its interval, so that many monitors do not probe in step.
const JITTER_RATIO: f64 = 0.1;
/// Longer waits stray no further than this one does: what is far apart is not in step.
const JITTER_BASE_MAX: Duration = Duration::from_secs(3600);

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
    snapshot: Snapshot,
    /// One poll loop a service; aborted when the set is dropped.
    _polls: JoinSet<()>,
}

impl Monitor {
    /// Starts to probe every service of the stack that has a health check, each at its own intervals.
    ///
    /// # Panics
    /// Outside a Tokio runtime, as every function that spawns.
    #[must_use]
    pub fn start(stack: &Stack) -> Self {
        let probers: Vec<Arc<Prober>> = stack.probers().cloned().collect();
        let now = stack.clock().now();
        // What an earlier monitor or check saw may be hours old.
        let unknown = |prober: &Arc<Prober>| ServiceReport { status: Status::Unknown, since: now, ..prober.report() };
        let services: Vec<ServiceReport> = probers.iter().map(unknown).collect();
        let report = Report::new(stack.name().to_owned(), now, services.clone());
        let (publish, reports) = watch::channel(Arc::new(report));
        let board = Arc::new(Board {
            stack: stack.name().to_owned(),
            clock: stack.clock().clone(),
            services: Mutex::new(services),
            publish,
        });
        let mut polls = JoinSet::new();
        for (position, prober) in probers.into_iter().enumerate() {
            polls.spawn(poll(board.clone(), position, prober));
        }
        Self { snapshot: Snapshot { clock: stack.clock().clone(), reports }, _polls: polls }
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

    /// Waits until each required service is ready, and gives the report that says so.
    ///
    /// # Errors
    /// At once, with its kind, on a failure that waiting can't mend (a wrong password, a missing database);
    /// `Timeout` when `timeout` has passed, naming each service that is not ready and why.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<Arc<Report>> {
        let mut reports = self.snapshot.reports.clone();
        let deadline = self.snapshot.clock.deadline(timeout);
        loop {
            reports.mark_unchanged();
            let report = self.snapshot.report();
            if report.ready {
                return Ok(report);
            }
            if let Some(error) = report.services.iter().find_map(permanent_failure) {
                return Err(error);
            }
            if !matches!(timeout_at(deadline, reports.changed()).await, Ok(Ok(()))) {
                return Err(not_ready(&report, timeout));
            }
        }
    }
}

/// Reads the reports of a [`Monitor`]; cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    clock: Clock,
    reports: watch::Receiver<Arc<Report>>,
}

impl Snapshot {
    /// The latest report, without I/O.
    ///
    /// An entry that is older than its [`Intervals::stale_after`] is [`Status::Unknown`]: a poll loop that hangs, or
    /// a monitor that is gone, must not stay green. Where the next probe is due later or may take longer (after a
    /// failure that waiting can't mend, before an inventory), that much more is allowed.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        let report = self.reports.borrow().clone();
        let instant = self.clock.instant();
        match report.stale_at() {
            Some(stale_at) if stale_at <= instant => Arc::new(report.aged(instant, self.clock.now())),
            _ => report,
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("report", &self.reports.borrow()).finish()
    }
}

/// Where the poll loops put their results.
struct Board {
    stack: String,
    clock: Clock,
    services: Mutex<Vec<ServiceReport>>,
    publish: watch::Sender<Arc<Report>>,
}

impl Board {
    fn put(&self, position: usize, service: ServiceReport) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = services.get_mut(position) {
            *slot = service;
        }
        let report = Report::new(self.stack.clone(), self.clock.now(), services.clone());
        // Sent under the lock: otherwise an older report could overtake a newer one.
        self.publish.send_replace(Arc::new(report));
    }
}

async fn poll(board: Arc<Board>, position: usize, prober: Arc<Prober>) {
    let intervals = prober.entry().intervals;
    let mut inventory_at: Option<Instant> = None;
    let mut startup = Some(STARTUP_POLL_FIRST);
    loop {
        let now = board.clock.instant();
        let tier = if inventory_at.is_some_and(|due| due <= now) { Tier::Inventory } else { Tier::Vitals };
        let mut report = prober.probe(tier).await;
        let answered = report.failure.is_none();
        if answered {
            startup = None;
            // The first answer is followed by an inventory at the next turn.
            inventory_at = match tier {
                Tier::Inventory => Some(board.clock.deadline(intervals.inventory)),
                _ => inventory_at.or(Some(now)),
            };
        }
        let wait = next_wait(&report, &intervals, &mut startup);
        let inventory_in = inventory_at.map(|due| due.saturating_duration_since(now));
        report.stale_at = Some(board.clock.deadline(believed_for(&intervals, wait, inventory_in)));
        board.put(position, report);
        sleep(wait).await;
    }
}

/// How long a result is believed: [`Intervals::stale_after`], and longer if the next one can't be there by then, as
/// after a failure that is looked at rarely, or before an inventory that may take its time.
fn believed_for(intervals: &Intervals, wait: Duration, inventory_in: Option<Duration>) -> Duration {
    let polls = intervals.poll.max(wait).saturating_mul(STALE_POLLS);
    let inventory_next = inventory_in.is_some_and(|due| due <= polls);
    let probe = if inventory_next { intervals.inventory_timeout.max(intervals.timeout) } else { intervals.timeout };
    polls.saturating_add(probe)
}

fn next_wait(report: &ServiceReport, intervals: &Intervals, startup: &mut Option<Duration>) -> Duration {
    let wait = match (&report.failure, startup.as_mut()) {
        (None, _) => intervals.poll,
        (Some(failure), _) if !failure.kind.mends_by_waiting() => PERMANENT_FAILURE_POLL.max(intervals.poll_failing),
        (Some(_), None) => intervals.poll_failing,
        (Some(_), Some(startup)) => {
            let wait = *startup;
            *startup = startup.mul_f64(STARTUP_POLL_FACTOR).min(intervals.poll_failing);
            wait
        }
    };
    let stray = wait.min(JITTER_BASE_MAX).mul_f64(JITTER_RATIO);
    wait.saturating_sub(stray).saturating_add(stray.mul_f64(2.0 * fastrand::f64()))
}

/// The failure of a required service that waiting can't mend. Its text names the service, the code and the facts
/// already, as every probe failure does.
fn permanent_failure(service: &ServiceReport) -> Option<Error> {
    let failure = service.failure.as_ref()?;
    if service.criticality != Criticality::Required || failure.kind.mends_by_waiting() {
        return None;
    }
    Some(Error::new(failure.kind, format!("waiting can't mend this: {}", failure.message)))
}

fn not_ready(report: &Report, timeout: Duration) -> Error {
    let waiting = report.services.iter().filter(|service| service.criticality == Criticality::Required);
    let missing: Vec<String> = waiting
        .filter(|service| !service.status.is_ready())
        .map(|service| match (&service.failure, service.status) {
            (Some(failure), _) => failure.message.clone(),
            (None, Status::Unknown) => format!("{}: no probe has ended yet", service.id),
            (None, status) => format!("{}: {status}", service.id),
        })
        .collect();
    Error::new(ErrorKind::Timeout, format!("not ready after {timeout:?}: {}", missing.join("; ")))
        .with_operation("wait until ready")
}
