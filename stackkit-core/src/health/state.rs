//! What the probes of one service found so far.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Stamp;
use crate::error::{Error, ErrorKind};
use crate::health::recorder::Recorder;
use crate::health::stability::{Outcome, Stability};
use crate::health::{
    Axes, Axis, Finding, HealthCheck, Intervals, Metric, Observation, ProbeCounts, ProbeFailure, Rule, Severity,
    Status, Thresholds, Tier, TierReport,
};

/// The last observation of one tier.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) observation: Arc<Observation>,
    pub(crate) at: Stamp,
    latency: Duration,
}

/// What stays the same for one service.
#[derive(Debug)]
pub(crate) struct Measure {
    /// Where each measurement is read, by its name.
    sources: HashMap<&'static str, &'static str>,
    /// The adapter's rules with the user's thresholds.
    rules: Vec<Rule>,
    thresholds: Thresholds,
    /// The highest tier but the inventory; the inventory of a check that knows nothing else.
    pub(crate) deciding: Tier,
    pub(crate) has_ping_metrics: bool,
}

impl Measure {
    pub(crate) fn new(check: Option<&dyn HealthCheck>, thresholds: &Thresholds) -> Self {
        let metrics: &[Metric] = check.map_or(&[], HealthCheck::metrics);
        let tiers = check.map_or(&[][..], HealthCheck::tiers);
        let cheap = tiers.iter().copied().filter(|tier| *tier != Tier::Inventory).max();
        Self {
            sources: metrics.iter().map(|metric| (metric.name, metric.source)).collect(),
            rules: thresholds.apply(&check.map(HealthCheck::rules).unwrap_or_default()),
            thresholds: thresholds.clone(),
            deciding: cheap.or(tiers.first().copied()).unwrap_or_default(),
            has_ping_metrics: metrics.iter().any(|metric| metric.tier == Tier::Ping),
        }
    }

    /// Says where each measurement was read, as the catalogue has it.
    fn annotate(&self, observation: &mut Observation) {
        for measurement in &mut observation.measurements {
            if measurement.source.is_none() {
                measurement.source = self.sources.get(measurement.name.as_ref()).map(|source| (*source).into());
            }
        }
    }
}

/// One look at the service.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) tier: Tier,
    pub(crate) started_at: Instant,
    pub(crate) latency: Duration,
    pub(crate) outcome: crate::error::Result<Observation>,
}

/// What one result means by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Last {
    pub(crate) status: Status,
    pub(crate) axes: Axes,
}

impl Last {
    const UNKNOWN: Self = Self { status: Status::Unknown, axes: Axes::all(Status::Unknown) };
}

#[derive(Debug)]
pub(crate) struct State {
    /// How many probes of each tier have ended, as in [`Tier::ALL`].
    ended_counts: [u64; 4],
    pub(crate) stability: Stability,
    pub(crate) last: Last,
    /// On each axis, held as long as the status is.
    pub(crate) axes: Axes,
    pub(crate) since: Stamp,
    pub(crate) probed_at: Option<Instant>,
    pub(crate) checked_at: Option<Stamp>,
    pub(crate) latency: Option<Duration>,
    pub(crate) attempts_count: u64,
    pub(crate) successes_count: u64,
    pub(crate) failures_count: u64,
    pub(crate) failure: Option<ProbeFailure>,
    /// The last observation of each tier, as in [`Tier::ALL`].
    layers: [Option<Layer>; 4],
    /// Why the inventory is missing.
    left_out: Option<Finding>,
    /// All layers as one.
    pub(crate) observation: Option<Arc<Observation>>,
    pub(crate) exceeded: Vec<Finding>,
    pub(crate) counts: Arc<ProbeCounts>,
    pub(crate) recorder: Recorder,
}

/// Says that the inventory is missing, without any driver's text.
fn left_out(error: &Error) -> Finding {
    let message = format!("the inventory could not be taken: {}", error.kind());
    Finding::new("probe.inventory.failed", Axis::Risk, Severity::Info, message)
}

impl State {
    pub(crate) fn new(now: Stamp) -> Self {
        Self {
            ended_counts: [0; 4],
            stability: Stability::new(),
            last: Last::UNKNOWN,
            axes: Axes::all(Status::Unknown),
            since: now,
            probed_at: None,
            checked_at: None,
            latency: None,
            attempts_count: 0,
            successes_count: 0,
            failures_count: 0,
            failure: None,
            layers: [const { None }; 4],
            left_out: None,
            observation: None,
            exceeded: Vec::new(),
            counts: Arc::default(),
            recorder: Recorder::new(),
        }
    }

    /// Forgets the verdict, and keeps what was seen, counted and recorded.
    pub(crate) fn forget(&mut self, now: Stamp) {
        self.stability.forget(now.at);
        self.last = Last::UNKNOWN;
        self.axes = Axes::all(Status::Unknown);
        self.since = now;
        self.probed_at = None;
        self.checked_at = None;
        self.successes_count = 0;
        self.failures_count = 0;
        self.failure = None;
        self.exceeded.clear();
    }

    /// The last observation of a tier.
    pub(crate) fn layer(&self, tier: Tier) -> Option<&Layer> {
        self.layers.get(tier.index()).and_then(Option::as_ref)
    }

    pub(crate) fn tiers(&mut self, now: Stamp) -> Vec<TierReport> {
        let layers = Tier::ALL.into_iter().zip(&mut self.layers);
        let known = layers.filter_map(|(tier, layer)| Some((tier, layer.as_mut()?)));
        let report = |(tier, layer): (Tier, &mut Layer)| TierReport {
            tier,
            checked_at: layer.at.wall_by(now),
            latency_ms: layer.latency.as_secs_f64() * 1e3,
        };
        known.map(report).collect()
    }

    /// How many probes of a tier have ended.
    pub(crate) fn ended_count(&self, tier: Tier) -> u64 {
        self.ended_counts.get(tier.index()).copied().unwrap_or_default()
    }

    /// Takes one look in.
    pub(crate) fn record(&mut self, look: Look, now: Stamp, measure: &Measure, intervals: &Intervals) {
        self.count(&look, now);
        let decides = look.tier != Tier::Inventory || measure.deciding == Tier::Inventory;
        if decides {
            self.latency = Some(look.latency);
        }
        let mut permanent = false;
        match look.outcome {
            Ok(observation) => {
                self.keep(observation, (look.tier, now, look.latency), measure);
                self.succeeded(measure);
            }
            // Counting everything may take longer than it may: that says nothing of whether the service serves.
            Err(error) if !decides => {
                self.left_out = Some(left_out(&error));
                return self.merge();
            }
            Err(error) => {
                permanent = !error.kind().mends_by_waiting();
                self.failed(&error);
            }
        }
        self.settle(Outcome { status: self.last.status, permanent, at: now.at }, now, intervals);
        self.recorder.record(self.stability.status(), now, decides.then_some(look.latency));
        self.recorder.believe(now.at + intervals.stale_after().min(BELIEVED_MAX));
    }

    fn count(&mut self, look: &Look, now: Stamp) {
        self.probed_at = Some(look.started_at);
        self.checked_at = Some(now);
        self.attempts_count = self.attempts_count.saturating_add(1);
        if let Some(count) = self.ended_counts.get_mut(look.tier.index()) {
            *count += 1;
        }
        let counts = Arc::make_mut(&mut self.counts);
        counts.took(look.tier, look.latency);
        if let Err(error) = &look.outcome {
            counts.failed(error.kind(), error.phase());
        }
    }

    fn settle(&mut self, outcome: Outcome, now: Stamp, intervals: &Intervals) {
        let before = self.stability.status();
        let status = self.stability.take(outcome, intervals);
        if status != before {
            self.since = now;
        }
        // While rise, fall or grace hold the status, the axes do not contradict it.
        if status == outcome.status {
            self.axes = self.last.axes;
        }
    }

    fn succeeded(&mut self, measure: &Measure) {
        self.successes_count = self.successes_count.saturating_add(1);
        self.failures_count = 0;
        self.failure = None;
        let empty = Arc::default();
        let observation = self.observation.as_ref().unwrap_or(&empty);
        let verdict = measure.thresholds.verdict_by(&measure.rules, observation);
        let axes = Axes { reach: verdict.reach, ready: verdict.ready, risk: verdict.risk };
        self.last = Last { status: verdict.status, axes };
        self.exceeded = verdict.findings;
    }

    fn failed(&mut self, error: &Error) {
        self.failures_count = self.failures_count.saturating_add(1);
        self.successes_count = 0;
        self.failure = Some(ProbeFailure::from(error));
        self.exceeded.clear();
        let reach = if answered(error.kind()) { Status::Healthy } else { Status::Unhealthy };
        let axes = Axes { reach, ready: Status::Unhealthy, risk: Status::Unknown };
        self.last = Last { status: Status::Unhealthy, axes };
    }

    /// Stores an observation. What other tiers saw stays visible, and limited by thresholds, until they look again.
    fn keep(&mut self, mut observation: Observation, look: (Tier, Stamp, Duration), measure: &Measure) {
        let (tier, at, latency) = look;
        measure.annotate(&mut observation);
        let had_left_out = tier == Tier::Inventory && self.left_out.take().is_some();
        let before = self.layer(tier).map(|layer| layer.observation.clone());
        let same = before.filter(|before| **before == observation);
        // A ping sees nothing, again and again.
        let is_same = same.is_some() && self.observation.is_some() && !had_left_out;
        if let Some(slot) = self.layers.get_mut(tier.index()) {
            *slot = Some(Layer { observation: same.unwrap_or_else(|| Arc::new(observation)), at, latency });
        }
        if !is_same {
            self.merge();
        }
    }

    /// All layers as one. Of two measurements of one quantity the one that was made later counts.
    fn merge(&mut self) {
        let mut layers: Vec<&Layer> = self.layers.iter().rev().flatten().collect();
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.at.at));
        let mut all = Observation::new();
        let (mut quantities, mut findings) = (HashSet::new(), HashSet::new());
        for layer in &layers {
            let seen = &layer.observation;
            let measurements = seen.measurements.iter();
            all.measurements.extend(measurements.filter(|seen| quantities.insert((&seen.name, &seen.labels))).cloned());
            let found = seen.findings.iter();
            all.findings.extend(found.filter(|found| findings.insert((&found.code, &found.message))).cloned());
            for (name, value) in &seen.info {
                all.info.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        all.findings.extend(self.left_out.clone());
        self.observation = Some(Arc::new(all));
    }
}

/// No result is believed for longer: what is recorded goes back no further.
const BELIEVED_MAX: Duration = Duration::from_secs(24 * 3600);

/// Whether an error of this kind is an answer of the service.
fn answered(kind: ErrorKind) -> bool {
    use ErrorKind::{AlreadyExists, Busy, NotFound, PermissionDenied, Saturated, Starting, Unauthenticated};
    matches!(kind, Starting | Saturated | Unauthenticated | PermissionDenied | NotFound | AlreadyExists | Busy)
}
