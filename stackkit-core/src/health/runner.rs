//! Runs the probes of one service: each in a task of its own, and never one beside another that does not let go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::{Clock, Stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::health::{Observation, ProbeContext};
use crate::service::Service;

/// How long after its deadline a probe is dropped. A probe that keeps its deadline ends at it by itself, and knows in which phase
/// it waited; this is what it takes to say so, also on a busy machine.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(20);
/// How long a dropped probe and a `reset` may hold their slot before the failure is told without them. Both only drop values,
/// which takes microseconds; a result must not come much later than its deadline.
const LET_GO_WAIT: Duration = Duration::from_millis(10);
/// An answer that comes so long after the deadline is none: the probe blocked the runtime's last thread, so that nothing could
/// end it in time. What a busy machine reads a moment late is still an answer.
const LATE_MAX: Duration = Duration::from_secs(1);
/// How long a `reset` may take in all before it is dropped: it only drops values.
const RESET_WAIT: Duration = Duration::from_secs(1);

/// What runs a service's probes, one at a time.
#[derive(Debug)]
pub(crate) struct Runner {
    service: Arc<dyn Service>,
    clock: Clock,
    /// Held by the task of a probe or a reset until it is really over, though nobody may wait for it any more: so a probe that
    /// blocks its thread stays the only one.
    slot: Arc<Semaphore>,
    held: Mutex<Held>,
}

/// Who has the slot.
#[derive(Debug)]
struct Held {
    since: Stamp,
    /// Whether it was asked for in vain.
    is_stuck: bool,
    /// Whether a `reset` is owed as soon as the slot is free.
    owes_reset: bool,
    /// A reset that goes on; aborted with the runner.
    resetting: Option<AbortOnDropHandle<()>>,
}

impl Runner {
    pub(crate) fn new(service: Arc<dyn Service>, clock: Clock) -> Self {
        let held = Held { since: Stamp::now(&clock), is_stuck: false, owes_reset: false, resetting: None };
        Self { service, clock, slot: Arc::new(Semaphore::new(1)), held: Mutex::new(held) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when a probe holds its thread although its deadline has passed, if one does.
    pub(crate) fn stuck_since(&self) -> Option<Timestamp> {
        let mut held = self.held();
        let is_stuck = held.is_stuck && self.slot.available_permits() == 0;
        is_stuck.then(|| held.since.wall_by(Stamp::now(&self.clock)))
    }

    /// Runs one probe, so that a panic or a blocked thread stays in its task.
    pub(crate) async fn run(&self, cx: ProbeContext) -> Result<Observation> {
        let owes_reset = self.held().owes_reset;
        if owes_reset && !self.reset().await {
            return Err(self.stuck_error());
        }
        let Some(permit) = self.take_slot().await else { return Err(self.stuck_error()) };
        let dropped_at = cx.deadline() + LAST_WORDS_WAIT;
        let service = self.service.clone();
        let mut task = AbortOnDropHandle::new(tokio::spawn(async move {
            let _slot = permit;
            match service.health_check() {
                Some(check) => check.probe(&cx).await,
                None => Err(Error::new(ErrorKind::Unsupported, "the service has no health check")),
            }
        }));
        let error = match timeout_at(dropped_at, &mut task).await {
            Ok(Ok(outcome)) if self.clock.instant() < dropped_at + LATE_MAX => {
                return outcome.map_err(|error| self.named(error));
            }
            Ok(Ok(_late)) => Error::new(ErrorKind::Timeout, "the answer came long after the probe's deadline"),
            Ok(Err(_panic)) => Error::unexpected("the probe panicked"),
            Err(_elapsed) => Error::new(ErrorKind::Timeout, "no answer before the probe's deadline"),
        };
        task.abort();
        self.held().owes_reset = true;
        self.reset().await;
        Err(self.named(error).with_operation("probe"))
    }

    /// Takes the slot, unless whoever has it does not let go of it.
    async fn take_slot(&self) -> Option<OwnedSemaphorePermit> {
        let permit =
            timeout(LET_GO_WAIT, self.slot.clone().acquire_owned()).await.ok().and_then(std::result::Result::ok);
        let mut held = self.held();
        held.is_stuck = permit.is_none();
        if permit.is_some() {
            held.since = Stamp::now(&self.clock);
        }
        permit
    }

    /// Resets the service, in a task of its own for the same reasons; owed, and false, until the slot is free.
    async fn reset(&self) -> bool {
        let Some(permit) = self.take_slot().await else { return false };
        let service = self.service.clone();
        let mut task = AbortOnDropHandle::new(tokio::spawn(async move {
            let _slot = permit;
            if let Some(check) = service.health_check() {
                let _ = timeout(RESET_WAIT, check.reset()).await;
            }
        }));
        let ended = timeout(LET_GO_WAIT, &mut task).await.is_ok();
        let mut held = self.held();
        held.owes_reset = false;
        // One that takes longer goes on; the next probe waits for it.
        held.resetting = (!ended).then_some(task);
        true
    }

    fn named(&self, error: Error) -> Error {
        error.with_service(self.service.id().clone())
    }

    fn stuck_error(&self) -> Error {
        let held_for = self.clock.instant().saturating_duration_since(self.held().since.at).as_secs_f64();
        let message =
            format!("an earlier probe has held its thread for {held_for:.1} s; no other is started beside it");
        self.named(Error::new(ErrorKind::Timeout, message)).with_operation("probe")
    }
}
