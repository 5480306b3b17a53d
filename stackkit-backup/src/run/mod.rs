//! A backup: every service's point in time pinned together, then all bytes, then the manifest.

mod barrier;
mod commit;
mod report;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use stackkit_core::backup::DumpContext;
use stackkit_core::{Error, ErrorKind, Result, Service, Stack};
use tokio_util::task::TaskTracker;

pub(crate) use commit::host;
pub use report::Backup;
pub(crate) use report::format_bytes;

use self::barrier::Pinned;
use self::sink::{ServiceSink, Shared};
use crate::error::contained;
use crate::id::BackupId;
use crate::keys::SigningKey;
use crate::manifest::{Encryption, Extra, Previous, ServiceFailure, ServiceRecord};
use crate::progress::{Operation, Progress, ProgressEvent, ProgressPhase, Reporter};
use crate::repository::{RESERVED_NAMES, Repository, folder_of};

/// How long a service may take to pin its point in time. A provider does it within 1 s on an idle server; a busy one
/// gets the time of a long lock wait.
const BEGIN_DEADLINE: Duration = Duration::from_secs(30);

/// How long all dumps together may take: a nightly backup must be over before the next.
const RUN_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Dumps that run at once; the others wait with their points pinned. More only fight for the same storage.
const DUMPS_AT_ONCE: usize = 16;

/// How long a failed backup waits for its storing tasks to end. They are aborted by then; only a provider that keeps a
/// writer for itself can make this wait.
const ABANDON_DEADLINE: Duration = Duration::from_secs(10);

/// A backup that is being prepared: see [`Repository::backup`].
#[must_use = "a backup does nothing until it is run"]
pub struct BackupRun<'a> {
    repository: &'a Repository,
    stack: &'a Stack,
    tags: Vec<String>,
    label: Option<String>,
    only: Option<Vec<String>>,
    partial: bool,
    progress: Option<Arc<dyn Progress>>,
    begin_deadline: Duration,
    deadline: Duration,
}

impl std::fmt::Debug for BackupRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupRun")
            .field("stack", &self.stack.name())
            .field("tags", &self.tags)
            .field("only", &self.only)
            .field("partial", &self.partial)
            .finish_non_exhaustive()
    }
}

impl<'a> BackupRun<'a> {
    pub(crate) fn new(repository: &'a Repository, stack: &'a Stack) -> Self {
        Self {
            repository,
            stack,
            tags: Vec::new(),
            label: None,
            only: None,
            partial: false,
            progress: None,
            begin_deadline: BEGIN_DEADLINE,
            deadline: RUN_DEADLINE,
        }
    }

    /// Adds a tag.
    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets a title for people.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Tells each step to `progress`.
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Backs up only the services with these ids; without it, every service that can be.
    pub fn only<I, T>(mut self, services: I) -> Self
    where
        I: IntoIterator<Item = T>,
        T: Into<String>,
    {
        self.only = Some(services.into_iter().map(Into::into).collect());
        self
    }

    /// Keeps what succeeded when a service fails. Such a backup is marked as partial: it is never the latest, and
    /// never counts for retention.
    pub fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// Sets how long a service may take to pin its point in time; 30 s unless set.
    pub fn with_begin_deadline(mut self, deadline: Duration) -> Self {
        self.begin_deadline = deadline;
        self
    }

    /// Sets how long all dumps together may take; 24 h unless set.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Makes the backup: all services, or none unless [`partial`](Self::partial) was said. It exists when this
    /// returns; if it fails, nothing is left that [`Repository::list`] shows.
    ///
    /// # Errors
    /// `Config` without [`unencrypted`](crate::RepositoryOptions::unencrypted), or if no service can be backed up;
    /// `NotFound` and `Unsupported` for ids that are not in the stack or can't be backed up; the error of the service
    /// that failed first, naming it; `Timeout`; the storage's kinds.
    ///
    /// # Cancel safety
    /// Dropping the future ends all dumps and removes what they stored. Dropped during its very last step, the write
    /// of the manifest, it leaves a whole backup or none.
    pub async fn run(self) -> Result<Backup> {
        self.repository.options().check_encryption()?;
        let services = self.services()?;
        let clock = self.stack.clock().clone();
        let started = clock.now();
        let id = BackupId::generate(started);
        let folder = folder_of(self.stack.name(), &id);
        let shared = Arc::new(Shared {
            storage: self.repository.storage.clone(),
            recipients: self.repository.recipients().to_vec(),
            folder,
            clock: clock.clone(),
            tasks: TaskTracker::new(),
            progress: Reporter::new(self.progress.clone()),
        });
        shared.progress.started(Operation::Backup);
        shared.progress.phase(ProgressPhase::Preparing, None);
        let mut unfinished = Unfinished { shared: Arc::clone(&shared), armed: true };
        let dumped = Box::pin(self.dump(&services, &shared)).await;
        let dumped = match dumped {
            Ok(dumped) => dumped,
            Err(error) => return Err(unfinished.abandon(error).await),
        };
        shared.progress.phase(ProgressPhase::Storing, None);
        let prev = match self.repository.newest(self.stack.name()).await {
            Ok(newest) => newest.map(|found| Previous::new(found.manifest.id, found.blake3)),
            Err(error) => return Err(unfinished.abandon(error).await),
        };
        let draft = self.draft(id, started, prev, dumped);
        if let Err(error) = commit::check_sizes(&shared, &draft).await {
            return Err(unfinished.abandon(error).await);
        }
        // From here on only a definite answer of the storage may remove artifacts: the manifest may exist.
        unfinished.armed = false;
        shared.progress.phase(ProgressPhase::Committing, None);
        match commit::write_manifest(&shared, &draft, self.repository).await {
            Ok(()) => {
                shared.progress.tell(|| ProgressEvent::Committed);
                shared.progress.phase(ProgressPhase::Done, None);
                Ok(Backup::new(draft))
            }
            Err(commit::Failure::NotWritten(error)) => Err(unfinished.abandon(error).await),
            Err(commit::Failure::Unknown(error)) => Err(error),
        }
    }

    /// The services to back up.
    fn services(&self) -> Result<Vec<Arc<dyn Service>>> {
        let services = self.chosen()?;
        match services.iter().find(|service| RESERVED_NAMES.contains(&service.id().as_str())) {
            None => Ok(services),
            Some(service) => {
                Err(Error::config("a service with this id can't be backed up: the repository uses the name")
                    .with_service(service.id().clone()))
            }
        }
    }

    fn chosen(&self) -> Result<Vec<Arc<dyn Service>>> {
        let Some(only) = &self.only else {
            let services: Vec<_> =
                self.stack.services().filter(|service| service.backup_provider().is_some()).cloned().collect();
            return match services.is_empty() {
                true => {
                    Err(Error::config("no service of the stack can be backed up")
                        .with_context("stack", self.stack.name()))
                }
                false => Ok(services),
            };
        };
        if only.is_empty() {
            return Err(Error::config("no service was chosen"));
        }
        for id in only {
            let service = self.stack.service(id).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "the stack has no such service").with_context("service", id)
            })?;
            if service.backup_provider().is_none() {
                return Err(Error::new(ErrorKind::Unsupported, "the service can't be backed up")
                    .with_service(service.id().clone()));
            }
        }
        let chosen = |service: &&Arc<dyn Service>| only.iter().any(|id| *service.id() == **id);
        Ok(self.stack.services().filter(chosen).cloned().collect())
    }

    /// Pins all points, then runs all dumps. The records are in the order of the stack.
    async fn dump(&self, services: &[Arc<dyn Service>], shared: &Arc<Shared>) -> Result<Dumped> {
        let clock = &shared.clock;
        let began = clock.instant();
        let context = DumpContext::new().with_clock(clock.clone());
        shared.progress.phase(ProgressPhase::Pinning, None);
        let barrier = barrier::pin_all(services, &context, self.begin_deadline, self.partial, shared).await?;
        let pinned = clock.instant();
        shared.progress.phase(ProgressPhase::Dumping, None);
        let dumps = stream::iter(barrier.services.into_iter().enumerate())
            .map(|(place, pinned)| async move { (place, self.dump_one(pinned, shared).await) })
            .buffer_unordered(DUMPS_AT_ONCE);
        let collected = tokio::time::timeout(self.deadline, self.collect(dumps)).await.map_err(|e| {
            Error::new(ErrorKind::Timeout, "the dumps took longer than they may")
                .with_context("deadline_s", self.deadline.as_secs())
                .with_source(e)
        })?;
        let mut records = collected?;
        records.sort_unstable_by_key(|(place, _)| *place);
        let records: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
        Ok(Dumped {
            spread: barrier.spread,
            begin: pinned.duration_since(began),
            run: clock.instant().duration_since(pinned),
            records,
        })
    }

    async fn collect(
        &self,
        dumps: impl stream::Stream<Item = (usize, std::result::Result<ServiceRecord, Box<FailedDump>>)>,
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
                Err(failed) if !self.partial => return Err(failed.error),
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

    async fn dump_one(
        &self,
        pinned: Pinned,
        shared: &Arc<Shared>,
    ) -> std::result::Result<ServiceRecord, Box<FailedDump>> {
        let Pinned { service, dump } = pinned;
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
        record.run_ms = millis(shared.clock.instant().duration_since(began));
        match dumped {
            Ok((report, artifacts)) => {
                record.vendor = Some(report.vendor.into());
                record.census = Some(report.census.into());
                record.warnings = report.warnings;
                record.artifacts = artifacts;
                shared.progress.tell(|| ProgressEvent::Dumped { service: id });
                Ok(record)
            }
            Err(error) => {
                let error = error.with_service(id.clone());
                shared.progress.tell(|| ProgressEvent::Failed { service: id.clone(), message: error.to_string() });
                record.error = Some(ServiceFailure::new(&error));
                if self.partial {
                    // What can't be removed is in no manifest.
                    let folder = shared.folder.clone().join(id.as_str());
                    if let Err(error) = shared.storage.remove_all(&folder).await {
                        tracing::warn!(error = %error.chain(), service = %id, "artifacts of a failed dump are left");
                    }
                }
                Err(Box::new(FailedDump { record, error }))
            }
        }
    }

    fn draft(
        &self,
        id: BackupId,
        started: jiff::Timestamp,
        prev: Option<Previous>,
        dumped: Dumped,
    ) -> crate::manifest::Manifest {
        commit::draft(commit::Draft {
            repository: self.repository.id().to_owned(),
            id,
            stack: self.stack.name().to_owned(),
            started,
            finished: self.stack.clock().now(),
            tags: self.tags.clone(),
            label: self.label.clone(),
            prev,
            encryption: Encryption::to(self.repository.recipients()),
            signer: self.repository.signing_key().map(SigningKey::trusted),
            dumped,
        })
    }
}

/// What the dumps gave.
struct Dumped {
    spread: Duration,
    begin: Duration,
    run: Duration,
    records: Vec<ServiceRecord>,
}

/// A service that failed: its record for a partial backup, and the error for a whole one.
struct FailedDump {
    record: ServiceRecord,
    error: Error,
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

/// A duration in whole milliseconds, rounded up, so that nothing took 0 but nothing.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Removes a backup that does not come to its end.
struct Unfinished {
    shared: Arc<Shared>,
    armed: bool,
}

impl Unfinished {
    /// Removes everything and hands the error on.
    async fn abandon(&mut self, error: Error) -> Error {
        self.armed = false;
        // The dumps are dropped, so their storing tasks end; nothing is written after this.
        self.shared.tasks.close();
        if tokio::time::timeout(ABANDON_DEADLINE, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(folder = %self.shared.folder, "an artifact of a failed backup is still being written");
        }
        if let Err(left) = self.shared.storage.remove_folder(&self.shared.folder).await {
            tracing::warn!(error = %left.chain(), folder = %self.shared.folder, "a failed backup left objects");
        }
        error
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.armed {
            self.shared.storage.remove_folder_now(&self.shared.folder);
        }
    }
}
