//! Makes rate and time left of events.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stackkit_core::backup::ArtifactName;
use stackkit_core::{Clock, ServiceId};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Operation, Progress, ProgressEvent, ProgressPhase};
use crate::run::format_bytes;

/// The rate is the mean of this time: long enough that the pauses between two tables do not make it jump, short enough
/// that a stall shows.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Between two samples of the rate: together with the window this bounds their number.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// A shorter observation says nothing of a rate.
const RATE_AFTER: Duration = Duration::from_millis(200);

/// Adds up the events of one operation: bytes, rate, time left. Clones share their numbers, so one clone is given to
/// the operation and another is asked by whoever draws.
///
/// ```
/// use std::sync::Arc;
/// use stackkit_backup::{Meter, Progress, ProgressEvent, ProgressPhase};
/// use stackkit_core::Clock;
///
/// let meter = Meter::new(Clock::system());
/// let _given_to_the_operation: Arc<dyn Progress> = Arc::new(meter.clone());
/// meter.event(&ProgressEvent::Phase { phase: ProgressPhase::Dumping, expected_bytes: Some(1 << 30) });
/// let now = meter.snapshot();
/// assert_eq!((now.phase, now.permille()), (ProgressPhase::Dumping, Some(0)));
/// ```
#[derive(Clone)]
pub struct Meter {
    clock: Clock,
    state: Arc<Mutex<State>>,
    /// The number of events: whoever waits is woken by a change.
    events: watch::Sender<u64>,
}

/// What a [`Meter`] knows at one moment. `Display` prints it in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgressSnapshot {
    /// The operation; `None` before it has begun.
    pub operation: Option<Operation>,
    /// The current phase.
    pub phase: ProgressPhase,
    /// Bytes that were read in the current phase, or in the last one that reads; for a prune the bytes that it freed.
    pub read_bytes: u64,
    /// Backup: bytes of objects that were made of them.
    pub stored_bytes: u64,
    /// How many bytes the phase will read; `None`: not known. For a backup it is an estimate.
    pub expected_bytes: Option<u64>,
    /// Bytes read per second, over the last 10 s; 0 in a phase that reads none.
    pub rate_bytes: u64,
    /// Since the operation began.
    pub elapsed: Duration,
    /// What is left of the current phase at this rate; `None`: it can't be told.
    pub eta: Option<Duration>,
    /// Each artifact of the phase.
    pub artifacts: Vec<ArtifactProgress>,
}

/// How far one artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArtifactProgress {
    /// The service.
    pub service: ServiceId,
    /// The artifact.
    pub artifact: ArtifactName,
    /// Its bytes that were read.
    pub read_bytes: u64,
    /// Backup: bytes of its object.
    pub stored_bytes: u64,
}

struct State {
    operation: Option<Operation>,
    phase: ProgressPhase,
    began: Instant,
    expected_bytes: Option<u64>,
    artifacts: BTreeMap<(ServiceId, ArtifactName), (u64, u64)>,
    freed_bytes: u64,
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// A meter that has seen nothing. Only the clock's monotonic time is used.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let state = State {
            operation: None,
            phase: ProgressPhase::Preparing,
            began: clock.instant(),
            expected_bytes: None,
            artifacts: BTreeMap::new(),
            freed_bytes: 0,
            samples: VecDeque::new(),
        };
        Self { clock, state: Arc::new(Mutex::new(state)), events: watch::Sender::new(0) }
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> ProgressSnapshot {
        let now = self.clock.instant();
        let state = self.locked();
        let rate_bytes = if state.phase.moves_bytes() { state.rate(now) } else { 0 };
        let (read_bytes, stored_bytes) = (state.read_bytes(), state.artifacts.values().map(|bytes| bytes.1).sum());
        let artifact = |(key, bytes): (&(ServiceId, ArtifactName), &(u64, u64))| ArtifactProgress {
            service: key.0.clone(),
            artifact: key.1.clone(),
            read_bytes: bytes.0,
            stored_bytes: bytes.1,
        };
        ProgressSnapshot {
            operation: state.operation,
            phase: state.phase,
            read_bytes,
            stored_bytes,
            expected_bytes: state.expected_bytes,
            rate_bytes,
            elapsed: now.saturating_duration_since(state.began),
            eta: state.expected_bytes.and_then(|expected| eta(expected, read_bytes, rate_bytes)),
            artifacts: state.artifacts.iter().map(artifact).collect(),
        }
    }

    /// A channel whose value counts the events: wait for its change, then take a [`snapshot`](Self::snapshot). Whoever
    /// is slow misses nothing but moments in between.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Meter {
    fn event(&self, event: &ProgressEvent) {
        let now = self.clock.instant();
        self.locked().take(event, now);
        self.events.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.snapshot()).finish()
    }
}

impl State {
    fn take(&mut self, event: &ProgressEvent, now: Instant) {
        match event {
            ProgressEvent::Started { operation } => {
                self.operation = Some(*operation);
                self.began = now;
            }
            ProgressEvent::Phase { phase, expected_bytes } => self.enter(*phase, *expected_bytes, now),
            ProgressEvent::Expected { bytes } => self.expected_bytes = Some(*bytes),
            ProgressEvent::Written { service, artifact, plain_bytes, stored_bytes }
            | ProgressEvent::Stored { service, artifact, plain_bytes, stored_bytes } => {
                self.artifacts.insert((service.clone(), artifact.clone()), (*plain_bytes, *stored_bytes));
                self.sample(now);
            }
            ProgressEvent::Read { service, artifact, bytes } => {
                self.artifacts.insert((service.clone(), artifact.clone()), (*bytes, 0));
                self.sample(now);
            }
            ProgressEvent::Removed { freed_bytes, .. } => {
                self.freed_bytes = self.freed_bytes.saturating_add(*freed_bytes);
                self.sample(now);
            }
            ProgressEvent::Hook { .. }
            | ProgressEvent::Pinned { .. }
            | ProgressEvent::Dumped { .. }
            | ProgressEvent::Restored { .. }
            | ProgressEvent::Failed { .. }
            | ProgressEvent::Committed => {}
        }
    }

    fn enter(&mut self, phase: ProgressPhase, expected_bytes: Option<u64>, now: Instant) {
        self.phase = phase;
        if phase.moves_bytes() {
            self.expected_bytes = expected_bytes;
            self.artifacts.clear();
            self.freed_bytes = 0;
            self.samples.clear();
            self.samples.push_back((now, 0));
        }
    }

    fn read_bytes(&self) -> u64 {
        self.artifacts.values().map(|bytes| bytes.0).fold(self.freed_bytes, u64::saturating_add)
    }

    /// Keeps the window's samples, and the newest of those before it.
    fn sample(&mut self, now: Instant) {
        if self.samples.back().is_some_and(|(last, _)| now.saturating_duration_since(*last) < SAMPLE_EVERY) {
            return;
        }
        let total = self.read_bytes();
        self.samples.push_back((now, total));
        let is_old = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) >= RATE_WINDOW;
        while self.samples.get(1).is_some_and(is_old) {
            self.samples.pop_front();
        }
    }

    /// Bytes per second since the start of the window. Time without an event counts, so a stall lowers it.
    fn rate(&self, now: Instant) -> u64 {
        let old = |(at, _): &&(Instant, u64)| now.saturating_duration_since(*at) >= RATE_WINDOW;
        let Some((since, bytes)) = self.samples.iter().rev().find(old).or(self.samples.front()) else { return 0 };
        let elapsed = now.saturating_duration_since(*since);
        if elapsed < RATE_AFTER {
            return 0;
        }
        let read = u128::from(self.read_bytes().saturating_sub(*bytes));
        u64::try_from(read * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX)
    }
}

fn eta(expected_bytes: u64, read_bytes: u64, rate_bytes: u64) -> Option<Duration> {
    let left = expected_bytes.checked_sub(read_bytes)?;
    left.saturating_mul(1000).checked_div(rate_bytes).map(Duration::from_millis)
}

impl ProgressSnapshot {
    /// How much of the phase is done, in thousandths; `None` if it is not known, or if there is more than was expected.
    #[must_use]
    pub fn permille(&self) -> Option<u16> {
        let expected = self.expected_bytes.filter(|expected| *expected >= self.read_bytes)?;
        match expected {
            0 => None,
            expected => u16::try_from(u128::from(self.read_bytes) * 1000 / u128::from(expected)).ok(),
        }
    }
}

impl fmt::Display for ProgressSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.phase)?;
        if self.read_bytes > 0 {
            write!(f, "  {}", format_bytes(self.read_bytes))?;
        }
        if let (Some(permille), Some(expected)) = (self.permille(), self.expected_bytes) {
            write!(f, " of {} ({} %)", format_bytes(expected), permille / 10)?;
        }
        if self.stored_bytes > 0 {
            write!(f, "  stored {}", format_bytes(self.stored_bytes))?;
        }
        if self.rate_bytes > 0 {
            write!(f, "  {}/s", format_bytes(self.rate_bytes))?;
        }
        match self.eta {
            Some(eta) => write!(f, "  {} s left", eta.as_secs()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn written(artifact: &str, plain_bytes: u64) -> ProgressEvent {
        let (service, artifact) = (ServiceId::new("database").unwrap(), ArtifactName::new(artifact).unwrap());
        ProgressEvent::Written { service, artifact, plain_bytes, stored_bytes: plain_bytes / 4 }
    }

    fn dumping(expected_bytes: Option<u64>) -> ProgressEvent {
        ProgressEvent::Phase { phase: ProgressPhase::Dumping, expected_bytes }
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn rate_and_time_left_follow_the_last_ten_seconds() {
        let meter = Meter::new(Clock::system());
        meter.event(&ProgressEvent::Started { operation: Operation::Backup });
        meter.event(&dumping(Some(1000 * MIB)));
        assert_eq!(meter.snapshot().eta, None, "nothing is known yet");
        for second in 1..=20 {
            pass(1).await;
            meter.event(&written("dump", second * 10 * MIB));
        }
        let steady = meter.snapshot();
        assert_eq!((steady.read_bytes, steady.rate_bytes, steady.permille()), (200 * MIB, 10 * MIB, Some(200)));
        assert_eq!(steady.eta, Some(Duration::from_secs(80)));
        assert_eq!(steady.elapsed, Duration::from_secs(20));
        assert_eq!(
            steady.to_string(),
            "dumping  200.0 MiB of 1000.0 MiB (20 %)  stored 50.0 MiB  10.0 MiB/s  80 s left"
        );
        // A stall shows without an event, and in the end nothing is promised.
        pass(5).await;
        assert_eq!(meter.snapshot().rate_bytes, 5 * MIB);
        pass(60).await;
        assert_eq!((meter.snapshot().rate_bytes, meter.snapshot().eta), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn artifacts_add_up_and_more_than_expected_gives_no_promise() {
        let meter = Meter::new(Clock::system());
        meter.event(&dumping(Some(10 * MIB)));
        meter.event(&written("a", 4 * MIB));
        meter.event(&written("b", 4 * MIB));
        meter.event(&written("b", 5 * MIB));
        pass(1).await;
        let now = meter.snapshot();
        assert_eq!((now.read_bytes, now.artifacts.len(), now.permille()), (9 * MIB, 2, Some(900)));
        meter.event(&written("c", 4 * MIB));
        let now = meter.snapshot();
        assert_eq!((now.permille(), now.eta), (None, None));
        assert!(now.to_string().starts_with("dumping  13.0 MiB  stored"), "{now}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_phase_that_reads_counts_from_zero_and_others_keep_the_numbers() {
        let meter = Meter::new(Clock::system());
        let mut changes = meter.changes();
        meter.event(&dumping(Some(4 * MIB)));
        meter.event(&written("a", 4 * MIB));
        assert!(changes.has_changed().unwrap());
        assert_eq!(*changes.borrow_and_update(), 2);
        pass(1).await;
        meter.event(&ProgressEvent::Phase { phase: ProgressPhase::Committing, expected_bytes: None });
        let committing = meter.snapshot();
        assert_eq!((committing.read_bytes, committing.rate_bytes), (4 * MIB, 0));
        meter.event(&ProgressEvent::Phase { phase: ProgressPhase::Restoring, expected_bytes: Some(8) });
        assert_eq!((meter.snapshot().read_bytes, meter.snapshot().expected_bytes), (0, Some(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn samples_are_bounded() {
        let meter = Meter::new(Clock::system());
        meter.event(&dumping(None));
        for step in 1..10_000 {
            tokio::time::advance(Duration::from_millis(7)).await;
            meter.event(&written("a", step));
        }
        let kept = meter.locked().samples.len();
        assert!(kept <= 22, "{kept} samples");
    }
}
