//! Restore: a plan that says what is overwritten, then its application. No store is touched before every byte that
//! is needed has been checked.

mod plan;
mod run;
mod source;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stackkit_core::backup::{ArtifactSource, BackupProvider, CensusDifference, RestoreOptions, RestoreReport};
use stackkit_core::{Error, ErrorKind, OneLine, Result, Service, Stack};

pub use plan::StackRestorePlan;
pub use run::RestoreRun;
pub(crate) use source::ServiceSource;

use crate::id::BackupId;
use crate::manifest::ServiceRecord;
use crate::repository::{Found, Repository};

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
            let agrees = if report.is_part { "what was chosen is restored" } else { "the census agrees with the dump" };
            write!(f, "\n  {}: {agrees}", report.service)?;
            if let Some(kept) = &report.old_data_kept_as {
                write!(f, "; replaced data is kept as {}", OneLine(kept))?;
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

    /// Prepares to carry out a plan; [`RestoreRun::run`] does it.
    pub fn restore<'a>(&'a self, plan: StackRestorePlan, stack: &'a Stack) -> RestoreRun<'a> {
        RestoreRun::new(self, plan, stack)
    }

    /// Carries out a plan without hooks and without telling its progress: see [`restore`](Self::restore).
    ///
    /// # Errors
    /// As [`RestoreRun::run`].
    ///
    /// # Cancel safety
    /// As [`RestoreRun::run`].
    pub async fn apply_restore(&self, plan: StackRestorePlan, stack: &Stack) -> Result<StackRestoreReport> {
        self.restore(plan, stack).run().await
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
