//! Reads the reports of a monitor.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::health::fold::{Moment, Shape};
use crate::health::{History, Metric, Prober, Report};

/// Reads the reports of a [`Monitor`](crate::Monitor); cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) clock: Clock,
    pub(crate) shape: Arc<Shape>,
    pub(crate) probers: Arc<[Arc<Prober>]>,
    pub(crate) reports: watch::Receiver<Arc<Report>>,
    /// What the last published report has aged to, so that it is made once.
    pub(crate) aged: Arc<Mutex<Option<Arc<Report>>>>,
}

impl Snapshot {
    /// The latest report, without I/O.
    ///
    /// An entry that is older than its [`Intervals::stale_after`](crate::Intervals::stale_after) is
    /// [`Status::Unknown`](crate::health::Status::Unknown): a poll loop that hangs, or a monitor that is gone, must not stay
    /// green. Where the next probe is due later or may take longer (after a failure that waiting can't mend, before an
    /// inventory), that much more is allowed.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        let report = self.reports.borrow().clone();
        let instant = self.clock.instant();
        match report.stale_at {
            Some(stale_at) if stale_at <= instant => self.aged(&report, instant),
            _ => report,
        }
    }

    /// Waits for a report after this moment; false when the monitor is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn changed(&mut self) -> bool {
        self.reports.changed().await.is_ok()
    }

    /// The last 24 hours of one service, if it is probed: the state and the latency of each minute, and how much of the time
    /// it was ready.
    #[must_use]
    pub fn history(&self, id: &str) -> Option<History> {
        let position = self.shape.positions.get(id)?;
        Some(self.probers.get(*position)?.history())
    }

    /// What the check of one service measures, as its [catalogue](crate::HealthCheck::metrics) says; empty if there is none.
    #[must_use]
    pub fn metrics(&self, id: &str) -> &'static [Metric] {
        let position = self.shape.positions.get(id).copied();
        position.and_then(|position| self.probers.get(position)).map_or(&[], |prober| prober.metrics())
    }

    /// The clock of the stack: a report's ages count up to its present.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn aged(&self, published: &Report, instant: Instant) -> Arc<Report> {
        let mut aged = self.aged.lock().unwrap_or_else(PoisonError::into_inner);
        let before = aged.as_ref().filter(|aged| aged.sequence > published.sequence);
        if let Some(aged) = before.filter(|aged| aged.stale_at.is_none_or(|stale_at| stale_at > instant)) {
            return aged.clone();
        }
        let before = before.map_or(published, Arc::as_ref);
        let moment =
            Moment { now: self.clock.now(), instant, draining: before.draining, sequence: before.sequence + 1 };
        let report = Arc::new(self.shape.fold(before.services.clone(), moment, Some(before)));
        *aged = Some(report.clone());
        report
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("report", &self.reports.borrow()).finish_non_exhaustive()
    }
}
