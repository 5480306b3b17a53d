//! A worker without a port that reports by itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use stackkit_core::health::{Axis, Finding, Metric, Rule, Severity, Tier};
use stackkit_core::{
    Clock, ConfigFault, Endpoint, Error, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Service, ServiceId,
    async_trait,
};
use tokio::time::Instant;

use crate::look::Looker;
use crate::name::Name;

const AGE: &str = "heartbeat_age_seconds";

const METRICS: &[Metric] =
    &[Metric::gauge(AGE, "Heartbeat::beat, or a file's st_mtime", "Time since the last sign of life")
        .on(Tier::Process)];

/// What a worker calls to say that it is alive. Cheap to clone; a beat is one clock read and one atomic write.
///
/// It counts on the monotonic clock, so a step of the wall clock means nothing to it.
///
/// ```
/// use stackkit_checks::{Heartbeat, HeartbeatCheck};
/// use std::time::Duration;
/// let heartbeat = Heartbeat::new();
/// let check = HeartbeatCheck::new("mailer", heartbeat.clone(), Duration::from_secs(30));
/// // In the worker's loop, after each piece of work:
/// heartbeat.beat();
/// ```
#[derive(Clone)]
pub struct Heartbeat(Arc<Pulse>);

struct Pulse {
    clock: Clock,
    origin: Instant,
    /// Nanoseconds from `origin` to the last beat, plus 1; 0 for none yet. 2^64 ns are 584 years.
    last: AtomicU64,
}

impl Heartbeat {
    /// A worker that has not reported yet.
    #[must_use]
    pub fn new() -> Self {
        let clock = Clock::system();
        let origin = clock.instant();
        Self(Arc::new(Pulse { clock, origin, last: AtomicU64::new(0) }))
    }

    /// Says that the worker is alive. Never blocks; may be called from any thread, as often as one likes.
    pub fn beat(&self) {
        let since = self.0.clock.instant().saturating_duration_since(self.0.origin);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1);
        // Of two threads the later beat counts, whichever writes last.
        self.0.last.fetch_max(since.saturating_add(1), Ordering::Relaxed);
    }

    /// How long ago the last beat was; `None` before the first.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let last = self.0.last.load(Ordering::Relaxed).checked_sub(1)?;
        let since = self.0.clock.instant().saturating_duration_since(self.0.origin);
        Some(since.saturating_sub(Duration::from_nanos(last)))
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("age", &self.age()).finish()
    }
}

/// How a worker reports.
#[derive(Debug)]
enum Source {
    Handle(Heartbeat),
    File(PathBuf, Looker, Mutex<Option<Seen>>),
}

/// When a file was seen to have which time.
#[derive(Debug, Clone, Copy)]
struct Seen {
    touched_at: Timestamp,
    /// When that time was seen first.
    first: Instant,
    /// The last look before that, which still saw another time.
    before: Option<Instant>,
    /// The last look.
    last: Instant,
}

impl Seen {
    /// What is known after a look that saw `touched_at` now.
    fn next(previous: Option<Self>, touched_at: Timestamp, now: Instant) -> Self {
        match previous {
            Some(seen) if seen.touched_at == touched_at => Self { last: now, ..seen },
            previous => Self { touched_at, first: now, before: previous.map(|seen| seen.last), last: now },
        }
    }

    /// The file's age by the wall clock, kept within what the monotonic clock allows: it was touched before the first look
    /// that saw it so, and after the last that did not. So a step of the wall clock does not matter from the second look on.
    fn age(&self, wall_now: Timestamp) -> Duration {
        let wall = Duration::try_from(wall_now.duration_since(self.touched_at)).unwrap_or_default();
        let least = self.last.saturating_duration_since(self.first);
        let most = self.before.map_or(Duration::MAX, |before| self.last.saturating_duration_since(before));
        wall.clamp(least, most.max(least))
    }
}

/// Whether a worker has reported in time, by calling a [`Heartbeat`] or by touching a file.
///
/// A worker that never reported is the critical finding `heartbeat.missing`, and one whose last report is too old
/// `heartbeat.late`, both about readiness. A worker that takes long to start wants
/// [`Intervals::with_startup_grace`](stackkit_core::Intervals::with_startup_grace).
///
/// It asks no other machine, so it may be in the group `live`.
///
/// ```
/// use stackkit_checks::HeartbeatCheck;
/// use stackkit_core::health::LIVE;
/// use stackkit_core::{ServiceExt, Stack};
/// use std::time::Duration;
/// let mailer = HeartbeatCheck::of_file("mailer", "/run/shop/mailer.alive", Duration::from_secs(60));
/// let stack = Stack::builder("shop").service(mailer.in_groups([LIVE])).build()?;
/// # Ok::<(), stackkit_core::Error>(())
/// ```
#[derive(Debug)]
pub struct HeartbeatCheck {
    name: Name,
    source: Source,
    age_max: Duration,
}

impl HeartbeatCheck {
    /// A worker of this process that calls `heartbeat` at least every `age_max`.
    pub fn new(id: impl AsRef<str>, heartbeat: Heartbeat, age_max: Duration) -> Self {
        Self::from_source(id.as_ref(), Source::Handle(heartbeat), age_max)
    }

    /// A worker that touches the file at `path` at least every `age_max`. Does no I/O; the file need not exist yet.
    ///
    /// The file's time of change counts. A step of the wall clock disturbs the first look alone.
    pub fn of_file(id: impl AsRef<str>, path: impl Into<PathBuf>, age_max: Duration) -> Self {
        Self::from_source(id.as_ref(), Source::File(path.into(), Looker::default(), Mutex::default()), age_max)
    }

    fn from_source(id: &str, source: Source, age_max: Duration) -> Self {
        Self { name: Name::new(id, "heartbeat", "heartbeat.id"), source, age_max }
    }

    /// How long ago the last report was; `None` if there was none.
    async fn age(&self, cx: &ProbeContext) -> Result<Option<Duration>> {
        let (path, looker, seen) = match &self.source {
            Source::Handle(heartbeat) => return Ok(heartbeat.age()),
            Source::File(path, looker, seen) => (path.clone(), looker, seen),
        };
        let Some(touched_at) = looker.look(cx, move || touched_at(&path)).await? else { return Ok(None) };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Seen::next(*seen, touched_at, cx.clock().instant());
        *seen = Some(now);
        Ok(Some(now.age(cx.clock().now())))
    }
}

/// When the file was touched; `None` if there is no file.
fn touched_at(path: &Path) -> Result<Option<Timestamp>> {
    let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
    match modified.map_err(|error| Error::io("look at the heartbeat's file", error)) {
        Ok(modified) => Ok(Some(Timestamp::try_from(modified).unwrap_or(Timestamp::MIN))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Service for HeartbeatCheck {
    fn id(&self) -> &ServiceId {
        &self.name.id
    }

    fn kind(&self) -> &'static str {
        "heartbeat"
    }

    fn endpoint(&self) -> Endpoint {
        match &self.source {
            Source::Handle(_) => Endpoint::local("heartbeat", ""),
            Source::File(path, ..) => Endpoint::local("file", path.to_string_lossy()),
        }
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let zero = self
            .age_max
            .is_zero()
            .then(|| ConfigFault::error("heartbeat.age_max", "an age of 0 is exceeded by every report"));
        let relative = match &self.source {
            Source::File(path, ..) if !path.is_absolute() => {
                Some(ConfigFault::error("heartbeat.path.relative", "the file's path is not absolute"))
            }
            Source::File(..) | Source::Handle(_) => None,
        };
        self.name.faults(zero.into_iter().chain(relative))
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for HeartbeatCheck {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        let missing = || {
            Finding::new("heartbeat.missing", Axis::Ready, Severity::Critical, "the worker has never reported")
                .with_hint("look whether the worker runs, and whether it reports to this place")
        };
        Ok(match self.age(cx).await.map_err(|error| error.with_operation("probe"))? {
            Some(age) => Observation::new().gauge(AGE, age.as_secs_f64()),
            None => Observation::new().unavailable(AGE, "no report yet").finding(missing()),
        })
    }

    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Process]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        vec![Rule::above(AGE, "heartbeat.late").critical(self.age_max.as_secs_f64()).on(Axis::Ready).saying(
            "the worker has not reported in time",
            "look whether the worker hangs, or works on something longer than its reports allow",
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_handle_ages_by_the_monotonic_clock() {
        let heartbeat = Heartbeat::new();
        assert_eq!(heartbeat.age(), None);
        heartbeat.clone().beat();
        assert_eq!(heartbeat.age(), Some(Duration::ZERO));
        tokio::time::advance(7 * SECOND).await;
        assert_eq!(heartbeat.age(), Some(7 * SECOND));
        heartbeat.beat();
        assert_eq!(heartbeat.age(), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_of_the_clock_does_not_age_a_file() {
        let start = Clock::system().instant();
        let wall: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let hour = Duration::from_secs(3600);
        let first = Seen::next(None, wall, start);
        assert_eq!(first.age(wall + 3 * SECOND), 3 * SECOND, "the first look must believe the wall clock");
        let touched = Seen::next(Some(first), wall + 5 * SECOND, start + 6 * SECOND);
        assert_eq!(touched.age(wall + 6 * SECOND), SECOND);
        assert_eq!(touched.age(wall + hour), 6 * SECOND, "the clock stepped forward");
        let later = Seen::next(Some(touched), wall + 5 * SECOND, start + 9 * SECOND);
        assert_eq!(later.age(wall), 3 * SECOND, "the clock stepped back");
    }
}
