//! Probes one service: single flight, and the state between probes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::clock::{Clock, Stamp};
use crate::health::runner::Runner;
use crate::health::state::{Look, Measure, State};
use crate::health::{Axis, Finding, HealthCheck, History, Metric, ProbeContext, ServiceReport, Severity, Tier};
use crate::service::ServiceId;
use crate::stack::StackEntry;

/// One service with what its probes found so far.
#[derive(Debug)]
pub(crate) struct Prober {
    entry: StackEntry,
    clock: Clock,
    /// One probe at a time: a second caller waits for the first one's answer instead of probing again.
    flight: Semaphore,
    runner: Runner,
    /// Asks the poll loop to look at once.
    pub(crate) nudge: Notify,
    state: Mutex<State>,
    measure: Measure,
    endpoint: Arc<str>,
    dependencies: Arc<[String]>,
    groups: Arc<[String]>,
}

impl Prober {
    pub(crate) fn new(entry: StackEntry, clock: Clock) -> Self {
        let measure = Measure::new(entry.service.health_check(), &entry.thresholds);
        Self {
            endpoint: entry.service.endpoint().to_string().into(),
            dependencies: entry.after.as_slice().into(),
            groups: entry.groups.as_slice().into(),
            flight: Semaphore::new(1),
            runner: Runner::new(entry.service.clone(), clock.clone()),
            nudge: Notify::new(),
            state: Mutex::new(State::new(Stamp::now(&clock))),
            measure,
            entry,
            clock,
        }
    }

    /// The tiers that the check knows.
    pub(crate) fn tiers(&self) -> &'static [Tier] {
        self.entry.service.health_check().map_or(&[], HealthCheck::tiers)
    }

    /// The tier that tells most of whether the service serves.
    pub(crate) fn deciding_tier(&self) -> Tier {
        self.measure.deciding
    }

    /// Whether a tier has anything to tell that a probe of the deciding one does not.
    pub(crate) fn tells_more(&self, tier: Tier) -> bool {
        tier != Tier::Ping || self.measure.has_ping_metrics
    }

    pub(crate) fn entry(&self) -> &StackEntry {
        &self.entry
    }

    pub(crate) fn metrics(&self) -> &'static [Metric] {
        self.entry.service.health_check().map_or(&[], HealthCheck::metrics)
    }

    pub(crate) fn id(&self) -> &ServiceId {
        self.entry.service.id()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the verdict, as when polling starts anew: what was seen hours ago counts for nothing.
    pub(crate) fn forget(&self) {
        self.state().forget(Stamp::now(&self.clock));
    }

    /// Whether the last result meant by itself that it serves, before it counts `fall` times.
    pub(crate) fn seems_well(&self) -> bool {
        self.state().last.status.is_ready()
    }

    /// Says until when the last result holds if no other comes.
    pub(crate) fn believe(&self, until: Instant) {
        self.state().recorder.believe(until);
    }

    /// The last 24 hours.
    pub(crate) fn history(&self) -> History {
        let now = Stamp::now(&self.clock);
        self.state().recorder.history(now)
    }

    /// What is known without probing.
    pub(crate) fn report(&self) -> ServiceReport {
        let stuck_since = self.runner.stuck_since();
        let now = Stamp::now(&self.clock);
        let mut state = self.state();
        let mut exceeded = state.exceeded.clone();
        exceeded.extend(state.stability.is_flapping().then(flapping));
        exceeded.extend(stuck_since.map(|_since| stuck()));
        ServiceReport {
            id: self.id().clone(),
            kind: self.entry.service.kind(),
            endpoint: self.endpoint.clone(),
            status: state.stability.status(),
            axes: state.axes,
            criticality: self.entry.criticality,
            since: state.since.wall_by(now),
            checked_at: state.checked_at.as_mut().map(|checked_at| checked_at.wall_by(now)),
            latency_ms: state.latency.map(|latency| latency.as_secs_f64() * 1e3),
            tiers: state.tiers(now),
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
            exceeded,
            counts: state.counts.clone(),
            stale_at: None,
            is_stale: false,
            was_ready: state.stability.was_ready(),
            since_at: state.since.at,
            last: state.last,
            probed_at: state.probed_at,
            healed_at: None,
        }
    }

    /// Probes, or joins a probe of this tier that runs already.
    pub(crate) async fn probe(&self, tier: Tier) -> ServiceReport {
        let before = self.state().ended_count(tier);
        let Ok(_flight) = self.flight.acquire().await else { return self.report() };
        if self.state().ended_count(tier) == before {
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
                .with_previous_at(layer.map(|layer| layer.at.at))
                .with_clock(self.clock.clone())
        };
        let outcome = self.runner.run(cx).await;
        if let Err(error) = &outcome {
            tracing::debug!(service = %self.id(), %tier, error.kind = error.kind().as_str(), error = %error.chain(), "probe failed");
        }
        let now = Stamp::now(&self.clock);
        let look = Look { tier, started_at, latency: now.at - started_at, outcome };
        self.state().record(look, now, &self.measure, &self.entry.intervals);
    }
}

fn flapping() -> Finding {
    let message = "its status changes again and again";
    Finding::new("health.flapping", Axis::Risk, Severity::Warning, message)
        .with_hint("look at what restarts or overloads it; transitions are not told until it is calm")
}

fn stuck() -> Finding {
    let message = "a probe holds its thread although its deadline has passed; no other is started beside it";
    Finding::new("health.stuck", Axis::Reach, Severity::Critical, message)
        .with_hint("look for a hung mount or a call that blocks; probing goes on as soon as it returns")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::health::{Observation, Status, Transition};
    use crate::{Endpoint, Monitor, Result, Service, Stack, async_trait};

    #[derive(Debug)]
    struct Well(ServiceId);

    impl Service for Well {
        fn id(&self) -> &ServiceId {
            &self.0
        }
        fn kind(&self) -> &'static str {
            "well"
        }
        fn endpoint(&self) -> Endpoint {
            Endpoint::new("test", "localhost", 1)
        }
        fn health_check(&self) -> Option<&dyn HealthCheck> {
            Some(self)
        }
    }

    #[async_trait]
    impl HealthCheck for Well {
        async fn probe(&self, _cx: &ProbeContext) -> Result<Observation> {
            Ok(Observation::new())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn growing_stale_is_told_without_anybody_reading() {
        let stack = Stack::builder("s").service(Well(ServiceId::new("a").unwrap())).build().unwrap();
        let monitor = Monitor::start(&stack);
        let mut changes = monitor.changes();
        let mut next = async || -> Transition {
            timeout(Duration::from_secs(3600), changes.next()).await.expect("a change is told").unwrap()
        };
        assert_eq!(next().await.to, Status::Healthy);
        let prober = stack.probers().next().unwrap().clone();
        let flight = prober.flight.acquire().await.unwrap();
        let since = Instant::now();
        let stale = next().await;
        assert_eq!((stale.from, stale.to), (Status::Healthy, Status::Unknown));
        assert!((10..=60).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
        let report = monitor.report();
        let service = report.service("a").unwrap();
        assert_eq!((service.axes.reach, service.since, report.ready), (Status::Unknown, stale.at, false));
        drop(flight);
        assert_eq!(next().await.to, Status::Healthy);
    }
}
