//! The handle.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stackkit_core::backup::{
    ArtifactInfo, ArtifactReader, ArtifactSource, Consistency, DumpContext, Inspection, PointInTime, RestoreContext,
    RestoreOptions, RestorePlan, RestoreReport,
};
use stackkit_core::health::{Metric, Rule, Tier};
use stackkit_core::{
    BackupProvider, Census, ConfigFault, Dump, Endpoint, Error, HealthCheck, Observation, ProbeContext, Result,
    Service, ServiceId, async_trait,
};

use crate::config::{DEFAULT_ID, ENV_PATH, VolumeConfig, path_of_url, resolve};
use crate::dump::VolumeDump;
use crate::expected::ExpectedWrite;
use crate::metrics::METRICS;
use crate::probe::Prober;
use crate::rules::rules;
use crate::tree::{FileAccess, Walk};
use crate::worker::Worker;
use crate::{KIND, census, restore};

/// A directory as a datastore. Cheap to clone; clones share everything.
///
/// ```
/// use stackkit_core::Service;
/// use stackkit_volume::Volume;
/// let volume = Volume::new("uploads", "/srv/shop/uploads");
/// assert_eq!(volume.endpoint().to_string(), "file:///srv/shop/uploads");
/// assert!(volume.faults().is_empty());
/// assert_eq!(Volume::new("uploads", "relative").faults()[0].code, "volume.path.relative");
/// ```
#[derive(Debug, Clone)]
pub struct Volume(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: VolumeConfig,
    prober: Prober,
}

impl Volume {
    /// The directory at `path`, called `id` in its stack. Does no I/O; the directory need not exist.
    ///
    /// An id that is not valid and a path that is not absolute are told by [`Service::faults`], so building the stack
    /// fails with all of them at once.
    pub fn new(id: impl AsRef<str>, path: impl Into<PathBuf>) -> Self {
        Self::from_config(VolumeConfig::new(id.as_ref(), path.into()))
    }

    /// The directory that a `file:///absolute/path` URL names, called `volume` until [`with_id`](Self::with_id).
    ///
    /// ```
    /// use stackkit_core::Service;
    /// let volume = stackkit_volume::Volume::from_url("file:///srv/my%20files")?.with_id("files");
    /// assert_eq!(volume.path().to_str(), Some("/srv/my files"));
    /// # Ok::<(), stackkit_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` for another scheme, another host, a query, or a broken escape.
    pub fn from_url(url: &str) -> Result<Self> {
        Ok(Self::new(DEFAULT_ID, path_of_url(url)?))
    }

    /// The directory that the environment variable [`ENV_PATH`] names, called `volume`.
    ///
    /// # Errors
    /// `Config` if the variable is not set.
    pub fn from_env() -> Result<Self> {
        let path = std::env::var_os(ENV_PATH)
            .ok_or_else(|| Error::config(format!("{ENV_PATH} is not set: the directory of the volume")))?;
        Ok(Self::new(DEFAULT_ID, PathBuf::from(path)))
    }

    /// Gives the volume a name in its stack. A name that is no [`ServiceId`] is told by [`Service::faults`].
    #[must_use]
    pub fn with_id(self, id: impl AsRef<str>) -> Self {
        self.changed(|config| config.set_id(id.as_ref()))
    }

    /// Says that nobody writes to the directory on purpose: the probe does not try to, and a read-only file system is
    /// no finding.
    #[must_use]
    pub fn with_read_only(self) -> Self {
        self.changed(|config| config.is_read_only = true)
    }

    /// Says that the directory has to be a mount point: where it is none, the probe finds `volume.unmounted` instead
    /// of taking the empty directory below for the volume.
    #[must_use]
    pub fn with_mount_required(self) -> Self {
        self.changed(|config| config.is_mount_point = true)
    }

    /// Asks `bytes` at each probe how much the next large write will take, and compares it with the space that is left:
    /// for a volume that backups are written to, the size of the last one. `None` as long as nobody knows.
    ///
    /// It runs on the probe's thread, and must neither block nor wait.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use stackkit_volume::Volume;
    /// let last = Arc::new(AtomicU64::new(0)); // set by the application after each backup
    /// let seen = Arc::clone(&last);
    /// let backups = Volume::new("backups", "/var/backups")
    ///     .with_expected_write(move || Some(seen.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0));
    /// ```
    #[must_use]
    pub fn with_expected_write(self, bytes: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        self.changed(|config| config.expected_write = ExpectedWrite::new(bytes))
    }

    /// The directory, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.config.path
    }

    fn from_config(config: VolumeConfig) -> Self {
        Self(Arc::new(Inner { config, prober: Prober::default() }))
    }

    fn changed(&self, change: impl FnOnce(&mut VolumeConfig)) -> Self {
        let mut config = self.0.config.clone();
        change(&mut config);
        Self::from_config(config)
    }

    /// Names the service and the operation in an error.
    fn named(&self, operation: &'static str) -> impl Fn(Error) -> Error + '_ {
        move |error| error.with_operation(operation).with_service(self.0.config.id.clone())
    }
}

impl Service for Volume {
    fn id(&self) -> &ServiceId {
        &self.0.config.id
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::local("file", self.0.config.path.to_string_lossy())
    }

    fn faults(&self) -> Vec<ConfigFault> {
        self.0.config.validate()
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }

    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Volume {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        self.0.prober.probe(&self.0.config, cx).await.map_err(self.named("probe"))
    }

    fn tiers(&self) -> &'static [Tier] {
        // No `Process`: a network file system may hang, and must not restart whoever waits for it. No `Ping`: a look costs
        // tens of microseconds, and the vitals decide.
        &[Tier::Vitals, Tier::Inventory]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        rules(self.0.config.is_read_only)
    }
}

#[async_trait]
impl BackupProvider for Volume {
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        let path = self.0.config.path.clone();
        let opened = path.clone();
        let looked = Worker::start(move |_| Walk::open(&opened, FileAccess::Stat).map(drop)).join().await;
        looked.and_then(|opened| opened).map_err(|error| self.named("begin")(error.into()))?;
        let point = PointInTime::new(cx.clock.now(), Consistency::PerObject);
        Ok(Box::new(VolumeDump { path, point, service: self.0.config.id.clone() }))
    }

    async fn inspect(&self, artifact: &ArtifactInfo, data: ArtifactReader) -> Result<Inspection> {
        restore::inspect(artifact, data).await.map_err(self.named("inspect"))
    }

    async fn plan_restore(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan> {
        let target = resolve(&self.0.config.path);
        restore::plan(&self.0.config.id, target, source, options).await.map_err(self.named("plan_restore"))
    }

    async fn restore(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        let target = resolve(&self.0.config.path);
        restore::restore(plan, target, source, cx).await.map_err(self.named("restore"))
    }

    async fn census(&self) -> Result<Census> {
        let path = self.0.config.path.clone();
        let taken = Worker::start(move |cancel| census::take(&path, cancel)).join().await;
        let (census, _) = taken.and_then(|taken| taken).map_err(|error| self.named("census")(error.into()))?;
        Ok(census)
    }
}
