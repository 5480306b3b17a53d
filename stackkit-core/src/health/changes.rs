//! The stream of transitions.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::health::{Report, Status};
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
}

/// The transitions of a stack's services, from the moment of [`Monitor::changes`](crate::Monitor::changes) on.
///
/// A slow reader misses no state: what happened meanwhile is told as one transition from the state that the reader
/// knows to the present one. So nothing piles up.
#[derive(Debug)]
pub struct Changes {
    reports: watch::Receiver<Arc<Report>>,
    known: Arc<Report>,
    /// At most one entry a service.
    pending: VecDeque<Transition>,
}

impl Changes {
    pub(crate) fn new(mut reports: watch::Receiver<Arc<Report>>) -> Self {
        let known = reports.borrow_and_update().clone();
        Self { reports, known, pending: VecDeque::new() }
    }

    /// The next transition; `None` when the monitor is gone.
    ///
    /// # Cancel safety
    /// Cancel safe: no transition is lost.
    pub async fn next(&mut self) -> Option<Transition> {
        loop {
            if let Some(transition) = self.pending.pop_front() {
                return Some(transition);
            }
            self.reports.changed().await.ok()?;
            let report = self.reports.borrow_and_update().clone();
            self.pending.extend(transitions(&self.known, &report));
            self.known = report;
        }
    }

    /// The transitions as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Transition> + Send {
        futures_util::stream::unfold(
            self,
            |mut changes| async move { changes.next().await.map(|next| (next, changes)) },
        )
    }
}

fn transitions(from: &Report, to: &Report) -> Vec<Transition> {
    let pairs = from.services.iter().zip(&to.services).filter(|(old, new)| old.status != new.status);
    pairs
        .map(|(old, new)| Transition { service: new.id.clone(), from: old.status, to: new.status, at: new.since })
        .collect()
}
