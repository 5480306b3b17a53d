//! What the probes of one service found so far.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::health::Intervals;
use crate::health::history::Recorder;
use crate::health::stability::{Outcome, Stability};
use crate::health::{
    Axes, Axis, Finding, Metric, Observation, ProbeCounts, ProbeFailure, Rule, Severity, Status, Thresholds, Tier,
    TierReport,
};

/// The last observation of one tier.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) observation: Arc<Observation>,
    pub(crate) at: Instant,
    report: TierReport,
}

/// What stays the same for one service.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) metrics: &'static [Metric],
    /// The adapter's rules with the user's thresholds.
    pub(crate) rules: Vec<Rule>,
    pub(crate) thresholds: Thresholds,
}

/// One look at the service.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) tier: Tier,
    pub(crate) latency: Duration,
    pub(crate) outcome: crate::error::Result<Observation>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) started_at: Option<Instant>,
    pub(crate) tier: Tier,
    pub(crate) stability: Stability,
    /// What the last result meant by itself.
    pub(crate) last: Status,
    pub(crate) axes: Axes,
    pub(crate) since: Timestamp,
    pub(crate) checked_at: Option<Timestamp>,
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

fn flapping() -> Finding {
    Finding::new(
        "health.flapping",
        Axis::Risk,
        Severity::Warning,
        "it turns between ready and not ready again and again",
    )
    .with_hint("look at what restarts or overloads it; transitions are not told until it is calm")
}

impl State {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            started_at: None,
            tier: Tier::Process,
            stability: Stability::new(),
            last: Status::Unknown,
            axes: Axes::all(Status::Unknown),
            since: now,
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

    /// The last observation of a tier.
    pub(crate) fn layer(&self, tier: Tier) -> Option<&Layer> {
        self.layers.get(tier.index()).and_then(Option::as_ref)
    }

    pub(crate) fn tiers(&self) -> Vec<TierReport> {
        self.layers.iter().flatten().map(|layer| layer.report).collect()
    }

    /// Takes one look in. `believed_for` is how long a result of this service is believed.
    pub(crate) fn record(
        &mut self,
        look: Look,
        (at, now): (Instant, Timestamp),
        measure: &Measure,
        intervals: &Intervals,
    ) {
        self.attempts_count = self.attempts_count.saturating_add(1);
        self.latency = Some(look.latency);
        self.checked_at = Some(now);
        let counts = Arc::make_mut(&mut self.counts);
        counts.took(look.tier, look.latency);
        if let Err(error) = &look.outcome {
            counts.failed(error.kind(), error.phase());
        }
        let mut permanent = false;
        match look.outcome {
            Ok(observation) => {
                let report = TierReport { tier: look.tier, checked_at: now, latency_ms: ms(look.latency) };
                self.keep(observation, Layer { observation: Arc::default(), at, report }, measure);
                self.succeeded(measure);
            }
            Err(error) if look.tier == Tier::Inventory => {
                // Counting everything may take longer than it may: that says nothing of whether the service serves.
                self.left_out = Some(left_out(&error));
                self.merge();
            }
            Err(error) => {
                permanent = !error.kind().mends_by_waiting();
                self.failed(&error);
            }
        }
        if look.tier == Tier::Inventory && self.last == Status::Unknown {
            return;
        }
        self.settle(Outcome { status: self.last, permanent, at }, now, intervals);
        let known = (self.stability.status(), at);
        self.recorder.record(known, look.latency, now, intervals.stale_after());
    }

    fn settle(&mut self, outcome: Outcome, now: Timestamp, intervals: &Intervals) {
        let before = self.stability.status();
        let status = self.stability.take(outcome, intervals);
        if status != before {
            self.since = now;
        }
        if self.stability.is_flapping() {
            self.exceeded.push(flapping());
        }
    }

    fn succeeded(&mut self, measure: &Measure) {
        self.successes_count = self.successes_count.saturating_add(1);
        self.failures_count = 0;
        self.failure = None;
        let empty = Arc::default();
        let observation = self.observation.as_ref().unwrap_or(&empty);
        let verdict = measure.thresholds.verdict_by(&measure.rules, observation);
        self.last = verdict.status;
        self.axes = Axes { reach: verdict.reach, ready: verdict.ready, risk: verdict.risk };
        self.exceeded = verdict.findings;
    }

    fn failed(&mut self, error: &Error) {
        self.failures_count = self.failures_count.saturating_add(1);
        self.successes_count = 0;
        self.failure = Some(ProbeFailure::from(error));
        self.exceeded.clear();
        self.last = Status::Unhealthy;
        let reach = if answered(error.kind()) { Status::Healthy } else { Status::Unhealthy };
        self.axes = Axes { reach, ready: Status::Unhealthy, risk: Status::Unknown };
    }

    /// Stores an observation. What other tiers saw stays visible, and limited by thresholds, until they look again.
    fn keep(&mut self, mut observation: Observation, layer: Layer, measure: &Measure) {
        let tier = layer.report.tier;
        let before = self.layer(tier).map(|layer| layer.observation.clone());
        let same = before.filter(|before| **before == observation);
        if same.is_none() {
            annotate(&mut observation, measure.metrics);
        }
        let is_same =
            same.is_some() && self.observation.is_some() && (tier != Tier::Inventory || self.left_out.is_none());
        if tier == Tier::Inventory {
            self.left_out = None;
        }
        if let Some(slot) = self.layers.get_mut(tier.index()) {
            *slot = Some(Layer { observation: same.unwrap_or_else(|| Arc::new(observation)), ..layer });
        }
        // A ping sees nothing, again and again.
        if !is_same {
            self.merge();
        }
    }

    /// All layers as one. Of two measurements of one quantity the one that was made later counts.
    fn merge(&mut self) {
        let mut layers: Vec<&Layer> = self.layers.iter().flatten().collect();
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.at));
        let mut all = Observation::new();
        for layer in layers {
            for measurement in &layer.observation.measurements {
                if !all.measurements.iter().any(|seen| seen.is_same(measurement)) {
                    all.measurements.push(measurement.clone());
                }
            }
            for finding in &layer.observation.findings {
                if !all.findings.iter().any(|seen| seen.code == finding.code && seen.message == finding.message) {
                    all.findings.push(finding.clone());
                }
            }
            for (name, value) in &layer.observation.info {
                all.info.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        all.findings.extend(self.left_out.clone());
        self.observation = Some(Arc::new(all));
    }
}

/// Whether an error of this kind is an answer of the service.
fn answered(kind: ErrorKind) -> bool {
    use ErrorKind::{AlreadyExists, Busy, NotFound, PermissionDenied, Saturated, Starting, Unauthenticated};
    matches!(kind, Starting | Saturated | Unauthenticated | PermissionDenied | NotFound | AlreadyExists | Busy)
}

/// Says where each measurement was read, as the catalogue has it.
fn annotate(observation: &mut Observation, metrics: &'static [Metric]) {
    for measurement in &mut observation.measurements {
        if measurement.source.is_none() {
            let metric = metrics.iter().find(|metric| metric.name == measurement.name);
            measurement.source = metric.map(|metric| metric.source.into());
        }
    }
}

fn ms(latency: Duration) -> f64 {
    latency.as_secs_f64() * 1e3
}
