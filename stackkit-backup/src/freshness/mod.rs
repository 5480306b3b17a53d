//! Whether backups are made, checked and drilled, and whether the next one has a place to go: a health check.

mod look;
mod measure;
mod place;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use stackkit_core::health::{Metric, Rule, Tier};
use stackkit_core::{
    ConfigFault, Endpoint, Error, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Service, ServiceId,
};

use self::look::{Look, Looked, Pending, look};
use self::measure::{Limits, METRICS, Seen};
use self::place::Probe;
use crate::repository::Repository;
use crate::verify::Last;

/// The part of the time left that is kept for answering.
const ANSWER_SHARE: u32 = 10;

/// Says how old the last good backup, verify and drill of a stack are, and complains when they are too old; looks whether
/// the repository can be written to and has space.
///
/// It is a [`Service`] of kind `backup` with a health check, so it stands in the stack beside the datastores. All its
/// findings are risks: a stack whose backups are late serves, so they degrade it and never make it unready. A
/// repository that can't be reached is an error of the probe; say
/// [`informational`](stackkit_core::ServiceExt::informational) or [`optional`](stackkit_core::ServiceExt::optional) if
/// the stack is to be called ready without it.
///
/// | Tier | What it does |
/// |---|---|
/// | vitals | reads the repository's marker; tells ages from the last inventory |
/// | inventory | lists all manifests and reads the stack's evidence: with a [cache](crate::RepositoryOptions::with_cache) only what is new; writes an object of a few bytes and removes it; asks a directory for its space |
///
/// Measurements, with the label `stack`: `backup_age_seconds` (since the last complete backup began),
/// `backup_size_bytes` (its stored bytes), `backup_size_ratio` (against the one before), `verify_age_seconds` and
/// `drill_age_seconds` (since the last time that a whole backup was found good at the level content or drill, at the level
/// drill), `backups_complete_count`, `backups_damaged_count`; of the repository `repository_write_ms`,
/// `repository_available_bytes`, and `repository_room_ratio`: how many backups of the last one's size still fit.
///
/// | Finding | What it means |
/// |---|---|
/// | `backup.none` | there is no complete backup |
/// | `backup.stale` | the last one is as old as [`with_max_age`](Self::with_max_age) |
/// | `backup.shrunk` | it is much smaller than the one before: [`with_shrunk_percent`](Self::with_shrunk_percent) |
/// | `backup.damaged` | a manifest can't be used |
/// | `backup.unverified` | no backup was verified within [`with_max_verify_age`](Self::with_max_verify_age) |
/// | `backup.verify.failed` | a verify of the last backup found damage, and no later one found it whole |
/// | `backup.drill.stale` | no backup was drilled within [`with_max_drill_age`](Self::with_max_drill_age) |
/// | `backup.repository.changed` | the marker is another one than when the repository was opened |
/// | `backup.repository.unwritable` | an object can't be written or removed; not with [`without_write_probe`](Self::without_write_probe) |
/// | `backup.repository.space_low` | two more backups do not fit; critical if one does not |
///
/// Those with a number are [rules](stackkit_core::health::Rule) that
/// [`Thresholds`](stackkit_core::health::Thresholds) can change.
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
    /// Where a write is tried; `None` if it is not.
    probe: Option<Probe>,
    /// What the last inventory saw.
    known: Arc<Mutex<Option<Arc<Last>>>>,
    /// A look that no probe had the time to finish: the next one goes on with it, so that a storage that hangs holds one
    /// request at most.
    pending: Mutex<Option<Look>>,
}

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
        Self {
            id,
            fault,
            repository,
            stack: stack.into(),
            limits: Limits::default(),
            probe: Some(Probe::new()),
            known: Arc::default(),
            pending: Mutex::default(),
        }
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

    /// Writes nothing to the repository: for a process that may only read it.
    ///
    /// Without this an inventory writes an object of one byte and removes it. It does not in a bucket that keeps old
    /// versions or can lock objects, where something of it would stay.
    #[must_use]
    pub fn without_write_probe(mut self) -> Self {
        self.probe = None;
        self
    }

    /// Asks, whenever it is called, how many stored bytes the last complete backup has; `None` before the first inventory
    /// and without a backup. For whatever wants to know whether the next one will fit, such as
    /// `Volume::with_expected_write` of the volume that the repository lies on.
    pub fn last_size(&self) -> impl Fn() -> Option<u64> + Send + Sync + 'static {
        let known = Arc::clone(&self.known);
        move || {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.as_ref()?.backup.as_ref().map(|backup| backup.stored_bytes)
        }
    }

    /// Goes on with a look that was not finished, then makes its own.
    async fn look(&self, tier: Tier) -> Result<Looked> {
        let left = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(left) = left {
            // What it found is as old as the storage was slow.
            let looked = Pending { slot: &self.pending, look: Some(left) }.finish().await?;
            self.remember(&looked);
        }
        let own: Look = Box::pin(look(self.repository.clone(), self.stack.clone(), tier, self.probe.clone()));
        let looked = Pending { slot: &self.pending, look: Some(own) }.finish().await?;
        self.remember(&looked);
        Ok(looked)
    }

    fn remember(&self, looked: &Looked) {
        if let Some(last) = &looked.last {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(last.clone()));
        }
    }

    fn observe(&self, looked: &Looked) -> Observation {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seen = Seen { stack: &self.stack, limits: &self.limits, now: self.repository.clock().now() };
        let observation = Observation::new().info("repository", self.repository.id()).info("stack", &self.stack);
        seen.observe(observation, looked, known.as_deref())
    }
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
        let remaining = cx.remaining();
        let deadline = cx.clock().instant() + remaining.saturating_sub(remaining / ANSWER_SHARE);
        let looked = tokio::time::timeout_at(deadline, self.look(cx.tier())).await.map_err(|e| {
            Error::new(ErrorKind::Timeout, "the repository does not answer in time")
                .with_operation("look at the backups")
                .with_source(e)
        })??;
        Ok(self.observe(&looked))
    }

    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Vitals, Tier::Inventory]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        self.limits.rules()
    }
}
