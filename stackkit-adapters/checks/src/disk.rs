//! The space of a file system.

use std::path::{Path, PathBuf};

use rustix::fs::StatVfs;
use stackkit_core::health::{Metric, Rule, Tier};
use stackkit_core::{
    ConfigFault, Endpoint, Error, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Service, ServiceId,
    async_trait,
};

use crate::look::Looker;
use crate::name::{Name, number};

/// From this share of used space or inodes on, somebody should look.
const USED_RATIO_WARNING: f64 = 0.85;
/// From this share on, it is about to fail.
const USED_RATIO_CRITICAL: f64 = 0.95;

const METRICS: &[Metric] = &[
    Metric::gauge("capacity_bytes", "statvfs: f_blocks", "Size of the file system").on(Tier::Process),
    Metric::gauge("used_bytes", "statvfs: f_blocks - f_bfree", "Space in use").on(Tier::Process),
    Metric::gauge("available_bytes", "statvfs: f_bavail", "Space that an ordinary user can still write")
        .on(Tier::Process),
    Metric::gauge("used_ratio", "statvfs, counted as df does", "Share of the space in use").on(Tier::Process),
    Metric::gauge("inodes_count", "statvfs: f_files", "Inodes of the file system").on(Tier::Process),
    Metric::gauge("inodes_available_count", "statvfs: f_favail", "Inodes that an ordinary user can still use")
        .on(Tier::Process),
    Metric::gauge("inodes_used_ratio", "statvfs: f_files, f_favail", "Share of the inodes in use").on(Tier::Process),
];

/// How full the file system below a path is. Reads only; for a directory whose data matters take
/// `stackkit-volume`, which also tries to write.
///
/// A file system that hangs holds one thread, and the probes say `Timeout` with the code `stuck`.
///
/// ```
/// use stackkit_checks::DiskCheck;
/// use stackkit_core::Service;
/// assert_eq!(DiskCheck::new("disk", "/var/lib").endpoint().to_string(), "file:///var/lib");
/// ```
#[derive(Debug)]
pub struct DiskCheck {
    name: Name,
    path: PathBuf,
    looker: Looker,
}

impl DiskCheck {
    /// The file system that holds `path`, called `id` in its stack. Does no I/O.
    ///
    /// What is wrong is told by [`Service::faults`].
    pub fn new(id: impl AsRef<str>, path: impl Into<PathBuf>) -> Self {
        Self { name: Name::new(id.as_ref(), "disk", "disk.id"), path: path.into(), looker: Looker::default() }
    }
}

fn look(path: &Path) -> Result<Observation> {
    let stat = rustix::fs::statvfs(path).map_err(|errno| Error::io("statvfs", errno.into()));
    stat.map(|stat| observe(&stat)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => error.with_code("disk.missing"),
        _ => error,
    })
}

fn observe(stat: &StatVfs) -> Observation {
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let (used, available) = (bytes(stat.f_blocks.saturating_sub(stat.f_bfree)), bytes(stat.f_bavail));
    let observation = Observation::new()
        .gauge("capacity_bytes", number(bytes(stat.f_blocks)))
        .gauge("used_bytes", number(used))
        .gauge("available_bytes", number(available))
        .gauge("used_ratio", number(used) / number(used.saturating_add(available)));
    if stat.f_files == 0 {
        return observation.unavailable("inodes_used_ratio", "the file system has no limit of inodes");
    }
    observation
        .gauge("inodes_count", number(stat.f_files))
        .gauge("inodes_available_count", number(stat.f_favail))
        .gauge("inodes_used_ratio", 1.0 - number(stat.f_favail) / number(stat.f_files))
}

impl Service for DiskCheck {
    fn id(&self) -> &ServiceId {
        &self.name.id
    }

    fn kind(&self) -> &'static str {
        "disk"
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::local("file", self.path.to_string_lossy())
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let relative =
            (!self.path.is_absolute()).then(|| ConfigFault::error("disk.path.relative", "the path is not absolute"));
        self.name.faults(relative)
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for DiskCheck {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        let path = self.path.clone();
        let looked = self.looker.look(cx, move || look(&path)).await;
        looked.map_err(|error| error.with_operation("probe").with_context("path", self.path.display()))
    }

    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Process]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        let low = |metric, code, message| {
            Rule::above(metric, code)
                .warning(USED_RATIO_WARNING)
                .critical(USED_RATIO_CRITICAL)
                .saying(message, "make room, or enlarge the file system")
        };
        vec![
            low("used_ratio", "disk.space.low", "most of the space is used"),
            low("inodes_used_ratio", "disk.inodes.low", "most of the inodes are used"),
        ]
    }
}
