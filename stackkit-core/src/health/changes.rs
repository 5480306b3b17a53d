//! The stream of transitions.

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
/// knows to the present one. So nothing piles up, and services take turns: one that changes all the time does not keep
/// others from being told. Of a service in maintenance nothing is told; of one that flaps, that it does, and what it came to
/// when it is over.
#[derive(Debug)]
pub struct Changes {
    reports: watch::Receiver<Arc<Report>>,
    /// The newest report that was looked at.
    report: Arc<Report>,
    /// The status that was told last of each service, and whether it was told that it flaps.
    told: Vec<(Status, bool)>,
    /// Whose turn it is.
    turn: usize,
}

impl Changes {
    pub(crate) fn new(mut reports: watch::Receiver<Arc<Report>>) -> Self {
        let report = reports.borrow_and_update().clone();
        let told = report.services.iter().map(|service| (service.status, service.flapping)).collect();
        Self { reports, report, told, turn: 0 }
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
            // Between two events newer reports may have come; each service is told as it is now.
            self.report.clone_from(&self.reports.borrow_and_update());
            if let Some(event) = self.take_news() {
                return Some(event);
            }
            self.reports.changed().await.ok()?;
        }
    }

    /// The transitions as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Transition> + Send {
        futures_util::stream::unfold(
            self,
            |mut changes| async move { changes.next().await.map(|next| (next, changes)) },
        )
    }

    /// The first service from the one whose turn it is that has changed; it counts as told.
    fn take_news(&mut self) -> Option<Event> {
        let count = self.told.len();
        let turns = (self.turn..count).chain(0..self.turn.min(count));
        for at in turns {
            let (Some(told), Some(service)) = (self.told.get_mut(at), self.report.services.get(at)) else { continue };
            if is_news(*told, service) {
                let (from, _) = std::mem::replace(told, (service.status, service.flapping));
                self.turn = at + 1;
                return Some(event(&self.report, from, service));
            }
        }
        None
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
