//! A restore drill: each service is restored into a scratch store, and what is there then is counted.

use std::fmt;

use serde::{Deserialize, Serialize};
use stackkit_core::backup::{
    BackupProvider, CensusDifference, OldData, RestoreContext, RestoreOptions, ScratchRequest, ScratchStore,
    ScratchStores,
};
use stackkit_core::{Error, ErrorKind, Result, ServiceId};

use super::{ArtifactVerdict, Check, Share, is_damage};
use crate::error::contained;
use crate::manifest::ServiceRecord;
use crate::progress::{ProgressEvent, ProgressPhase, Reporter};
use crate::repository::Repository;
use crate::restore::ServiceSource;
use crate::run::{format_bytes, millis};

/// Differences of a census that are told of one service. More say nothing that these don't.
const DIFFERENCES_MAX: usize = 16;

/// Whether the restored data was counted as the dump was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CensusVerdict {
    /// Every count, and every hash that both sides have, is the dump's.
    Equal,
    /// One is not.
    Different,
    /// Nothing was compared: the restore failed, or the dump has no census.
    NotCompared,
}

/// What the drill of one service found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DrillVerdict {
    /// The service.
    pub service: ServiceId,
    /// Its kind.
    pub kind: String,
    /// The plain bytes of its artifacts; 0 if they were not restored.
    pub restored_bytes: u64,
    /// From the request for a scratch store until the restored data was counted.
    pub elapsed_ms: u64,
    /// What the count says.
    pub census: CensusVerdict,
    /// What is wrong; empty if nothing is.
    pub findings: Vec<String>,
    /// What the reader should know: owners that could not be set, a scratch store that could not be removed.
    pub warnings: Vec<String>,
}

impl DrillVerdict {
    /// Whether the service came back as it was dumped.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.findings.is_empty()
    }

    fn new(record: &ServiceRecord) -> Self {
        Self {
            service: record.id.clone(),
            kind: record.kind.clone(),
            restored_bytes: 0,
            elapsed_ms: 0,
            census: CensusVerdict::NotCompared,
            findings: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn compare(&mut self, differences: &[CensusDifference]) {
        self.census = if differences.is_empty() { CensusVerdict::Equal } else { CensusVerdict::Different };
        self.findings.extend(differences.iter().take(DIFFERENCES_MAX).map(CensusDifference::to_string));
        if differences.len() > DIFFERENCES_MAX {
            self.findings.push(format!("{} more differences", differences.len() - DIFFERENCES_MAX));
        }
    }
}

impl fmt::Display for DrillVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = format_bytes(self.restored_bytes);
        write!(f, "  {}  restored {size} in {} ms, ", self.service, self.elapsed_ms)?;
        writeln!(
            f,
            "{}",
            match (self.is_ok(), self.census) {
                (true, CensusVerdict::Equal) => "the census is the dump's",
                (true, _) => "nothing to compare",
                (false, CensusVerdict::Different) => "ANOTHER CENSUS",
                (false, _) => "FAILED",
            }
        )?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "    {finding}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "    warning: {warning}"))
    }
}

/// One service of a drill.
pub(super) struct Drill<'a> {
    pub(super) repository: &'a Repository,
    pub(super) check: Check<'a>,
    pub(super) scratch: &'a dyn ScratchStores,
    pub(super) record: &'a ServiceRecord,
    pub(super) progress: &'a Reporter,
}

impl Drill<'_> {
    /// Checks the service's artifacts, with the scratch store's own provider as the vendor, and restores them if they
    /// are whole. The scratch store is closed in any case.
    ///
    /// # Errors
    /// Only if the drill could not be made: no scratch store, a server that does not answer.
    pub(super) async fn run(&self) -> Result<(Vec<ArtifactVerdict>, DrillVerdict)> {
        let clock = self.repository.clock();
        let begun = clock.instant();
        let mut request = ScratchRequest::new(self.record.kind.as_str(), self.record.id.clone());
        if let Some(vendor) = &self.record.vendor {
            request = request.with_vendor(vendor.value.clone());
        }
        let named = |e: Error| e.with_service(self.record.id.clone());
        let store = contained("open a scratch store", self.scratch.open(&request)).await.map_err(named)?;
        let drilled = self.drilled(&*store).await;
        let elapsed_ms = millis(clock.instant().saturating_duration_since(begun));
        let closed = contained("close a scratch store", store.close()).await;
        let (artifacts, mut verdict) = drilled.map_err(named)?;
        verdict.elapsed_ms = elapsed_ms;
        if let Err(error) = closed {
            verdict.warnings.push(format!("the scratch store could not be removed: {error}"));
        }
        Ok((artifacts, verdict))
    }

    async fn drilled(&self, store: &dyn ScratchStore) -> Result<(Vec<ArtifactVerdict>, DrillVerdict)> {
        let service = store.service();
        let provider = service.backup_provider().filter(|_| service.kind() == self.record.kind).ok_or_else(|| {
            Error::new(ErrorKind::Incompatible, "the scratch store can't take a dump of this kind")
                .with_context("dumped", &self.record.kind)
                .with_context("found", service.kind())
        })?;
        let mut artifacts = Vec::with_capacity(self.record.artifacts.len());
        for artifact in &self.record.artifacts {
            artifacts.push(self.check.artifact(self.record, artifact, &Share::Whole, Some(provider)).await?);
        }
        let mut verdict = DrillVerdict::new(self.record);
        if artifacts.iter().any(|artifact| !artifact.findings.is_empty()) {
            verdict.findings.push("not restored: an artifact is damaged".to_owned());
            return Ok((artifacts, verdict));
        }
        match contained("restore into a scratch store", self.restore(provider, &mut verdict)).await {
            Ok(()) => {}
            Err(error) if is_failed_restore(&error) => verdict.findings.push(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok((artifacts, verdict))
    }

    async fn restore(&self, provider: &dyn BackupProvider, verdict: &mut DrillVerdict) -> Result<()> {
        let plain_bytes = self.record.artifacts.iter().map(|artifact| artifact.plain.bytes).sum();
        self.progress.phase(ProgressPhase::Restoring, Some(plain_bytes));
        let source = ServiceSource::new(self.repository, self.check.folder, self.record);
        let source = source.with_progress(self.progress, self.repository.clock());
        let options = RestoreOptions::new().with_old_data(OldData::Remove);
        let plan = provider.plan_restore(&source, &options).await?;
        if !plan.missing.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "the scratch store misses what the restore needs")
                .with_context("missing", plan.missing.join("; ")));
        }
        let mut context = RestoreContext::new().with_clock(self.repository.clock().clone());
        if let Some(expected) = &self.record.census {
            context = context.with_expected(expected.value.clone());
        }
        let report = provider.restore(plan, &source, &context).await?;
        self.progress.tell(|| ProgressEvent::Restored { service: self.record.id.clone() });
        verdict.restored_bytes = plain_bytes;
        if let Some(expected) = &self.record.census {
            verdict.compare(&report.differences(&expected.value));
        }
        verdict.warnings = report.warnings;
        Ok(())
    }
}

/// Whether a failed restore says something of the backup, and not of the place where it was tried.
fn is_failed_restore(error: &Error) -> bool {
    let panicked = error.kind() == ErrorKind::Unexpected;
    let from_storage = error.context().any(|(key, _)| key == "object");
    panicked || (is_damage(error) && error.kind() != ErrorKind::Io) || (is_damage(error) && from_storage)
}
