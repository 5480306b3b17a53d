//! Whether backups are made, checked and drilled: a health check.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use stackkit_core::health::{Axis, Finding, Measurement, MeasurementKind, MeasurementValue, Severity, Tier};
use stackkit_core::{
    ConfigFault, Endpoint, Error, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Service, ServiceId,
};

use crate::repository::{Marker, Repository};
use crate::verify::Last;

/// A nightly backup, and two hours in which it may be late.
const MAX_AGE: Duration = Duration::from_secs(26 * 60 * 60);

/// A verify in seven daily parts, and a day in which one may be late.
const MAX_VERIFY_AGE: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// Below half of the one before it a backup has lost more than most days delete.
const SHRUNK_PERCENT: u8 = 50;

/// The part of the time left that is kept for answering.
const ANSWER_SHARE: u32 = 10;

/// Says how old the last good backup, verify and drill of a stack are, and complains when they are too old.
///
/// It is a [`Service`] of kind `backup` with a health check, so it stands in the stack beside the datastores. All its
/// findings are risks: a stack whose backups are late serves, so they degrade it and never make it unready. A
/// repository that can't be reached is an error of the probe; say
/// [`informational`](stackkit_core::ServiceExt::informational) or [`optional`](stackkit_core::ServiceExt::optional) if
/// the stack is to be called ready without it.
///
/// | Tier | What it does |
/// |---|---|
/// | ping, vitals | reads the repository's marker; tells ages from the last inventory |
/// | inventory | lists all manifests and reads the stack's evidence: with a [cache](crate::RepositoryOptions::with_cache) only what is new |
///
/// Measurements, with the label `stack`: `backup_age_seconds` (since the last complete backup began),
/// `backup_size_bytes` (its stored bytes), `verify_age_seconds` and `drill_age_seconds` (since the last time that a
/// whole backup was found good at the level content or drill, at the level drill), `backups_complete_count`,
/// `backups_damaged_count`.
///
/// | Finding | What it means |
/// |---|---|
/// | `backup.none` | there is no complete backup |
/// | `backup.stale` | the last one is older than [`with_max_age`](Self::with_max_age) |
/// | `backup.shrunk` | it is much smaller than the one before: [`with_shrunk_percent`](Self::with_shrunk_percent) |
/// | `backup.damaged` | a manifest can't be used |
/// | `backup.unverified` | no backup was verified within [`with_max_verify_age`](Self::with_max_verify_age) |
/// | `backup.verify.failed` | a verify of the last backup found damage, and no later one found it whole |
/// | `backup.drill.stale` | no backup was drilled within [`with_max_drill_age`](Self::with_max_drill_age) |
/// | `backup.repository.changed` | the marker is another one than when the repository was opened |
///
/// ```no_run
/// use std::time::Duration;
/// use stackkit_backup::{BackupFreshness, Repository, RepositoryOptions};
/// use stackkit_core::{ServiceExt, Stack};
///
/// # async fn example(database: impl stackkit_core::Service) -> stackkit_core::Result<Stack> {
/// let repository = Repository::open("file:///var/backups/shop", RepositoryOptions::new()).await?;
/// let backups = BackupFreshness::new(repository, "shop").with_max_age(Duration::from_secs(26 * 3600));
/// Stack::builder("shop").service(database).service(backups.informational()).build()
/// # }
/// ```
pub struct BackupFreshness {
    id: ServiceId,
    fault: Option<ConfigFault>,
    repository: Repository,
    stack: String,
    limits: Limits,
    /// What the last inventory saw.
    known: Mutex<Option<Arc<Last>>>,
    /// A look that no probe had the time to finish: the next one goes on with it, so that a storage that hangs holds one
    /// request at most.
    pending: Mutex<Option<Look>>,
}

#[derive(Debug, Clone)]
struct Limits {
    max_age: Duration,
    max_verify_age: Option<Duration>,
    max_drill_age: Option<Duration>,
    shrunk_percent: u8,
}

/// What a look at the repository found.
struct Looked {
    changed: bool,
    /// `None`: no inventory was taken.
    last: Option<Last>,
}

type Look = Pin<Box<dyn Future<Output = Result<Looked>> + Send>>;

impl fmt::Debug for BackupFreshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupFreshness")
            .field("id", &self.id)
            .field("repository", &self.repository.id())
            .field("stack", &self.stack)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl BackupFreshness {
    /// Looks at the backups of `stack` in `repository`; called `backups` in its own stack.
    #[must_use]
    pub fn new(repository: Repository, stack: impl Into<String>) -> Self {
        let (id, fault) = ServiceId::or_fault("backups", "backups", "backup.id");
        let limits = Limits {
            max_age: MAX_AGE,
            max_verify_age: Some(MAX_VERIFY_AGE),
            max_drill_age: None,
            shrunk_percent: SHRUNK_PERCENT,
        };
        Self { id, fault, repository, stack: stack.into(), limits, known: Mutex::default(), pending: Mutex::default() }
    }

    /// Sets its name in the stack that it is a service of; one that can't be an id is a fault of the stack.
    #[must_use]
    pub fn with_id(mut self, id: impl AsRef<str>) -> Self {
        (self.id, self.fault) = ServiceId::or_fault(id.as_ref(), "backups", "backup.id");
        self
    }

    /// Sets how old the last complete backup may be; 26 hours unless set.
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.limits.max_age = max_age;
        self
    }

    /// Sets how long ago a whole backup may have been verified at the level content or drill, `None` if nothing is
    /// expected; 8 days unless set.
    #[must_use]
    pub fn with_max_verify_age(mut self, max_age: impl Into<Option<Duration>>) -> Self {
        self.limits.max_verify_age = max_age.into();
        self
    }

    /// Sets how long ago a backup may have been drilled, `None` if nothing is expected, as it is unless set.
    #[must_use]
    pub fn with_max_drill_age(mut self, max_age: impl Into<Option<Duration>>) -> Self {
        self.limits.max_drill_age = max_age.into();
        self
    }

    /// Sets below how many percent of the one before the last backup is suspiciously small; 50 unless set, 0 for never.
    #[must_use]
    pub fn with_shrunk_percent(mut self, percent: u8) -> Self {
        self.limits.shrunk_percent = percent;
        self
    }

    /// Goes on with a look that was not finished, then makes its own.
    async fn look(&self, tier: Tier, now: Timestamp) -> Result<Looked> {
        let left = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(left) = left {
            // What it found is as old as the storage was slow.
            let looked = Pending { slot: &self.pending, look: Some(left) }.finish().await?;
            self.remember(&looked);
        }
        let own: Look = Box::pin(look(self.repository.clone(), self.stack.clone(), tier, now));
        let looked = Pending { slot: &self.pending, look: Some(own) }.finish().await?;
        self.remember(&looked);
        Ok(looked)
    }

    fn remember(&self, looked: &Looked) {
        if let Some(last) = &looked.last {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(last.clone()));
        }
    }

    fn observe(&self, changed: bool, now: Timestamp) -> Observation {
        let mut seen = Observation::new().info("repository", self.repository.id()).info("stack", &self.stack);
        if changed {
            let message = "the repository is another one than when it was opened";
            let finding = risk("backup.repository.changed", Severity::Critical, message.to_owned());
            seen =
                seen.finding(finding.with_hint("compare its stackkit.json with a copy; open it anew if it was meant"));
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            None => seen,
            Some(last) => self.judged(self.measured(seen, &last, now), &last, now),
        }
    }

    fn measured(&self, seen: Observation, last: &Last, now: Timestamp) -> Observation {
        let age = |since: Option<Timestamp>| since.map(|since| age(since, now).as_secs_f64());
        let gauges = [
            ("backup_age_seconds", age(last.backup.as_ref().map(|backup| backup.started)), "there is no backup"),
            ("backup_size_bytes", last.backup.as_ref().map(|backup| number(backup.stored_bytes)), "there is no backup"),
            ("verify_age_seconds", age(last.verified), "no whole backup was verified"),
            ("drill_age_seconds", age(last.drilled), "no backup was drilled"),
            ("backups_complete_count", Some(number(last.complete)), ""),
            ("backups_damaged_count", Some(number(last.damaged)), ""),
        ];
        let mut seen = gauges.into_iter().fold(seen, |seen, (name, value, absent)| {
            let value = value.map_or_else(|| MeasurementValue::Unavailable(absent.to_owned()), MeasurementValue::from);
            let gauge = Measurement::new(name, MeasurementKind::Gauge, value);
            seen.measurement(gauge.with_label("stack", &self.stack))
        });
        let id = last.backup.as_ref().map(|backup| backup.id.to_string());
        let facts = [
            ("last_backup", id),
            ("last_verify_at", last.verified.map(|at| at.to_string())),
            ("last_drill_at", last.drilled.map(|at| at.to_string())),
        ];
        for (name, fact) in facts {
            if let Some(fact) = fact {
                seen = seen.info(name, fact);
            }
        }
        seen
    }

    fn judged(&self, seen: Observation, last: &Last, now: Timestamp) -> Observation {
        let mut findings = Vec::new();
        match &last.backup {
            None => findings.push(
                risk("backup.none", Severity::Critical, "there is no complete backup".to_owned())
                    .with_hint("make one, and schedule the next"),
            ),
            Some(backup) => {
                let old = age(backup.started, now);
                if old > self.limits.max_age {
                    let message = format!("the last complete backup is {} old", hours(old));
                    let hint = "look at what the last runs reported, and whether the schedule still runs";
                    findings.push(risk("backup.stale", Severity::Warning, message).with_hint(hint));
                }
                findings.extend(self.shrunk(last));
            }
        }
        if last.damaged > 0 {
            let message = format!("{} manifests can't be used", last.damaged);
            findings
                .push(risk("backup.damaged", Severity::Warning, message).with_hint("list the repository's backups"));
        }
        if last.verify_failed {
            let message = "a verify of the last backup found damage".to_owned();
            let hint = "make another backup, and look at the storage";
            findings.push(risk("backup.verify.failed", Severity::Critical, message).with_hint(hint));
        }
        let late = [
            (self.limits.max_verify_age, last.verified, "backup.unverified", "verified"),
            (self.limits.max_drill_age, last.drilled, "backup.drill.stale", "drilled"),
        ];
        for (limit, since, code, word) in late {
            let old = since.map(|since| age(since, now));
            if limit.is_some_and(|limit| last.backup.is_some() && old.is_none_or(|old| old > limit)) {
                let when = old.map_or("never".to_owned(), |old| format!("{} ago", hours(old)));
                findings.push(risk(code, Severity::Warning, format!("a whole backup was last {word}: {when}")));
            }
        }
        findings.into_iter().fold(seen, Observation::finding)
    }

    fn shrunk(&self, last: &Last) -> Option<Finding> {
        let (backup, before) = (last.backup.as_ref()?.stored_bytes, last.bytes_before?);
        let least = u128::from(before) * u128::from(self.limits.shrunk_percent) / 100;
        (u128::from(backup) < least).then(|| {
            let message = format!("the last backup has {backup} stored bytes, the one before had {before}");
            risk("backup.shrunk", Severity::Warning, message)
                .with_hint("compare what both hold before the older one goes")
        })
    }
}

/// A look that goes back to its slot if it is dropped before its end.
struct Pending<'a> {
    slot: &'a Mutex<Option<Look>>,
    look: Option<Look>,
}

impl Pending<'_> {
    async fn finish(mut self) -> Result<Looked> {
        let Some(look) = &mut self.look else { return Err(Error::unexpected("there is nothing to look at")) };
        let looked = look.await;
        self.look = None;
        looked
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // A future that panicked must not be polled again.
        if let Some(look) = self.look.take().filter(|_| !std::thread::panicking()) {
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
        }
    }
}

async fn look(repository: Repository, stack: String, tier: Tier, now: Timestamp) -> Result<Looked> {
    let changed = match Marker::read(repository.storage()).await {
        Ok(marker) => marker != *repository.marker(),
        // Somebody put something else in its place.
        Err(error) if matches!(error.kind(), ErrorKind::Integrity | ErrorKind::Incompatible) => true,
        Err(error) => return Err(error),
    };
    let last = match tier {
        Tier::Inventory => Some(repository.last(&stack, now).await?),
        _ => None,
    };
    Ok(Looked { changed, last })
}

fn risk(code: &'static str, severity: Severity, message: String) -> Finding {
    Finding::new(code, Axis::Risk, severity, message)
}

/// How long ago something was; nothing if it lies in the future by a clock's error.
fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

fn hours(age: Duration) -> String {
    match age.as_secs() / 3600 {
        0 => format!("{} min", age.as_secs() / 60),
        hours @ 1..72 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}

/// A count as a measurement: exact up to 2^53.
fn number(count: u64) -> f64 {
    count as f64
}

impl Service for BackupFreshness {
    fn id(&self) -> &ServiceId {
        &self.id
    }

    fn kind(&self) -> &'static str {
        "backup"
    }

    fn endpoint(&self) -> Endpoint {
        match self.repository.storage().root() {
            Some(root) => Endpoint::local("file", root.display().to_string()),
            None => Endpoint::local("repository", format!("/{}", self.repository.id())),
        }
    }

    fn faults(&self) -> Vec<ConfigFault> {
        self.fault.iter().cloned().collect()
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for BackupFreshness {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        let now = self.repository.clock().now();
        let remaining = cx.remaining();
        let deadline = cx.clock().instant() + remaining.saturating_sub(remaining / ANSWER_SHARE);
        let looked = tokio::time::timeout_at(deadline, self.look(cx.tier(), now)).await.map_err(|e| {
            Error::new(ErrorKind::Timeout, "the repository does not answer in time")
                .with_operation("look at the backups")
                .with_source(e)
        })??;
        Ok(self.observe(looked.changed, now))
    }

    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Vitals, Tier::Inventory]
    }
}
