//! Restore: a plan that says what is overwritten, then its application. No store is touched before every byte that
//! is needed has been checked.

mod plan;
mod source;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stackkit_core::backup::{
    ArtifactSource, BackupProvider, CensusDifference, RestoreContext, RestoreOptions, RestorePlan, RestoreReport,
    TargetState,
};
use stackkit_core::{Error, ErrorKind, Result, Service, Stack};

pub use plan::StackRestorePlan;
pub(crate) use source::ServiceSource;

use crate::id::BackupId;
use crate::lease::Lease;
use crate::manifest::ServiceRecord;
use crate::repository::{Found, Repository};
use crate::verify::{Check, Share, VerifyLevel};

/// What a report says if no lease could be had.
const UNPROTECTED: &str =
    "the repository can only be read, so nothing kept another restore into this stack from running at the same time";

/// What a restore did, service by service, in the order in which it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StackRestoreReport {
    /// The backup that was restored.
    pub backup: BackupId,
    /// What each provider reports. Each census agrees with the one of the dump.
    pub services: Vec<RestoreReport>,
    /// What the reader should know of the restore as a whole.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl fmt::Display for StackRestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "restored backup {}", self.backup)?;
        for report in &self.services {
            write!(f, "\n  {}: the census agrees with the dump", report.service)?;
            if let Some(kept) = &report.old_data_kept_as {
                write!(f, "; replaced data is kept as {kept}")?;
            }
            report.warnings.iter().try_for_each(|warning| write!(f, "\n    warning: {warning}"))?;
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\n  warning: {warning}"))
    }
}

impl Repository {
    /// The artifacts of one service in a backup, for a reader of its own.
    ///
    /// # Errors
    /// `NotFound` if the backup has no such service, or if its dump failed; otherwise as
    /// [`manifest`](Self::manifest).
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn source(&self, id: &BackupId, service: &str) -> Result<Box<dyn ArtifactSource>> {
        let found = self.find(id).await?;
        let record = found.manifest.service(service)?;
        Ok(Box::new(ServiceSource::new(self, &found.folder, record)))
    }

    /// Says what a restore would do. Changes nothing.
    ///
    /// # Errors
    /// `NotFound` if the backup does not exist, or for a service of `options.only` that the backup or the stack does
    /// not have; `Incompatible` if a service is of another kind than its dump; `Unsupported` if it can't be restored;
    /// the providers' kinds, each naming its service; the storage's.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn plan_restore(
        &self,
        id: &BackupId,
        stack: &Stack,
        options: &RestoreOptions,
    ) -> Result<StackRestorePlan> {
        let found = self.find(id).await?;
        let (chosen, skipped) = choose(&found, stack, options)?;
        let mut services = Vec::with_capacity(chosen.len());
        for (record, service) in chosen {
            let source = ServiceSource::new(self, &found.folder, record);
            let plan = provider_of(&**service, record)?.plan_restore(&source, options).await;
            services.push(plan.map_err(|e| e.with_service(record.id.clone()))?);
        }
        Ok(StackRestorePlan {
            backup: *id,
            stack: found.manifest.stack,
            manifest_blake3: found.blake3,
            services,
            skipped,
        })
    }

    /// Carries out a plan: checks every byte of every service that is restored, and only then touches the first store.
    /// Services are restored one after the other in the plan's order; the first failure ends it.
    ///
    /// Meanwhile it holds the lease `restore-<stack>` of the repository, so no two restores from it into a stack of this
    /// name run at once. A repository that can only be read gives no lease: then a warning in the report says that
    /// nothing kept others out.
    ///
    /// # Errors
    /// `Busy` naming the holder if another restore into the stack holds the lease for 120 s; `Unsupported` if the
    /// storage can give none and [`single_writer`](crate::RepositoryOptions::single_writer) was not said; `Cancelled` if
    /// the lease could not be renewed while services were restored; `Integrity` if a byte of the backup is damaged,
    /// before any store is touched; `Incompatible` if the manifest or a target changed since the plan was made, or if
    /// the plan misses what it needs; the provider's error, naming the service, with the state of its target, and with
    /// the services that are restored already.
    ///
    /// # Cancel safety
    /// Dropping the future during the checks changes nothing. Later the service that is being restored is left as its
    /// adapter says; those before it are restored, those after it untouched. In a
    /// repository that is no directory the lease then keeps other processes out for 70 s.
    pub async fn apply_restore(&self, plan: StackRestorePlan, stack: &Stack) -> Result<StackRestoreReport> {
        let name = format!("restore-{}", stack.name());
        let lease = match Lease::acquire(self, &name, "restore").await {
            Ok(lease) => lease,
            // Bringing data back from a copy that nobody may write to must be possible.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                tracing::warn!(error = %error.chain(), "a restore goes on without a lease");
                let mut report = Box::pin(self.restore_all(plan, stack)).await?;
                report.warnings.push(UNPROTECTED.to_owned());
                return Ok(report);
            }
            Err(error) => return Err(error.with_target(TargetState::Old)),
        };
        let restored = lease.hold(Box::pin(self.restore_all(plan, stack))).await;
        if let Err(error) = lease.release().await {
            // The next restore waits until it is free by itself.
            tracing::warn!(error = %error.chain(), "the lease of a restore could not be released");
        }
        restored
    }

    async fn restore_all(&self, plan: StackRestorePlan, stack: &Stack) -> Result<StackRestoreReport> {
        let untouched = |e: Error| e.with_target(TargetState::Old);
        let found = self.find(&plan.backup).await.map_err(untouched)?;
        if found.blake3 != plan.manifest_blake3 {
            let changed = Error::new(ErrorKind::Incompatible, "the manifest changed since the plan was made");
            return Err(untouched(changed.with_context("backup", plan.backup)));
        }
        let steps = self.steps(&found, plan.services, stack).map_err(untouched)?;
        for step in &steps {
            self.check_service(&found, step.record).await.map_err(untouched)?;
        }
        let mut services: Vec<RestoreReport> = Vec::with_capacity(steps.len());
        for step in steps {
            let source = ServiceSource::new(self, &found.folder, step.record);
            match step.restore(&source, stack).await {
                Ok(report) => services.push(report),
                Err(error) => {
                    let done: Vec<_> = services.iter().map(|report| report.service.as_str()).collect();
                    return Err(match done.is_empty() {
                        true => error,
                        false => error.with_context("restored_before", done.join(",")),
                    });
                }
            }
        }
        Ok(StackRestoreReport { backup: plan.backup, services, warnings: Vec::new() })
    }

    /// Joins each plan with its record and its service; refuses what can't be carried out.
    fn steps<'a>(&self, found: &'a Found, plans: Vec<RestorePlan>, stack: &Stack) -> Result<Vec<Step<'a>>> {
        plans
            .into_iter()
            .map(|plan| {
                let record = found.manifest.service(plan.service.as_str())?;
                let service = Arc::clone(in_stack(stack, plan.service.as_str())?);
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
        let check = Check { repository: self, folder: &found.folder, level: VerifyLevel::Content };
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

fn difference(differences: &[CensusDifference]) -> Option<String> {
    let first = differences.first()?;
    match differences.len() {
        1 => Some(first.to_string()),
        more => Some(format!("{first}, and {} more", more - 1)),
    }
}

type Chosen<'a> = Vec<(&'a ServiceRecord, &'a Arc<dyn Service>)>;

/// The services to restore, in the order of the backup, and what is left out.
fn choose<'a>(found: &'a Found, stack: &'a Stack, options: &RestoreOptions) -> Result<(Chosen<'a>, Vec<String>)> {
    // What was asked for by name must be there.
    for id in options.only.iter().flatten() {
        found.manifest.service(id)?;
        in_stack(stack, id)?;
    }
    let (mut chosen, mut skipped) = (Vec::new(), Vec::new());
    for record in &found.manifest.services {
        let why = match stack.service(record.id.as_str()) {
            _ if !options.includes(record.id.as_str()) => "not asked for",
            _ if record.error.is_some() => "its dump failed",
            None => "the stack has no such service",
            Some(service) => {
                chosen.push((record, service));
                continue;
            }
        };
        skipped.push(format!("{}: {why}", record.id));
    }
    match chosen.is_empty() {
        false => Ok((chosen, skipped)),
        true => Err(Error::new(ErrorKind::NotFound, "the backup and the stack have no service in common")
            .with_context("backup", found.manifest.id)
            .with_context("stack", stack.name())),
    }
}

fn in_stack<'a>(stack: &'a Stack, id: &str) -> Result<&'a Arc<dyn Service>> {
    stack.service(id).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the stack has no such service")
            .with_context("service", id)
            .with_context("stack", stack.name())
    })
}

fn provider_of<'a>(service: &'a dyn Service, record: &ServiceRecord) -> Result<&'a dyn BackupProvider> {
    if service.kind() != record.kind {
        return Err(Error::new(ErrorKind::Incompatible, "the service is of another kind than its dump")
            .with_context("dumped", &record.kind)
            .with_context("found", service.kind())
            .with_service(record.id.clone()));
    }
    service.backup_provider().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "the service can't be restored").with_service(record.id.clone())
    })
}
