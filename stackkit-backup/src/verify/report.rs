//! What a verify found.

use std::fmt;

use serde::{Deserialize, Serialize};
use stackkit_core::backup::{ArtifactName, Inspection};
use stackkit_core::{Error, ServiceId};

use super::{ChainFinding, DrillVerdict, EvidenceState, Sample};
use crate::id::BackupId;
use crate::manifest::{ArtifactRecord, ServiceRecord};
use crate::run::format_bytes;

/// How deep a verify looks.
///
/// Each level includes the ones before it, and costs more. At every level the manifest, its signature and the chain of
/// the stack's backups are checked too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VerifyLevel {
    /// Every object is there, with its size and the hash of its stored bytes. Needs no key, so it can run beside the
    /// storage.
    Stored,
    /// Also decrypted and decompressed: every frame's checksum, the plain size and hash; with a stack, the vendor's
    /// format. Needs an identity if the backup is encrypted.
    Content,
    /// Also restored, service by service, into scratch stores, whose census must be the one of the dump.
    Drill,
}

impl fmt::Display for VerifyLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "stored",
            Self::Content => "content",
            Self::Drill => "drill",
        })
    }
}

/// What a verify found. `Display` prints a line for each artifact and each finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The backup.
    pub backup: BackupId,
    /// The BLAKE3 of its manifest, 64 hex digits.
    pub manifest_blake3: String,
    /// How deep it was looked at.
    pub level: VerifyLevel,
    /// Which part was looked at; `None`: all of it.
    pub sample: Option<Sample>,
    /// Each artifact of the backup.
    pub artifacts: Vec<ArtifactVerdict>,
    /// What is wrong with the backup's encrypted manifest, if it has one and no identity reads it: with one, damage is an
    /// error as it is of every manifest.
    pub manifest: Vec<RepositoryFinding>,
    /// Each service that was restored into a scratch store; empty below the level drill.
    pub drills: Vec<DrillVerdict>,
    /// What is wrong with the chain of the stack's backups, as far as it is not about another backup's own manifest.
    pub chain: Vec<ChainFinding>,
    /// What is wrong with the repository's own objects; it does not keep the backup from being restored.
    pub repository: Vec<RepositoryFinding>,
    /// Whether the run left evidence.
    pub evidence: EvidenceState,
}

/// What was found of one artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArtifactVerdict {
    /// Its service.
    pub service: ServiceId,
    /// Its name.
    pub artifact: ArtifactName,
    /// Its stored bytes, as the manifest says.
    pub stored_bytes: u64,
    /// How many bytes were read and compared: stored bytes at the level stored, plain bytes at the others. Less than all
    /// in a run over a [`Sample`]; what a parser gave up on is counted whole.
    pub checked_bytes: u64,
    /// Whether the run's sample holds nothing of it.
    pub left_out: bool,
    /// What is wrong; empty if nothing was found.
    pub findings: Vec<Finding>,
    /// What the provider found in it, if one was asked.
    pub inspection: Option<Inspection>,
}

/// One damage of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// Where the damaged frame, or the frame index, begins in the object; `None` if the whole object is concerned.
    pub offset: Option<u64>,
    /// The number of the frame, from 0; `None` if no frame is concerned.
    pub frame: Option<u64>,
    /// What is wrong.
    pub message: String,
}

/// Damage of an object of the repository itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RepositoryFinding {
    /// The object.
    pub object: String,
    /// What is wrong.
    pub message: String,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.repository.is_empty() && self.chain.is_empty() && self.is_restorable()
    }

    /// Whether nothing is wrong with the backup itself, as far as was looked. The repository's own objects, and other
    /// backups of the chain, do not keep it from being restored.
    #[must_use]
    pub fn is_restorable(&self) -> bool {
        self.manifest.is_empty()
            && self.artifacts.iter().all(|artifact| artifact.findings.is_empty())
            && self.drills.iter().all(DrillVerdict::is_ok)
            && self.chain.iter().all(|finding| finding.backup != self.backup)
    }

    /// All that is wrong, one line each.
    pub(super) fn findings(&self) -> Vec<String> {
        let artifacts = self.artifacts.iter().flat_map(|verdict| {
            let named = move |found: &Finding| format!("{}/{}: {found}", verdict.service, verdict.artifact);
            verdict.findings.iter().map(named)
        });
        let drills = self.drills.iter().flat_map(|verdict| {
            let named = move |found: &String| format!("{}: {found}", verdict.service);
            verdict.findings.iter().map(named)
        });
        let chain = self.chain.iter().map(ToString::to_string);
        let objects = self.manifest.iter().chain(&self.repository);
        let objects = objects.map(|found| format!("{}: {}", found.object, found.message));
        artifacts.chain(drills).chain(chain).chain(objects).collect()
    }
}

impl ArtifactVerdict {
    pub(crate) fn new(service: &ServiceRecord, artifact: &ArtifactRecord) -> Self {
        Self {
            service: service.id.clone(),
            artifact: artifact.spec.name.clone(),
            stored_bytes: artifact.stored.bytes,
            checked_bytes: 0,
            left_out: false,
            findings: Vec::new(),
            inspection: None,
        }
    }
}

impl Finding {
    pub(crate) fn new(offset: Option<u64>, frame: Option<u64>, message: impl Into<String>) -> Self {
        Self { offset, frame, message: message.into() }
    }
}

impl RepositoryFinding {
    pub(crate) fn new(object: &str, error: &Error) -> Self {
        Self { object: object.to_owned(), message: error.to_string() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match (self.frame, self.offset) {
            (Some(frame), Some(offset)) => write!(f, " (frame {frame} at offset {offset})"),
            (None, Some(offset)) => write!(f, " (at offset {offset})"),
            (_, None) => Ok(()),
        }
    }
}

impl fmt::Display for ArtifactVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.findings.is_empty(), self.left_out) {
            (false, _) => "DAMAGED",
            (true, true) => "not in this sample",
            (true, _) => "ok",
        };
        write!(f, "  {}/{}  {}  {state}", self.service, self.artifact, format_bytes(self.stored_bytes))?;
        if let Some(inspection) = &self.inspection {
            write!(f, "  {} entries", inspection.entries)?;
        }
        writeln!(f)?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "    {finding}"))?;
        let warnings = self.inspection.iter().flat_map(|inspection| &inspection.warnings);
        warnings.into_iter().try_for_each(|warning| writeln!(f, "    warning: {warning}"))
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verify of {} ({}", self.backup, self.level)?;
        match self.sample {
            Some(sample) => writeln!(f, ", part {sample})")?,
            None => writeln!(f, ")")?,
        }
        self.artifacts.iter().try_for_each(|verdict| write!(f, "{verdict}"))?;
        self.drills.iter().try_for_each(|verdict| write!(f, "{verdict}"))?;
        self.chain.iter().try_for_each(|finding| writeln!(f, "  chain: {finding}"))?;
        self.manifest
            .iter()
            .chain(&self.repository)
            .try_for_each(|found| writeln!(f, "  {}  DAMAGED\n    {}", found.object, found.message))?;
        writeln!(f, "{}", self.evidence)?;
        f.write_str(match (self.is_ok(), self.is_restorable()) {
            (true, _) => "nothing is wrong",
            (false, true) => "the backup is whole, but its repository is damaged",
            (false, false) => "the backup or its repository is damaged",
        })
    }
}
