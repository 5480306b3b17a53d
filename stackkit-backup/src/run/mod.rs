//! A backup: every service's point in time pinned together, then all bytes, then the manifest.

mod barrier;
mod commit;
mod dump;
mod report;
mod retain;
mod services;
mod sink;
mod trigger;
mod unfinished;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use stackkit_core::{Error, ErrorKind, Result, Stack};
use tokio_util::task::TaskTracker;

pub(crate) use commit::host;
pub use report::Backup;
pub(crate) use report::format_bytes;
pub use trigger::Trigger;

use self::dump::{Dumped, Job};
use self::retain::Retain;
use self::sink::Shared;
use self::unfinished::Unfinished;
use crate::hook::{Hook, Hooks, Subject};
use crate::id::BackupId;
use crate::keys::SigningKey;
use crate::manifest::{Encryption, Manifest, Previous};
use crate::progress::{Operation, Progress, ProgressEvent, ProgressPhase, Reporter};
use crate::repository::{Repository, folder_of};
use crate::retention::Retention;

/// How long a service may take to pin its point in time. A provider does it within 1 s on an idle server; a busy one
/// gets the time of a long lock wait.
const BEGIN_DEADLINE: Duration = Duration::from_secs(30);

/// How long all dumps together may take: a nightly backup must be over before the next.
const RUN_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it may take to ask the storage for all artifacts and to lock them: some calls for each, and a storage that
/// tells its clients to slow down is retried for minutes.
const STORING_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// How long it may take to write the manifest and what stands beside it: four small objects, with the same retries.
const COMMIT_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// A backup that is being prepared: see [`Repository::backup`].
#[must_use = "a backup does nothing until it is run"]
pub struct BackupRun<'a> {
    settings: Settings<'a>,
    stop: Option<BoxFuture<'a, ()>>,
}

/// How a backup is made.
struct Settings<'a> {
    repository: &'a Repository,
    stack: &'a Stack,
    tags: Vec<String>,
    label: Option<String>,
    trigger: Option<Trigger>,
    retain: Option<Retain>,
    only: Option<Vec<String>>,
    partial: bool,
    hooks: Vec<Hook>,
    progress: Option<Arc<dyn Progress>>,
    begin_deadline: Duration,
    deadline: Duration,
}

impl std::fmt::Debug for BackupRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupRun")
            .field("stack", &self.settings.stack.name())
            .field("tags", &self.settings.tags)
            .field("only", &self.settings.only)
            .field("partial", &self.settings.partial)
            .field("hooks", &self.settings.hooks)
            .finish_non_exhaustive()
    }
}

impl<'a> BackupRun<'a> {
    pub(crate) fn new(repository: &'a Repository, stack: &'a Stack) -> Self {
        let settings = Settings {
            repository,
            stack,
            tags: Vec::new(),
            label: None,
            trigger: None,
            retain: None,
            only: None,
            partial: false,
            hooks: Vec::new(),
            progress: None,
            begin_deadline: BEGIN_DEADLINE,
            deadline: RUN_DEADLINE,
        };
        Self { settings, stop: None }
    }

    /// Adds a tag.
    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.settings.tags.push(tag.into());
        self
    }

    /// Sets a title for people.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.settings.label = Some(label.into());
        self
    }

    /// Tells what made it run; the manifest keeps it.
    pub fn with_trigger(mut self, trigger: Trigger) -> Self {
        self.settings.trigger = Some(trigger);
        self
    }

    /// Locks every object of the backup against deletion for this long, counted from its start, in a bucket with Object
    /// Lock; the manifest tells until when. The longest time that the retention keeps it is a good one.
    pub fn with_retain_for(mut self, time: Duration) -> Self {
        self.settings.retain = Some(Retain::For(time));
        self
    }

    /// As [`with_retain_for`](Self::with_retain_for), until a given time.
    pub fn with_retain_until(mut self, time: Timestamp) -> Self {
        self.settings.retain = Some(Retain::Until(time));
        self
    }

    /// Locks every object of the backup as long as `policy` will keep it for sure, in a bucket with Object Lock: see
    /// [`Retention::lock_until`]. A backup that the policy tells no time for is not locked, and no more is a partial one.
    ///
    /// ```no_run
    /// use stackkit_backup::Retention;
    /// # async fn example(repository: stackkit_backup::Repository, stack: stackkit_core::Stack)
    /// # -> stackkit_core::Result<()> {
    /// let policy = Retention::new().keep_last(3).keep_daily(7).keep_monthly(12);
    /// repository.backup(&stack).with_retain_by(&policy).run().await?;
    /// let plan = repository.plan_retention(&policy).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_retain_by(mut self, policy: &Retention) -> Self {
        self.settings.retain = Some(Retain::By(Box::new(policy.clone())));
        self
    }

    /// Adds a hook for a moment of the backup.
    pub fn with_hook(mut self, hook: Hook) -> Self {
        self.settings.hooks.push(hook);
        self
    }

    /// Tells each step to `progress`.
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.settings.progress = Some(progress);
        self
    }

    /// Backs up only the services with these ids; without it, every service that can be.
    pub fn only<I, T>(mut self, services: I) -> Self
    where
        I: IntoIterator<Item = T>,
        T: Into<String>,
    {
        self.settings.only = Some(services.into_iter().map(Into::into).collect());
        self
    }

    /// Keeps what succeeded when a service fails. Such a backup is marked as partial: it is never the latest, and
    /// never counts for retention.
    pub fn partial(mut self) -> Self {
        self.settings.partial = true;
        self
    }

    /// Sets how long a service may take to pin its point in time; 30 s unless set.
    pub fn with_begin_deadline(mut self, deadline: Duration) -> Self {
        self.settings.begin_deadline = deadline;
        self
    }

    /// Sets how long all dumps together may take; 24 h unless set.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Gives the backup up in good order when `stop` is ready, such as at a signal: what was stored is removed, the
    /// hooks that [always](Hook::always) run do, and [`run`](Self::run) returns `Cancelled`. Once the manifest is being
    /// written it comes too late.
    pub fn stop_when(mut self, stop: impl Future<Output = ()> + Send + 'a) -> Self {
        self.stop = Some(stop.boxed());
        self
    }

    /// Makes the backup: all services, or none unless [`partial`](Self::partial) was said. It exists when this
    /// returns; if it fails, nothing is left that [`Repository::list`] shows.
    ///
    /// # Errors
    /// `Config` if it was not said how to write (see [`RepositoryOptions`](crate::RepositoryOptions)), or if no service
    /// can be backed up; `NotFound` and `Unsupported` for ids that are not in the stack or can't be backed up, also in
    /// hooks; `Unsupported` for a lock where the repository has none; the error of the service or the hook that failed
    /// first, naming it; `Timeout`; `Cancelled` if it was stopped; the storage's kinds. An error with the fact `backup`
    /// tells that the backup may exist, or exists without all of its locks.
    ///
    /// # Cancel safety
    /// Dropping the future ends all dumps and removes what they stored, in a bucket as far as that is possible at once;
    /// hooks do not run. Dropped during its very last step, the write of the manifest, it leaves a whole backup or none.
    pub async fn run(self) -> Result<Backup> {
        let Self { settings, stop } = self;
        settings.repository.options().check_encryption()?;
        let services = settings.services()?;
        let clock = settings.stack.clock().clone();
        let started = clock.now();
        let retain_until = match &settings.retain {
            Some(retain) => retain.until(settings.repository, started)?,
            None => None,
        };
        let id = BackupId::generate(started);
        let progress = Reporter::new(settings.progress.clone());
        let subject = Subject { stack: settings.stack.name().to_owned(), backup: id };
        let ids: Vec<_> = services.iter().map(|service| service.id()).collect();
        let hooks = Hooks::new(&settings.hooks, settings.stack, &ids, subject, progress.clone())?;
        let shared = Arc::new(Shared {
            storage: settings.repository.storage.clone(),
            recipients: settings.repository.recipients().to_vec(),
            folder: folder_of(settings.stack.name(), &id),
            clock,
            tasks: TaskTracker::new(),
            progress,
        });
        let mut unfinished = Unfinished::new(&shared);
        shared.progress.started(Operation::Backup);
        shared.progress.phase(ProgressPhase::Preparing, None);
        let job =
            Job { settings: &settings, services, shared: Arc::clone(&shared), hooks, expected_bytes: OnceLock::new() };
        let head = Head { id, started, retain_until };
        let manifest = match unless_stopped(stop, job.make(head)).await {
            Ok(manifest) => manifest,
            Err(error) => {
                job.hooks.ended(&error).await;
                return Err(unfinished.abandon(error).await);
            }
        };
        // From here on only a definite answer of the storage may remove artifacts: the manifest may exist.
        unfinished.disarm();
        match Box::pin(job.commit(&manifest)).await {
            Ok(()) => {
                shared.progress.phase(ProgressPhase::Done, None);
                Ok(Backup::new(manifest))
            }
            Err(commit::Failure::NotWritten(error)) => Err(unfinished.abandon(error).await),
            Err(commit::Failure::Unknown(error)) => Err(error.with_context("backup", id)),
        }
    }
}

/// What is known of a backup at its start.
#[derive(Debug, Clone, Copy)]
struct Head {
    id: BackupId,
    started: Timestamp,
    retain_until: Option<Timestamp>,
}

impl Job<'_> {
    /// Everything before the commit. The artifacts are stored, checked and locked when this returns.
    async fn make(&self, head: Head) -> Result<Manifest> {
        let dumped = Box::pin(self.dump()).await?;
        self.shared.progress.phase(ProgressPhase::Storing, None);
        let storing = async {
            let prev = self.settings.repository.newest(self.settings.stack.name()).await?;
            let prev = prev.map(|found| Previous::new(found.manifest.id, found.blake3));
            let retain_until = self.retain_until(&head, &dumped).await?;
            let head = Head { retain_until, ..head };
            let manifest = self.draft(head, prev, dumped);
            commit::check_sizes(&self.shared, &manifest).await?;
            commit::lock_artifacts(&self.shared, &manifest, self.settings.repository).await?;
            Ok(manifest)
        };
        match tokio::time::timeout(STORING_DEADLINE, Box::pin(storing)).await {
            Ok(stored) => stored,
            Err(elapsed) => Err(late("the storage did not confirm the artifacts in time", STORING_DEADLINE, elapsed)),
        }
    }

    /// Until when the objects are locked.
    async fn retain_until(&self, head: &Head, dumped: &Dumped) -> Result<Option<Timestamp>> {
        let is_complete = dumped.records.iter().all(|record| record.error.is_none());
        match (&self.settings.retain, head.retain_until) {
            (Some(retain), None) if is_complete => {
                retain.by_policy(self.settings.repository, self.settings.stack.name(), head.started).await
            }
            (_, known) => Ok(known),
        }
    }

    async fn commit(&self, manifest: &Manifest) -> std::result::Result<(), commit::Failure> {
        let (shared, repository) = (&self.shared, self.settings.repository);
        shared.progress.phase(ProgressPhase::Committing, None);
        let committing = async {
            commit::write_manifest(shared, manifest, repository).await?;
            shared.progress.tell(|| ProgressEvent::Committed);
            commit::lock_documents(shared, manifest, repository).await
        };
        match tokio::time::timeout(COMMIT_DEADLINE, committing).await {
            Ok(committed) => committed,
            Err(elapsed) => {
                let error = late("the storage did not confirm the manifest in time", COMMIT_DEADLINE, elapsed);
                Err(commit::Failure::Unknown(error))
            }
        }
    }

    fn draft(&self, head: Head, prev: Option<Previous>, dumped: Dumped) -> Manifest {
        let Settings { repository, stack, tags, label, trigger, .. } = self.settings;
        commit::draft(commit::Draft {
            repository: repository.id().to_owned(),
            id: head.id,
            stack: stack.name().to_owned(),
            started: head.started,
            finished: stack.clock().now(),
            trigger: trigger.as_ref().map(|trigger| trigger.as_str().to_owned()),
            tags: tags.clone(),
            label: label.clone(),
            prev,
            retain_until: head.retain_until,
            encryption: Encryption::to(repository.recipients()),
            signer: repository.signing_key().map(SigningKey::trusted),
            dumped,
        })
    }
}

fn late(message: &str, deadline: Duration, elapsed: tokio::time::error::Elapsed) -> Error {
    Error::new(ErrorKind::Timeout, message).with_context("deadline_s", deadline.as_secs()).with_source(elapsed)
}

/// The outcome of the work, or `Cancelled` if it is to stop before.
async fn unless_stopped<T>(stop: Option<BoxFuture<'_, ()>>, work: impl Future<Output = Result<T>>) -> Result<T> {
    let stop = async {
        match stop {
            Some(stop) => stop.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = stop => Err(Error::new(ErrorKind::Cancelled, "the backup was stopped")),
    }
}

/// A duration in whole milliseconds, rounded up, so that nothing took 0 but nothing.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
