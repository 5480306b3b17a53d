//! The stream of transitions.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::health::{Event, Report, ServiceReport, Status};
use crate::service::ServiceId;

/// A service that got another status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Transition {
    /// The service.
    pub service: ServiceId,
    /// What it was.
    pub from: Status,
    /// What it is.
    pub to: Status,
    /// Since when.
    pub at: Timestamp,
    /// Whether it flaps from here on: no more is told of it until it is calm.
    pub flapping: bool,
}

/// The transitions of a stack's services, from the moment of [`Monitor::changes`](crate::Monitor::changes) on.
///
/// A slow reader misses no state: what happened meanwhile is told as one transition from the state that the reader
/// knows to the present one. So nothing piles up. Of a service in maintenance nothing is told; of one that flaps, that it does,
/// and what it came to when it is over.
#[derive(Debug)]
pub struct Changes {
    reports: watch::Receiver<Arc<Report>>,
    /// The status that was told last of each service, and whether it was told that it flaps.
    told: Vec<(Status, bool)>,
    /// At most one entry a service.
    pending: VecDeque<Event>,
}

impl Changes {
    pub(crate) fn new(mut reports: watch::Receiver<Arc<Report>>) -> Self {
        let known = reports.borrow_and_update().clone();
        let told = known.services.iter().map(|service| (service.status, service.flapping)).collect();
        Self { reports, told, pending: VecDeque::new() }
    }

    /// The next transition; `None` when the monitor is gone.
    ///
    /// # Cancel safety
    /// Cancel safe: no transition is lost.
    pub async fn next(&mut self) -> Option<Transition> {
        self.next_event().await.map(|event| event.transition)
    }

    /// The next transition with the report that it was found in; `None` when the monitor is gone.
    ///
    /// # Cancel safety
    /// Cancel safe: no transition is lost.
    pub async fn next_event(&mut self) -> Option<Event> {
        loop {
            // Between two events newer reports may have come; what is pending of a service is told as it is now.
            if self.pending.is_empty() || self.reports.has_changed().unwrap_or(false) {
                if self.pending.is_empty() {
                    self.reports.changed().await.ok()?;
                }
                self.take_in();
            }
            if let Some(event) = self.pending.pop_front() {
                self.mark_told(&event);
                return Some(event);
            }
        }
    }

    /// The transitions as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Transition> + Send {
        futures_util::stream::unfold(
            self,
            |mut changes| async move { changes.next().await.map(|next| (next, changes)) },
        )
    }

    /// Compares the newest report with what was told.
    fn take_in(&mut self) {
        let report = self.reports.borrow_and_update().clone();
        let pairs = self.told.iter().zip(&report.services);
        let changed = pairs.filter(|(told, service)| is_news(**told, service));
        self.pending = changed.map(|(told, service)| event(&report, told.0, service)).collect();
    }

    fn mark_told(&mut self, event: &Event) {
        let position = event.report.services.iter().position(|service| service.id == event.transition.service);
        if let Some(told) = position.and_then(|position| self.told.get_mut(position)) {
            *told = (event.transition.to, event.service.flapping);
        }
    }
}

/// Whether a service has changed in a way that is told.
fn is_news((status, flapping): (Status, bool), service: &ServiceReport) -> bool {
    match (flapping, service.flapping) {
        _ if service.maintenance_until.is_some() => false,
        (true, true) => false,
        (false, true) | (true, false) => true,
        (false, false) => service.status != status,
    }
}

fn event(report: &Arc<Report>, from: Status, service: &Arc<ServiceReport>) -> Event {
    let transition = Transition {
        service: service.id.clone(),
        from,
        to: service.status,
        at: service.since,
        flapping: service.flapping,
    };
    Event { stack: report.stack.clone(), transition, service: service.clone(), report: report.clone() }
}
