//! Carries out a plan.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use stackkit_core::backup::{RestoreContext, RestorePlan, RestoreReport, TargetState};
use stackkit_core::{Error, ErrorKind, Result, Service, ServiceId, Stack};

use super::{ServiceSource, StackRestorePlan, StackRestoreReport, difference, in_stack, provider_of};
use crate::hook::{Hook, HookPoint, Hooks, Subject};
use crate::lease::{Lease, restores_of};
use crate::manifest::ServiceRecord;
use crate::progress::{Operation, Progress, ProgressEvent, ProgressPhase, Reporter};
use crate::repository::{Found, Repository};
use crate::verify::{Check, Share, VerifyLevel};

/// What a report says if no lease could be had.
const UNPROTECTED: &str =
    "the repository can only be read, so nothing kept another restore into this stack from running at the same time";

/// A restore that is being prepared: see [`Repository::restore`].
#[must_use = "a restore does nothing until it is run"]
pub struct RestoreRun<'a> {
    repository: &'a Repository,
    plan: StackRestorePlan,
    stack: &'a Stack,
    hooks: Vec<Hook>,
    progress: Option<Arc<dyn Progress>>,
}

impl fmt::Debug for RestoreRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestoreRun")
            .field("backup", &self.plan.backup)
            .field("stack", &self.stack.name())
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

impl<'a> RestoreRun<'a> {
    pub(super) fn new(repository: &'a Repository, plan: StackRestorePlan, stack: &'a Stack) -> Self {
        Self { repository, plan, stack, hooks: Vec::new(), progress: None }
    }

    /// Adds a hook for a moment of the restore.
    pub fn with_hook(mut self, hook: Hook) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Tells each step to `progress`.
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Carries out the plan: checks every byte of every service that is restored, and only then touches the first store.
    /// Services are restored one after the other in the plan's order; the first failure ends it.
    ///
    /// Meanwhile it holds the lease `restore-<stack>` of the repository, so no two restores from it into a stack of this
    /// name run at once; for a backup of a stack of another name that one's too, so that no prune deletes it meanwhile.
    /// A repository that can only be read gives no lease: then a warning in the report says that
    /// nothing kept others out.
    ///
    /// # Errors
    /// `Busy` naming the holder if another restore into the stack holds the lease for 120 s; `Unsupported` if the
    /// storage can give none and [`single_writer`](crate::RepositoryOptions::single_writer) was not said; `Cancelled` if
    /// the lease could not be renewed while services were restored; `Integrity` if a byte of the backup is damaged,
    /// before any store is touched; `Incompatible` if the manifest or a target changed since the plan was made, or if
    /// the plan misses what it needs; `NotFound` for a hook of a service that the stack does not have; the error of a
    /// hook or of a provider, naming the service, with the state of its target, and with the services that are restored
    /// already.
    ///
    /// # Cancel safety
    /// Dropping the future during the checks changes nothing. Later the service that is being restored is left as its
    /// adapter says; those before it are restored, those after it untouched; hooks do not run. In a repository that is
    /// no directory the lease then keeps other processes out for 70 s.
    pub async fn run(self) -> Result<StackRestoreReport> {
        let Self { repository, plan, stack, hooks, progress } = self;
        let progress = Reporter::new(progress);
        let services: Vec<_> = plan.services.iter().map(|plan| plan.service.clone()).collect();
        let ids: Vec<_> = services.iter().collect();
        let subject = Subject { stack: stack.name().to_owned(), backup: plan.backup };
        let untouched = |e: Error| e.with_target(TargetState::Old);
        let hooks = Hooks::new(&hooks, stack, &ids, subject, progress.clone()).map_err(untouched)?;
        progress.started(Operation::Restore);
        progress.phase(ProgressPhase::Preparing, None);
        let job = Job { repository, stack, hooks, progress };
        let report = match leases(repository, &plan, stack).await {
            Ok(leases) => {
                let work = job.restore_all(plan).boxed();
                let restored = leases.iter().fold(work, |work, lease| lease.hold(work).boxed()).await;
                let restored = job.settled(restored).await;
                release(leases).await;
                restored?
            }
            // Bringing data back from a copy that nobody may write to must be possible.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                tracing::warn!(error = %error.chain(), "a restore goes on without a lease");
                let restored = Box::pin(job.restore_all(plan)).await;
                let mut report = job.settled(restored).await?;
                report.warnings.push(UNPROTECTED.to_owned());
                report
            }
            Err(error) => return Err(untouched(error)),
        };
        job.progress.phase(ProgressPhase::Done, None);
        Ok(report)
    }
}

/// Takes the leases of a restore. All take them in one order, so that no two wait for each other.
async fn leases(repository: &Repository, plan: &StackRestorePlan, stack: &Stack) -> Result<Vec<Lease>> {
    // A plan may have been stored, and changed.
    if ServiceId::new(&plan.stack).is_err() {
        return Err(changed(plan));
    }
    let stacks = BTreeSet::from([stack.name(), &plan.stack]);
    let mut leases = Vec::with_capacity(stacks.len());
    for stack in stacks {
        match Lease::acquire(repository, &restores_of(stack), "restore").await {
            Ok(lease) => leases.push(lease),
            Err(error) => {
                release(leases).await;
                return Err(error);
            }
        }
    }
    Ok(leases)
}

async fn release(leases: Vec<Lease>) {
    for lease in leases {
        if let Err(error) = lease.release().await {
            // The next restore waits until it is free by itself.
            tracing::warn!(error = %error.chain(), "the lease of a restore could not be released");
        }
    }
}

fn changed(plan: &StackRestorePlan) -> Error {
    Error::new(ErrorKind::Incompatible, "the manifest changed since the plan was made")
        .with_context("backup", plan.backup)
}

/// A restore at work.
struct Job<'a> {
    repository: &'a Repository,
    stack: &'a Stack,
    hooks: Hooks<'a>,
    progress: Reporter,
}

impl Job<'_> {
    /// Runs what always runs after a restore that failed.
    async fn settled<T>(&self, restored: Result<T>) -> Result<T> {
        if let Err(error) = &restored {
            self.hooks.ended(error).await;
        }
        restored
    }

    async fn restore_all(&self, plan: StackRestorePlan) -> Result<StackRestoreReport> {
        let untouched = |e: Error| e.with_target(TargetState::Old);
        let found = self.repository.find(&plan.backup).await.map_err(untouched)?;
        if (&found.blake3, &found.manifest.stack) != (&plan.manifest_blake3, &plan.stack) {
            return Err(untouched(changed(&plan)));
        }
        let steps = self.steps(&found, plan.services).map_err(untouched)?;
        let plain_bytes = Some(sum(&steps));
        self.progress.phase(ProgressPhase::Checking, plain_bytes);
        for step in &steps {
            self.check_service(&found, step.record).await.map_err(untouched)?;
        }
        self.hooks.run(HookPoint::BeforeRestore).await.map_err(untouched)?;
        self.progress.phase(ProgressPhase::Restoring, plain_bytes);
        let mut services: Vec<RestoreReport> = Vec::with_capacity(steps.len());
        for step in steps {
            match self.restore_one(&found, step).await {
                Ok(report) => services.push(report),
                Err(error) => return Err(after(&services, error)),
            }
        }
        let ended = self.hooks.run(HookPoint::AfterRestore).await;
        ended.map_err(|error| after(&services, error.with_target(TargetState::New)))?;
        Ok(StackRestoreReport { backup: plan.backup, services, warnings: Vec::new() })
    }

    /// Joins each plan with its record and its service; refuses what can't be carried out.
    fn steps<'b>(&self, found: &'b Found, plans: Vec<RestorePlan>) -> Result<Vec<Step<'b>>> {
        plans
            .into_iter()
            .map(|plan| {
                let record = found.manifest.service(plan.service.as_str())?;
                let service = Arc::clone(in_stack(self.stack, plan.service.as_str())?);
                provider_of(&*service, record)?;
                if !plan.missing.is_empty() {
                    return Err(Error::new(ErrorKind::Incompatible, "the plan misses what it needs")
                        .with_context("missing", plan.missing.join("; "))
                        .with_service(plan.service.clone()));
                }
                Ok(Step { plan, record, service })
            })
            .collect()
    }

    /// Checks stored and plain bytes of all artifacts of a service.
    async fn check_service(&self, found: &Found, record: &ServiceRecord) -> Result<()> {
        let (folder, level) = (&found.folder, VerifyLevel::Content);
        let check = Check { repository: self.repository, folder, level, progress: &self.progress };
        for artifact in &record.artifacts {
            let verdict = check.artifact(record, artifact, &Share::Whole, None).await?;
            if let Some(finding) = verdict.findings.first() {
                return Err(Error::integrity(format!("the backup is damaged: {finding}"))
                    .with_context("artifact", &artifact.spec.name)
                    .with_context("backup", found.manifest.id)
                    .with_service(record.id.clone()));
            }
        }
        Ok(())
    }

    async fn restore_one(&self, found: &Found, step: Step<'_>) -> Result<RestoreReport> {
        let id = step.record.id.clone();
        let before = self.hooks.run_for(HookPoint::BeforeRestore, &id).await;
        let restored = match before {
            Err(error) => Err(error.with_target(TargetState::Old)),
            Ok(()) => {
                let source = ServiceSource::new(self.repository, &found.folder, step.record);
                let source = source.with_progress(&self.progress, self.stack.clock());
                step.restore(&source, self.stack).await
            }
        };
        let restored = match restored {
            Err(error) => Err(error),
            Ok(report) => {
                let ended = self.hooks.run_for(HookPoint::AfterRestore, &id).await;
                ended.map(|()| report).map_err(|error| error.with_target(TargetState::New))
            }
        };
        match &restored {
            Ok(_) => self.progress.tell(|| ProgressEvent::Restored { service: id }),
            Err(error) => {
                self.hooks.ended_for(&id, error).await;
                self.progress.tell(|| ProgressEvent::Failed { service: id, message: error.to_string() });
            }
        }
        restored
    }
}

/// Tells what was restored before a failure.
fn after(done: &[RestoreReport], error: Error) -> Error {
    let done: Vec<_> = done.iter().map(|report| report.service.as_str()).collect();
    match done.is_empty() {
        true => error,
        false => error.with_context("restored_before", done.join(",")),
    }
}

fn sum(steps: &[Step<'_>]) -> u64 {
    let artifacts = steps.iter().flat_map(|step| &step.record.artifacts);
    artifacts.map(|artifact| artifact.plain.bytes).fold(0, u64::saturating_add)
}

/// One service of a restore.
struct Step<'a> {
    plan: RestorePlan,
    record: &'a ServiceRecord,
    service: Arc<dyn Service>,
}

impl Step<'_> {
    async fn restore(self, source: &ServiceSource, stack: &Stack) -> Result<RestoreReport> {
        let id = self.record.id.clone();
        let provider = provider_of(&*self.service, self.record)?;
        let expected = self.record.census.as_ref().map(|census| &census.value);
        let mut context = RestoreContext::new().with_clock(stack.clock().clone());
        if let Some(expected) = expected {
            context = context.with_expected(expected.clone());
        }
        let report = provider.restore(self.plan, source, &context).await.map_err(|e| e.with_service(id.clone()))?;
        match expected.and_then(|expected| difference(&report.differences(expected))) {
            None => Ok(report),
            Some(difference) => Err(Error::integrity("the restored data is not what was dumped")
                .with_context("difference", difference)
                .with_target(TargetState::New)
                .with_service(id)),
        }
    }
}
