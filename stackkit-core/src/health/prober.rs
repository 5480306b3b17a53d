//! Probes one service: deadline, single flight, panic isolation, and the state between probes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::health::state::{Look, Measure, State};
use crate::health::{Axes, HealthCheck, History, Metric, Observation, ProbeContext, ServiceReport, Status, Tier};
use crate::service::ServiceId;
use crate::stack::StackEntry;

/// How long a dropped probe and a `reset` may take to let go of their connection. Both only drop values, so this is
/// generous; it bounds the wait for a probe that blocks its thread.
const LET_GO_WAIT: Duration = Duration::from_secs(1);

/// How long after its deadline a probe is dropped. A probe that keeps its deadline ends at it by itself, and knows in which phase
/// it waited; this is what it takes to say so, also on a busy machine.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(20);

/// One service with what its probes found so far.
#[derive(Debug)]
pub(crate) struct Prober {
    entry: StackEntry,
    clock: Clock,
    /// One probe at a time: a second caller waits for the first one's answer instead of probing again.
    flight: Semaphore,
    /// The last probe that did not let go of its thread in time. Another one beside it would take the next thread.
    blocked: Mutex<Option<Blocked>>,
    /// Asks the poll loop to look at once.
    pub(crate) nudge: Notify,
    state: Mutex<State>,
    measure: Measure,
    endpoint: Arc<str>,
    dependencies: Arc<[String]>,
    groups: Arc<[String]>,
}

/// A probe that did not let go of its thread.
#[derive(Debug)]
struct Blocked {
    task: AbortHandle,
    since: Timestamp,
}

impl Prober {
    pub(crate) fn new(entry: StackEntry, clock: Clock) -> Self {
        let check = entry.service.health_check();
        let rules = check.map(HealthCheck::rules).unwrap_or_default();
        let measure = Measure {
            metrics: check.map_or(&[], HealthCheck::metrics),
            rules: entry.thresholds.apply(&rules),
            thresholds: entry.thresholds.clone(),
        };
        Self {
            endpoint: entry.service.endpoint().to_string().into(),
            dependencies: entry.after.as_slice().into(),
            groups: entry.groups.as_slice().into(),
            flight: Semaphore::new(1),
            blocked: Mutex::default(),
            nudge: Notify::new(),
            state: Mutex::new(State::new(clock.now())),
            measure,
            entry,
            clock,
        }
    }

    /// The tiers that the check knows.
    pub(crate) fn tiers(&self) -> &'static [Tier] {
        self.entry.service.health_check().map_or(&[], HealthCheck::tiers)
    }

    /// The highest tier but the inventory: what tells most of whether the service serves.
    pub(crate) fn deciding_tier(&self) -> Tier {
        self.tiers().iter().copied().filter(|tier| *tier != Tier::Inventory).max().unwrap_or_default()
    }

    pub(crate) fn entry(&self) -> &StackEntry {
        &self.entry
    }

    pub(crate) fn metrics(&self) -> &'static [Metric] {
        self.measure.metrics
    }

    pub(crate) fn id(&self) -> &ServiceId {
        self.entry.service.id()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the verdict, as when polling starts anew: what was seen hours ago counts for nothing.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.stability.forget(self.clock.instant());
        state.since = self.clock.now();
        state.axes = Axes::all(Status::Unknown);
    }

    /// What the last result meant by itself, before it counts `fall` times.
    pub(crate) fn last(&self) -> Status {
        self.state().last
    }

    /// The last 24 hours.
    pub(crate) fn history(&self) -> History {
        let believed_for = self.entry.intervals.stale_after();
        self.state().recorder.history(self.clock.instant(), self.clock.now(), believed_for)
    }

    /// What is known without probing.
    pub(crate) fn report(&self) -> ServiceReport {
        let stuck_since = self.stuck_since();
        let state = self.state();
        ServiceReport {
            id: self.id().clone(),
            kind: self.entry.service.kind(),
            endpoint: self.endpoint.clone(),
            status: state.stability.status(),
            axes: state.axes,
            criticality: self.entry.criticality,
            since: state.since,
            checked_at: state.checked_at,
            latency_ms: state.latency.map(|latency| latency.as_secs_f64() * 1e3),
            tiers: state.tiers(),
            attempts_count: state.attempts_count,
            successes_count: state.successes_count,
            failures_count: state.failures_count,
            failure: state.failure.clone(),
            stuck_since,
            flapping: state.stability.is_flapping(),
            caused_by: Vec::new(),
            maintenance_until: None,
            availability: state.recorder.availability(),
            groups: self.groups.clone(),
            dependencies: self.dependencies.clone(),
            observation: state.observation.clone(),
            exceeded: state.exceeded.clone(),
            counts: state.counts.clone(),
            stale_at: None,
            was_ready: state.stability.was_ready(),
        }
    }

    /// Probes, or joins a probe of this tier that was started after this call.
    pub(crate) async fn probe(&self, tier: Tier) -> ServiceReport {
        let called_at = self.clock.instant();
        let Ok(_flight) = self.flight.acquire().await else { return self.report() };
        let joined = {
            let state = self.state();
            state.started_at.is_some_and(|started_at| started_at >= called_at) && state.tier == tier
        };
        if !joined {
            self.probe_alone(tier).await;
        }
        self.report()
    }

    async fn probe_alone(&self, tier: Tier) {
        let started_at = self.clock.instant();
        let deadline = self.clock.deadline(self.entry.intervals.timeout_of(tier));
        let cx = {
            let state = self.state();
            let layer = state.layer(tier);
            ProbeContext::new(tier, deadline)
                .with_previous(layer.map(|layer| layer.observation.clone()))
                .with_previous_at(layer.map(|layer| layer.at))
                .with_clock(self.clock.clone())
        };
        let outcome = self.guarded(cx).await;
        if let Err(error) = &outcome {
            tracing::debug!(service = %self.id(), %tier, error.kind = error.kind().as_str(), error = %error.chain(), "probe failed");
        }
        let at = self.clock.instant();
        let look = Look { tier, latency: at - started_at, outcome };
        let mut state = self.state();
        state.started_at = Some(started_at);
        state.tier = tier;
        state.record(look, (at, self.clock.now()), &self.measure, &self.entry.intervals);
    }

    /// Runs the probe in a task of its own, so that a panic or a blocked thread stays there.
    async fn guarded(&self, cx: ProbeContext) -> Result<Observation> {
        let named = |error: Error| error.with_service(self.id().clone());
        let timeout_error = |message| named(Error::new(ErrorKind::Timeout, message)).with_operation("probe");
        if self.is_blocked() {
            return Err(timeout_error("an earlier probe still blocks its thread"));
        }
        let dropped_at = cx.deadline() + LAST_WORDS_WAIT;
        let service = self.entry.service.clone();
        let mut task = AbortOnDropHandle::new(tokio::spawn(async move {
            match service.health_check() {
                Some(check) => check.probe(&cx).await,
                None => Err(Error::new(ErrorKind::Unsupported, "the service has no health check")),
            }
        }));
        let error = match timeout_at(dropped_at, &mut task).await {
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
            let blocked = Blocked { task: task.abort_handle(), since: self.clock.now() };
            *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = Some(blocked);
        }
    }

    /// Since when a probe holds its thread although its deadline has passed, if one does.
    fn stuck_since(&self) -> Option<Timestamp> {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.take_if(|blocked| blocked.task.is_finished());
        blocked.as_ref().map(|blocked| blocked.since)
    }

    fn is_blocked(&self) -> bool {
        self.stuck_since().is_some()
    }
}
