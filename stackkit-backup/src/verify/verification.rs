//! A verify with its options.

use std::fmt;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use stackkit_core::backup::{BackupProvider, ScratchStores};
use stackkit_core::{Error, Result, Stack};

use super::drill::Drill;
use super::evidence::Draft;
use super::sample::shares;
use super::{
    ArtifactVerdict, ChainFault, ChainFinding, ChainHead, Check, DrillVerdict, EvidenceState, RepositoryFinding,
    Sample, VerifyLevel, VerifyReport, is_damage,
};
use crate::id::BackupId;
use crate::manifest::{SEALED_MANIFEST, ServiceRecord};
use crate::progress::{Operation, Progress, ProgressPhase, Reporter};
use crate::repository::{Found, Marker, Repository};

/// Artifacts that are checked at once: one is read while another is decompressed.
const ARTIFACTS_AT_ONCE: usize = 2;

/// A check of one backup that is being prepared: see [`Repository::verification`].
///
/// ```no_run
/// use stackkit_backup::{BackupId, Repository, Sample, VerifyLevel};
/// # async fn example(repository: Repository, id: BackupId, stack: &stackkit_core::Stack,
/// #     scratch: &dyn stackkit_core::backup::ScratchStores) -> stackkit_core::Result<()> {
/// // Every night a seventh, without the stack: every byte is read in a week.
/// let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
/// println!("{}", repository.verification(&id).sample(Sample::of_day(today, 7)?).run().await?);
///
/// // Once a month a restore into scratch stores.
/// let report = repository.verification(&id).level(VerifyLevel::Drill).with_scratch(scratch).run().await?;
/// assert!(report.is_restorable(), "{report}");
/// # Ok(())
/// # }
/// ```
#[must_use = "a verification does nothing until it is run"]
pub struct Verification<'a> {
    repository: &'a Repository,
    id: BackupId,
    level: VerifyLevel,
    stack: Option<&'a Stack>,
    scratch: Option<&'a dyn ScratchStores>,
    sample: Option<Sample>,
    known_head: Option<&'a ChainHead>,
    progress: Reporter,
}

impl fmt::Debug for Verification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification")
            .field("id", &self.id)
            .field("level", &self.level)
            .field("stack", &self.stack.map(Stack::name))
            .field("scratch", &self.scratch)
            .field("sample", &self.sample)
            .field("known_head", &self.known_head)
            .finish_non_exhaustive()
    }
}

impl<'a> Verification<'a> {
    pub(super) fn new(repository: &'a Repository, id: BackupId) -> Self {
        let level = VerifyLevel::Content;
        let (stack, scratch, sample, known_head, progress) = (None, None, None, None, Reporter::default());
        Self { repository, id, level, stack, scratch, sample, known_head, progress }
    }

    /// Sets how deep it looks; [`VerifyLevel::Content`] unless set.
    pub fn level(mut self, level: VerifyLevel) -> Self {
        self.level = level;
        self
    }

    /// Lets the providers of `stack` parse their artifacts at the level content, as the vendor would. Not for a sample:
    /// a parser needs all of an artifact.
    pub fn with_stack(mut self, stack: &'a Stack) -> Self {
        self.stack = Some(stack);
        self
    }

    /// Sets where a drill restores to. Needed at the level drill, unused at the others.
    pub fn with_scratch(mut self, scratch: &'a dyn ScratchStores) -> Self {
        self.scratch = Some(scratch);
        self
    }

    /// Reads only a part of the backup. Not for a drill, which restores all of it.
    pub fn sample(mut self, sample: Sample) -> Self {
        self.sample = Some(sample);
        self
    }

    /// Expects the chain to hold the backup that was its newest at an earlier look: see [`ChainHead`].
    pub fn with_known_head(mut self, head: &'a ChainHead) -> Self {
        self.known_head = Some(head);
        self
    }

    /// Tells each step to `progress`. Bytes are stored ones at the level stored, and plain ones at the others; at the
    /// level drill they are counted for each service from 0.
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Reporter::new(Some(progress));
        self
    }

    /// Makes the check and leaves evidence of it, whatever it finds.
    ///
    /// # Errors
    /// As [`Repository::verify`]; `Config` for a drill without scratch stores or with a sample; for a drill also what
    /// kept a scratch store from being made or filled, naming the service.
    ///
    /// # Cancel safety
    /// Cancel safe: then no evidence is left, and scratch stores are removed.
    pub async fn run(self) -> Result<VerifyReport> {
        let scratch = self.scratch_of_a_drill()?;
        let started = self.repository.clock().now();
        self.progress.started(Operation::Verify);
        self.progress.phase(ProgressPhase::Preparing, None);
        let found = self.repository.find(&self.id).await?;
        let chain = self.chain(&found.manifest.stack).await?;
        let (artifacts, drills) = match scratch {
            None => (self.artifacts(&found).await?, Vec::new()),
            Some(scratch) => self.drills(&found, scratch).await?,
        };
        let repository = Marker::check(self.repository.storage()).await;
        let repository = repository.into_iter().map(|(object, error)| RepositoryFinding::new(object, &error));
        let mut report = VerifyReport {
            backup: self.id,
            manifest_blake3: found.blake3.clone(),
            level: self.level,
            sample: self.sample,
            artifacts,
            manifest: self.sealed(&found).await?,
            drills,
            chain,
            repository: repository.collect(),
            evidence: EvidenceState::NotRecorded("the verify has not ended".to_owned()),
        };
        report.evidence = self
            .repository
            .record_evidence(Draft {
                stack: &found.manifest.stack,
                backup: self.id,
                manifest_blake3: &report.manifest_blake3,
                level: self.level,
                sample: self.sample,
                started,
                ok: report.is_restorable(),
                findings: report.findings(),
            })
            .await;
        self.progress.phase(ProgressPhase::Done, None);
        Ok(report)
    }

    fn scratch_of_a_drill(&self) -> Result<Option<&'a dyn ScratchStores>> {
        match (self.level, self.scratch, self.sample) {
            (VerifyLevel::Drill, None, _) => Err(Error::config(
                "a drill needs scratch stores: say them by `repository.verification(&id).with_scratch(…)`",
            )),
            (VerifyLevel::Drill, Some(_), Some(_)) => {
                Err(Error::config("a drill restores all of a backup, so it can't look at a sample"))
            }
            (VerifyLevel::Drill, scratch, None) => Ok(scratch),
            _ => Ok(None),
        }
    }

    /// What is wrong with the chain. A manifest of another backup that can't be used breaks no link of this one, and a
    /// listing shows it.
    async fn chain(&self, stack: &str) -> Result<Vec<ChainFinding>> {
        let mut findings = self.repository.check_chain(stack, self.known_head).await?.findings;
        findings.retain(|finding| finding.backup == self.id || finding.fault != ChainFault::Damaged);
        Ok(findings)
    }

    /// Compares the encrypted manifest, which nobody could read here, with its hash.
    async fn sealed(&self, found: &Found) -> Result<Vec<RepositoryFinding>> {
        match self.repository.check_sealed(found).await {
            Ok(()) => Ok(Vec::new()),
            Err(error) if is_damage(&error) => {
                let path = found.folder.clone().join(SEALED_MANIFEST);
                Ok(vec![RepositoryFinding::new(path.as_ref(), &error)])
            }
            Err(error) => Err(error),
        }
    }

    fn check<'b>(&'b self, found: &'b Found) -> Check<'b> {
        Check { repository: self.repository, folder: &found.folder, level: self.level, progress: &self.progress }
    }

    async fn artifacts(&self, found: &Found) -> Result<Vec<ArtifactVerdict>> {
        let check = self.check(found);
        let shares = shares(&found.manifest, self.level, self.sample);
        let planned = found.manifest.artifacts().zip(&shares);
        let expected = planned.map(|((_, artifact), share)| check.expected_bytes(artifact, share)).sum();
        self.progress.phase(ProgressPhase::Checking, Some(expected));
        // The futures are made beforehand: a closure in the stream would keep the whole from being spawned.
        let checks: Vec<_> = found
            .manifest
            .artifacts()
            .zip(&shares)
            .map(|((service, artifact), share)| check.artifact(service, artifact, share, self.provider(service)))
            .collect();
        stream::iter(checks).buffered(ARTIFACTS_AT_ONCE).try_collect().await
    }

    fn provider(&self, record: &ServiceRecord) -> Option<&'a dyn BackupProvider> {
        let service = self.stack?.service(record.id.as_str())?;
        // A service of another kind does not know the artifact's format.
        if service.kind() == record.kind { service.backup_provider() } else { None }
    }

    /// One service after the other: a scratch store may take as much room as the original.
    async fn drills(
        &self,
        found: &Found,
        scratch: &dyn ScratchStores,
    ) -> Result<(Vec<ArtifactVerdict>, Vec<DrillVerdict>)> {
        let (mut artifacts, mut drills) = (Vec::new(), Vec::new());
        for record in found.manifest.services.iter().filter(|record| record.error.is_none()) {
            let expected = record.artifacts.iter().map(|artifact| artifact.plain.bytes).sum();
            self.progress.phase(ProgressPhase::Checking, Some(expected));
            let (repository, progress) = (self.repository, &self.progress);
            let drill = Drill { repository, check: self.check(found), scratch, record, progress };
            let (checked, verdict) = drill.run().await?;
            artifacts.extend(checked);
            drills.push(verdict);
        }
        Ok((artifacts, drills))
    }
}
