//! What most scenarios do: probe, dump, restore.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use stackkit_core::backup::{
    ArtifactInfo, ArtifactSource, DumpContext, DumpReport, RestoreContext, RestoreOptions, RestoreReport,
};
use stackkit_core::health::Tier;
use stackkit_core::{BackupProvider, Clock, Dump, Error, HealthCheck, Observation, ProbeContext, Result, Service};

use crate::conformance::outcome::{Failure, Outcome, check};
use crate::conformance::sink::{MemorySink, SinkFault};
use crate::conformance::source::MemoryBackup;
use crate::conformance::target::Instance;
use crate::net::wait_until;

/// The deadline of an ordinary probe, and of what must be fast: ten times what a busy machine takes.
pub(crate) const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a store may take to notice that a connection or a process is gone.
const RELEASE_DEADLINE: Duration = Duration::from_secs(20);

/// A dump in memory with its report.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Dumped {
    /// The artifacts.
    pub backup: MemoryBackup,
    /// What the dump reported.
    pub report: DumpReport,
}

impl Dumped {
    /// The artifacts' facts.
    #[must_use]
    pub fn artifacts(&self) -> &[ArtifactInfo] {
        self.backup.artifacts()
    }
}

/// Probes once at that tier, within ten seconds.
///
/// # Errors
/// The probe's; `Timeout` if it does not end by its deadline; `Unsupported` without a health check.
///
/// # Cancel safety
/// That of a probe.
pub async fn probe(service: &Arc<dyn Service>, tier: Tier) -> Result<Observation> {
    probe_within(service, tier, PROBE_DEADLINE).await
}

pub(crate) async fn probe_within(service: &Arc<dyn Service>, tier: Tier, limit: Duration) -> Result<Observation> {
    let deadline = Clock::system().instant() + limit;
    let cx = ProbeContext::new(tier, deadline);
    let late = |_elapsed| Error::new(stackkit_core::ErrorKind::Timeout, "the probe did not end by its deadline");
    tokio::time::timeout_at(deadline, health(service)?.probe(&cx)).await.map_err(late)?
}

/// Dumps into memory.
///
/// # Errors
/// The dump's; `Unsupported` without a backup provider.
///
/// # Cancel safety
/// That of a dump.
pub async fn dump(service: &Arc<dyn Service>) -> Result<Dumped> {
    let begun = provider(service)?.begin(&DumpContext::new()).await?;
    run_into(begun, &MemorySink::new(SinkFault::None)).await
}

/// Plans and applies a restore, comparing the census of the dump.
///
/// # Errors
/// The plan's and the restore's.
///
/// # Cancel safety
/// That of a restore.
pub async fn restore(service: &Arc<dyn Service>, dumped: &Dumped) -> Result<RestoreReport> {
    let plan = provider(service)?.plan_restore(&dumped.backup, &RestoreOptions::new()).await?;
    provider(service)?.restore(plan, &dumped.backup, &expecting(dumped)).await
}

pub(crate) async fn run_into(begun: Box<dyn Dump>, sink: &MemorySink) -> Result<Dumped> {
    let report = begun.run(sink).await?;
    Ok(Dumped { backup: sink.backup(), report })
}

pub(crate) fn expecting(dumped: &Dumped) -> RestoreContext {
    RestoreContext::new().with_expected(dumped.report.census.clone())
}

pub(crate) fn health(service: &Arc<dyn Service>) -> Result<&dyn HealthCheck> {
    let unsupported = || Error::new(stackkit_core::ErrorKind::Unsupported, "the service has no health check");
    service.health_check().ok_or_else(unsupported)
}

/// The highest tier but the inventory: the one that the runner asks first, and while the service fails.
pub(crate) fn deciding_tier(service: &Arc<dyn Service>) -> Result<Tier> {
    let tiers = health(service)?.tiers().iter().copied();
    Ok(tiers.filter(|tier| *tier != Tier::Inventory).max().unwrap_or_default())
}

pub(crate) fn provider(service: &Arc<dyn Service>) -> Result<&dyn BackupProvider> {
    let unsupported = || Error::new(stackkit_core::ErrorKind::Unsupported, "the service has no backup provider");
    service.backup_provider().ok_or_else(unsupported)
}

/// Waits until the store holds nothing for handles any more.
pub(crate) async fn released(instance: &dyn Instance) -> Outcome {
    let none_held = async || match instance.held().await {
        Ok(0) => Some(Ok(())),
        Ok(_) => None,
        Err(error) => Some(Err(Failure::from(error))),
    };
    wait_until("the store holds nothing for handles", RELEASE_DEADLINE, none_held).await?
}

/// Runs `work` until the sink stalls, and gives it up there.
///
/// # Errors
/// If it ended before.
pub(crate) async fn until_stalled<T>(sink: &MemorySink, work: impl Future<Output = Result<T>>) -> Outcome {
    tokio::select! {
        () = sink.stalled() => Ok(()),
        ended = work => {
            let ended = ended.map(drop).map_err(Failure::from);
            ended.and_then(|()| check(false, || "the dump did not wait for the sink".to_owned()))
        }
    }
}

/// Keeps `work` stalled while `look` runs.
pub(crate) async fn while_stalled<T, U>(
    sink: &MemorySink,
    work: impl Future<Output = Result<T>>,
    look: impl AsyncFnOnce() -> Outcome<U>,
) -> Outcome<U> {
    let looked = async {
        sink.stalled().await;
        look().await
    };
    tokio::select! {
        looked = looked => looked,
        Err(error) = work => Err(error.into()),
        else => pending().await,
    }
}
