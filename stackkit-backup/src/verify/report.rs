//! What a verify found.

use std::fmt;

use serde::{Deserialize, Serialize};
use stackkit_core::backup::{ArtifactName, Inspection};
use stackkit_core::{Error, ServiceId};

use crate::id::BackupId;
use crate::manifest::{ArtifactRecord, ServiceRecord};
use crate::run::format_bytes;

/// How deep a verify looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VerifyLevel {
    /// Every object is there, with its size and the hash of its stored bytes.
    Stored,
    /// Also decompressed: every frame's checksum, the plain size and hash; with a stack, the vendor's format.
    Content,
}

impl fmt::Display for VerifyLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "stored",
            Self::Content => "content",
        })
    }
}

/// What a verify found. `Display` prints a line for each artifact and each finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The backup.
    pub backup: BackupId,
    /// How deep it was looked at.
    pub level: VerifyLevel,
    /// Each artifact of the backup.
    pub artifacts: Vec<ArtifactVerdict>,
    /// What is wrong with the repository's own objects; it does not keep the backup from being restored.
    pub repository: Vec<RepositoryFinding>,
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
    /// What is wrong; empty if it is whole.
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
        self.repository.is_empty() && self.artifacts.iter().all(|artifact| artifact.findings.is_empty())
    }
}

impl ArtifactVerdict {
    pub(crate) fn new(service: &ServiceRecord, artifact: &ArtifactRecord) -> Self {
        Self {
            service: service.id.clone(),
            artifact: artifact.spec.name.clone(),
            stored_bytes: artifact.stored.bytes,
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

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "verify of {} ({})", self.backup, self.level)?;
        for verdict in &self.artifacts {
            let state = if verdict.findings.is_empty() { "ok" } else { "DAMAGED" };
            let size = format_bytes(verdict.stored_bytes);
            write!(f, "  {}/{}  {size}  {state}", verdict.service, verdict.artifact)?;
            if let Some(inspection) = &verdict.inspection {
                write!(f, "  {} entries", inspection.entries)?;
            }
            writeln!(f)?;
            verdict.findings.iter().try_for_each(|finding| writeln!(f, "    {finding}"))?;
            let warnings = verdict.inspection.iter().flat_map(|inspection| &inspection.warnings);
            warnings.into_iter().try_for_each(|warning| writeln!(f, "    warning: {warning}"))?;
        }
        self.repository
            .iter()
            .try_for_each(|found| writeln!(f, "  {}  DAMAGED\n    {}", found.object, found.message))?;
        f.write_str(if self.is_ok() { "nothing is wrong" } else { "the backup or its repository is damaged" })
    }
}
