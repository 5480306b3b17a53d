//! Probes one service: deadline, single flight, panic isolation, and the state between probes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::health::{Axis, Finding, Observation, ProbeContext, ProbeFailure, ServiceReport, Severity, Status, Tier};
use crate::service::ServiceId;
use crate::stack::StackEntry;

/// How long a dropped probe and a `reset` may take to let go of their connection. Both only drop values, so this is
/// generous; it bounds the wait for a probe that blocks its thread.
const LET_GO_WAIT: Duration = Duration::from_secs(1);

/// One service with what its probes found so far.
#[derive(Debug)]
pub(crate) struct Prober {
    entry: StackEntry,
    clock: Clock,
    /// One probe at a time: a second caller waits for the first one's answer instead of probing again.
    flight: Semaphore,
    /// The last probe that did not let go of its thread in time. Another one beside it would take the next thread.
    blocked: Mutex<Option<AbortHandle>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    started_at: Option<Instant>,
    tier: Tier,
    status: Status,
    since: Timestamp,
    checked_at: Option<Timestamp>,
    latency: Option<Duration>,
    successes_count: u64,
    failures_count: u64,
    failure: Option<ProbeFailure>,
    observation: Option<Arc<Observation>>,
    inventory: Option<Arc<Observation>>,
    exceeded: Vec<Finding>,
}

/// One look at the service.
struct Look {
    tier: Tier,
    latency: Duration,
    outcome: Result<Observation>,
}

/// Says that the inventory is missing, without any driver's text.
fn left_out(error: &Error) -> Finding {
    let message = format!("the inventory could not be taken: {}", error.kind());
    Finding::new("probe.inventory.failed", Axis::Risk, Severity::Info, message)
}

impl Prober {
    pub(crate) fn new(entry: StackEntry, clock: Clock) -> Self {
        let state = State {
            started_at: None,
            tier: Tier::Ping,
            status: Status::Unknown,
            since: clock.now(),
            checked_at: None,
            latency: None,
            successes_count: 0,
            failures_count: 0,
            failure: None,
            observation: None,
            inventory: None,
            exceeded: Vec::new(),
        };
        Self { entry, clock, flight: Semaphore::new(1), blocked: Mutex::default(), state: Mutex::new(state) }
    }

    pub(crate) fn entry(&self) -> &StackEntry {
        &self.entry
    }

    pub(crate) fn id(&self) -> &ServiceId {
        self.entry.service.id()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known without probing.
    pub(crate) fn report(&self) -> ServiceReport {
        let state = self.state();
        ServiceReport {
            id: self.id().clone(),
            kind: self.entry.service.kind(),
            endpoint: self.entry.service.endpoint().to_string(),
            status: state.status,
            criticality: self.entry.criticality,
            since: state.since,
            checked_at: state.checked_at,
            latency_ms: state.latency.map(|latency| latency.as_secs_f64() * 1e3),
            successes_count: state.successes_count,
            failures_count: state.failures_count,
            failure: state.failure.clone(),
            observation: state.observation.clone(),
            exceeded: state.exceeded.clone(),
            stale_at: None,
        }
    }

    /// Probes, or joins a probe of at least this tier that was started after this call.
    pub(crate) async fn probe(&self, tier: Tier) -> ServiceReport {
        let called_at = self.clock.instant();
        let Ok(_flight) = self.flight.acquire().await else { return self.report() };
        let joined = {
            let state = self.state();
            state.started_at.is_some_and(|started_at| started_at >= called_at) && state.tier >= tier
        };
        if !joined {
            self.probe_alone(tier).await;
        }
        self.report()
    }

    async fn probe_alone(&self, tier: Tier) {
        let started_at = self.clock.instant();
        let mut look = self.look(tier).await;
        if let (Tier::Inventory, Err(error)) = (tier, &look.outcome) {
            // Counting everything may take longer than it may: that says nothing of whether the service serves.
            let left_out = left_out(error);
            look = self.look(Tier::Vitals).await;
            look.outcome = look.outcome.map(|observation| observation.finding(left_out));
        }
        self.record(started_at, tier, look);
    }

    async fn look(&self, tier: Tier) -> Look {
        let started_at = self.clock.instant();
        let deadline = self.clock.deadline(self.entry.intervals.timeout_of(tier));
        let cx = ProbeContext::new(tier, deadline)
            .with_previous(self.state().observation.clone())
            .with_clock(self.clock.clone());
        let outcome = self.guarded(cx).await;
        if let Err(error) = &outcome {
            tracing::debug!(service = %self.id(), error.kind = error.kind().as_str(), error = %error.chain(), "probe failed");
        }
        Look { tier, latency: self.clock.instant() - started_at, outcome }
    }

    /// Runs the probe in a task of its own, so that a panic or a blocked thread stays there.
    async fn guarded(&self, cx: ProbeContext) -> Result<Observation> {
        let named = |error: Error| error.with_service(self.id().clone());
        let timeout_error = |message| named(Error::new(ErrorKind::Timeout, message)).with_operation("probe");
        if self.is_blocked() {
            return Err(timeout_error("an earlier probe still blocks its thread"));
        }
        let deadline = cx.deadline();
        let service = self.entry.service.clone();
        let mut task = AbortOnDropHandle::new(tokio::spawn(async move {
            match service.health_check() {
                Some(check) => check.probe(&cx).await,
                None => Err(Error::new(ErrorKind::Unsupported, "the service has no health check")),
            }
        }));
        let error = match timeout_at(deadline, &mut task).await {
            Ok(Ok(outcome)) => return outcome.map_err(named),
            Ok(Err(_panic)) => named(Error::unexpected("the probe panicked")).with_operation("probe"),
            Err(_elapsed) => {
                task.abort();
                self.let_go(task).await;
                timeout_error("no answer before the probe's deadline")
            }
        };
        if !self.is_blocked() {
            self.reset().await;
        }
        Err(error)
    }

    /// Resets the service, in a task of its own for the same reasons.
    async fn reset(&self) {
        let service = self.entry.service.clone();
        let reset = tokio::spawn(async move {
            if let Some(check) = service.health_check() {
                check.reset().await;
            }
        });
        self.let_go(AbortOnDropHandle::new(reset)).await;
    }

    /// Gives a task [`LET_GO_WAIT`] to end. One that still runs then blocks its thread.
    async fn let_go<T>(&self, mut task: AbortOnDropHandle<T>) {
        if timeout(LET_GO_WAIT, &mut task).await.is_err() {
            task.abort();
            *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        }
    }

    fn is_blocked(&self) -> bool {
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.as_ref().is_some_and(|task| !task.is_finished())
    }

    fn record(&self, started_at: Instant, tier: Tier, look: Look) {
        let now = self.clock.now();
        let mut state = self.state();
        state.started_at = Some(started_at);
        state.tier = tier;
        state.latency = Some(look.latency);
        state.checked_at = Some(now);
        let status = match look.outcome {
            Ok(observation) => {
                let observation = state.keep(observation, look.tier);
                let (status, exceeded) = self.entry.thresholds.judge(&observation);
                state.exceeded = exceeded;
                state.successes_count = state.successes_count.saturating_add(1);
                state.failures_count = 0;
                state.failure = None;
                status
            }
            Err(error) => {
                state.failures_count = state.failures_count.saturating_add(1);
                state.successes_count = 0;
                state.failure = Some(ProbeFailure::from(&error));
                state.exceeded.clear();
                Status::Unhealthy
            }
        };
        if status != state.status {
            state.status = status;
            state.since = now;
        }
    }
}

impl State {
    /// Stores an observation; what only the inventory tier measures stays visible, and limited by thresholds, until the
    /// next inventory.
    fn keep(&mut self, mut observation: Observation, tier: Tier) -> Arc<Observation> {
        if tier == Tier::Inventory {
            let observation = Arc::new(observation);
            self.inventory = Some(observation.clone());
            self.observation = Some(observation.clone());
            return observation;
        }
        if let Some(inventory) = &self.inventory {
            let missing = |name: &str| observation.measurements.iter().all(|seen| seen.name != name);
            let kept: Vec<_> = inventory.measurements.iter().filter(|old| missing(&old.name)).cloned().collect();
            observation.measurements.extend(kept);
        }
        let observation = Arc::new(observation);
        self.observation = Some(observation.clone());
        observation
    }
}
