//! The work of a backup until its manifest can be written: hooks, pins, dumps.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use stackkit_core::backup::DumpContext;
use stackkit_core::{Error, ErrorKind, Result, Service};

use super::Settings;
use super::barrier::{self, Barrier, Pinned};
use super::sink::{ServiceSink, Shared};
use crate::error::contained;
use crate::hook::{HookPoint, Hooks};
use crate::manifest::{Extra, Manifest, ServiceFailure, ServiceRecord};
use crate::progress::{ProgressEvent, ProgressPhase};

/// Dumps that run at once; the others wait with their points pinned. More only fight for the same storage.
const DUMPS_AT_ONCE: usize = 16;

/// What the dumps gave.
pub(super) struct Dumped {
    pub(super) spread: Duration,
    pub(super) begin: Duration,
    pub(super) run: Duration,
    /// In the order of the stack.
    pub(super) records: Vec<ServiceRecord>,
}

/// A service that failed: its record for a partial backup, and the error for a whole one.
struct FailedDump {
    record: ServiceRecord,
    error: Error,
}

type DumpResult = std::result::Result<ServiceRecord, Box<FailedDump>>;

/// A backup at work.
pub(super) struct Job<'a> {
    pub(super) settings: &'a Settings<'a>,
    pub(super) services: Vec<Arc<dyn Service>>,
    pub(super) shared: Arc<Shared>,
    pub(super) hooks: Hooks<'a>,
    /// As many bytes as the last backup had, once that is known.
    pub(super) expected_bytes: OnceLock<u64>,
}

impl Job<'_> {
    /// Runs hooks, pins all points and runs all dumps.
    pub(super) async fn dump(&self) -> Result<Dumped> {
        beside(self.pin_and_dump(), self.estimate()).await
    }

    async fn pin_and_dump(&self) -> Result<Dumped> {
        let clock = &self.shared.clock;
        let (began, barrier) = self.pin().await;
        let barrier = barrier?;
        let pinned = clock.instant();
        self.shared.progress.phase(ProgressPhase::Dumping, self.expected_bytes.get().copied());
        let dumps = stream::iter(barrier.services.into_iter().enumerate())
            .map(|(place, pinned)| async move { (place, self.dump_one(pinned).await) })
            .buffer_unordered(DUMPS_AT_ONCE);
        let deadline = self.settings.deadline;
        let collected = tokio::time::timeout(deadline, self.collect(dumps)).await.map_err(|e| {
            Error::new(ErrorKind::Timeout, "the dumps took longer than they may")
                .with_context("deadline_s", deadline.as_secs())
                .with_source(e)
        })?;
        let mut records = collected?;
        records.sort_unstable_by_key(|(place, _)| *place);
        let records: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
        let run = clock.instant().duration_since(pinned);
        self.hooks.run(HookPoint::AfterDump).await?;
        Ok(Dumped { spread: barrier.spread, begin: pinned.duration_since(began), run, records })
    }

    /// Runs the hooks before the dump, pins all points, and runs the hooks after that.
    async fn pin(&self) -> (tokio::time::Instant, Result<Barrier>) {
        let prepared = self.prepare().await;
        let began = self.shared.clock.instant();
        let barrier = match prepared {
            Ok(ready) => self.pin_ready(ready).await,
            Err(error) => Err(error),
        };
        (began, barrier)
    }

    /// The services whose hooks went well, in the order of the stack; in a partial backup the others with their errors.
    async fn prepare(&self) -> Result<Vec<(Arc<dyn Service>, Option<Error>)>> {
        self.hooks.run(HookPoint::BeforeDump).await?;
        let mut services = Vec::with_capacity(self.services.len());
        for service in &self.services {
            let refused = match self.hooks.run_for(HookPoint::BeforeDump, service.id()).await {
                Err(error) if !self.settings.partial => return Err(error),
                ran => ran.err(),
            };
            services.push((Arc::clone(service), refused));
        }
        Ok(services)
    }

    async fn pin_ready(&self, services: Vec<(Arc<dyn Service>, Option<Error>)>) -> Result<Barrier> {
        let context = DumpContext::new().with_clock(self.shared.clock.clone());
        self.shared.progress.phase(ProgressPhase::Pinning, None);
        let ready: Vec<_> =
            services.iter().filter(|(_, refused)| refused.is_none()).map(|(service, _)| Arc::clone(service)).collect();
        let (begin_deadline, partial) = (self.settings.begin_deadline, self.settings.partial);
        let barrier = barrier::pin_all(&ready, &context, begin_deadline, partial, &self.shared).await?;
        let mut pinned = barrier.services.into_iter();
        let all = services.into_iter().filter_map(|(service, refused)| match refused {
            Some(error) => Some(Pinned { service, dump: Err(error) }),
            None => pinned.next(),
        });
        let mut all: Vec<Pinned> = all.collect();
        for one in &mut all {
            if one.dump.is_err() {
                continue;
            }
            match self.hooks.run_for(HookPoint::AfterPin, one.service.id()).await {
                Err(error) if !partial => return Err(error),
                Err(error) => one.dump = Err(error),
                Ok(()) => {}
            }
        }
        self.hooks.run(HookPoint::AfterPin).await?;
        Ok(Barrier { services: all, spread: barrier.spread })
    }

    /// Tells how much the stack's backup before this one read, if anybody listens: no dump waits for that.
    async fn estimate(&self) {
        if !self.shared.progress.is_heard() {
            return;
        }
        // Without it there is no estimate; the commit looks again, and tells what is wrong.
        let Ok(Some(last)) = self.settings.repository.newest(self.settings.stack.name()).await else { return };
        if let Some(bytes) = self.bytes_in(&last.manifest) {
            let bytes = *self.expected_bytes.get_or_init(|| bytes);
            self.shared.progress.tell(|| ProgressEvent::Expected { bytes });
        }
    }

    /// How many bytes the same services had in another backup; `None` if it misses one of them.
    fn bytes_in(&self, last: &Manifest) -> Option<u64> {
        let bytes = |service: &Arc<dyn Service>| {
            let record = last.service(service.id().as_str()).ok()?;
            Some(record.artifacts.iter().map(|artifact| artifact.plain.bytes).fold(0, u64::saturating_add))
        };
        self.services.iter().map(bytes).try_fold(0_u64, |sum, bytes| Some(sum.saturating_add(bytes?)))
    }

    async fn collect(
        &self,
        dumps: impl stream::Stream<Item = (usize, DumpResult)>,
    ) -> Result<Vec<(usize, ServiceRecord)>> {
        let mut dumps = std::pin::pin!(dumps);
        let mut records = Vec::new();
        let mut first_error = None;
        let mut any_good = false;
        while let Some((place, dumped)) = dumps.next().await {
            match dumped {
                Ok(record) => {
                    any_good = true;
                    records.push((place, record));
                }
                Err(failed) if !self.settings.partial => return Err(failed.error),
                Err(failed) => {
                    records.push((place, failed.record));
                    first_error.get_or_insert(failed.error);
                }
            }
        }
        match first_error {
            // Nothing succeeded: that is no backup, not even a partial one.
            Some(error) if !any_good => Err(error),
            _ => Ok(records),
        }
    }

    async fn dump_one(&self, pinned: Pinned) -> DumpResult {
        let Pinned { service, dump } = pinned;
        let shared = &self.shared;
        let id = service.id().clone();
        let mut record = empty_record(&*service);
        let began = shared.clock.instant();
        let sink = ServiceSink::new(Arc::clone(shared), id.clone());
        let dumped = match dump {
            Err(error) => Err(error),
            Ok(dump) => {
                record.point = Some(dump.point().clone().into());
                let report = contained("dump", dump.run(&sink)).await;
                report.and_then(|report| Ok((report, sink.into_artifacts()?)))
            }
        };
        record.run_ms = super::millis(shared.clock.instant().duration_since(began));
        let dumped = match dumped {
            Ok(dumped) => self.hooks.run_for(HookPoint::AfterDump, &id).await.map(|()| dumped),
            Err(error) => Err(error),
        };
        match dumped {
            Ok((report, artifacts)) => {
                record.vendor = Some(report.vendor.into());
                record.census = Some(report.census.into());
                record.warnings = report.warnings;
                record.artifacts = artifacts;
                shared.progress.tell(|| ProgressEvent::Dumped { service: id });
                Ok(record)
            }
            Err(error) => Err(Box::new(self.failed(record, error).await)),
        }
    }

    async fn failed(&self, mut record: ServiceRecord, error: Error) -> FailedDump {
        let error = error.with_service(record.id.clone());
        let (shared, id) = (&self.shared, &record.id);
        shared.progress.tell(|| ProgressEvent::Failed { service: id.clone(), message: error.to_string() });
        self.hooks.ended_for(id, &error).await;
        if self.settings.partial {
            // What can't be removed is in no manifest.
            let folder = shared.folder.clone().join(id.as_str());
            if let Err(error) = shared.storage.remove_all(&folder).await {
                tracing::warn!(error = %error.chain(), service = %id, "artifacts of a failed dump are left");
            }
        }
        record.error = Some(ServiceFailure::new(&error));
        FailedDump { record, error }
    }
}

/// Waits for `work`, and polls what runs beside it until then.
async fn beside<T>(work: impl Future<Output = T>, beside: impl Future<Output = ()>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => done,
        () = beside => work.await,
    }
}

fn empty_record(service: &dyn Service) -> ServiceRecord {
    ServiceRecord {
        id: service.id().clone(),
        kind: service.kind().to_owned(),
        endpoint: service.endpoint().to_string(),
        error: None,
        point: None,
        vendor: None,
        census: None,
        warnings: Vec::new(),
        run_ms: 0,
        artifacts: Vec::new(),
        extra: Extra::new(),
    }
}
