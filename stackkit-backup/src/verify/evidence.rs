//! Evidence: what each verify found, kept in the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, ErrorKind, Result};

use super::{Sample, VerifyLevel};
use crate::id::BackupId;
use crate::manifest::{Extra, canonical};
use crate::repository::{BackupEntry, Repository};

/// The schema that this version writes and reads.
const SCHEMA: &str = "stackkit.evidence/1";

/// The folder of all evidence.
const VERIFY: &str = "verify";

/// Findings that a piece of evidence repeats. The report has them all.
const FINDINGS_MAX: usize = 32;

/// Documents that are read at once: enough to hide the latency of a storage in a network.
const READS_AT_ONCE: usize = 16;

/// What one verify found, as it is kept under `verify/`. `Display` prints one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evidence {
    /// `stackkit.evidence/1`.
    pub schema: String,
    /// The id of the repository.
    pub repository: String,
    /// The stack's name.
    pub stack: String,
    /// The backup that was verified.
    pub backup: BackupId,
    /// The BLAKE3 of its manifest then, 64 hex digits.
    pub manifest_blake3: String,
    /// How deep it was looked at.
    pub level: VerifyLevel,
    /// Which part was looked at; `None`: all of it.
    pub sample: Option<Sample>,
    /// When the verify began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Whether the backup was whole, as far as was looked.
    pub ok: bool,
    /// What was wrong, of the backup and of the repository, in words; at most 32.
    pub findings: Vec<String>,
    /// The name of the machine that verified, if known.
    pub host: Option<String>,
    /// The version of stackkit that verified.
    pub stackkit_version: String,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Whether a verify left evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EvidenceState {
    /// It is this object.
    Recorded(String),
    /// It is this object, and nobody who trusts keys believes it: it is not signed.
    Unsigned(String),
    /// There is none, and why: the repository can only be read, for example.
    NotRecorded(String),
}

impl fmt::Display for EvidenceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded(object) => write!(f, "evidence: {object}"),
            Self::Unsigned(object) => {
                write!(f, "evidence: {object}; it is not signed, so it counts for nothing in a signed repository")
            }
            Self::NotRecorded(reason) => write!(f, "evidence: not recorded ({reason})"),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  {}", self.finished, self.backup, self.level)?;
        if let Some(sample) = self.sample {
            write!(f, " {sample}")?;
        }
        f.write_str(if self.ok { "  ok" } else { "  DAMAGED" })
    }
}

impl Evidence {
    /// Since when every byte of the backup is known to be whole at `level` or deeper; `None`: it is not, or not any
    /// more.
    ///
    /// `evidence` is of one backup, in any order. The answer is the end of the newest run over the whole backup, or the
    /// end of the oldest of the newest runs over all parts of a [`Sample`], whichever is later. What lies before a run
    /// that found damage counts for nothing.
    ///
    /// ```no_run
    /// use stackkit_backup::{Evidence, Repository, VerifyLevel};
    /// # async fn example(repository: Repository, id: stackkit_backup::BackupId) -> stackkit_core::Result<()> {
    /// let evidence = repository.evidence(&id).await?;
    /// let week_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(7 * 24);
    /// let read_within_a_week = Evidence::whole_since(&evidence, VerifyLevel::Content) >= Some(week_ago);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn whole_since(evidence: &[Self], level: VerifyLevel) -> Option<Timestamp> {
        let mut newest_first: Vec<&Self> = evidence.iter().collect();
        // Of two that ended at once the bad one is taken for the later: nothing is believed by accident.
        newest_first.sort_by_key(|one| (std::cmp::Reverse(one.finished), one.ok));
        let mut parts: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for one in newest_first.into_iter().take_while(|one| one.ok).filter(|one| one.level >= level) {
            let Some(sample) = one.sample else { return Some(one.finished) };
            let seen = parts.entry(sample.of()).or_default();
            seen.insert(sample.part());
            if seen.len() as u64 == u64::from(sample.of()) {
                return Some(one.finished);
            }
        }
        None
    }

    /// Whether a run found damage, and no later run at its level or deeper found the whole backup good since.
    /// `evidence` is of one backup, in any order.
    #[must_use]
    pub fn tells_of_damage(evidence: &[Self]) -> bool {
        let Some(bad) = evidence.iter().filter(|one| !one.ok).max_by_key(|one| one.finished) else { return false };
        let since: Vec<Self> = evidence.iter().filter(|one| one.finished > bad.finished).cloned().collect();
        Self::whole_since(&since, bad.level).is_none()
    }
}

/// What a verify writes down.
pub(super) struct Draft<'a> {
    pub(super) stack: &'a str,
    pub(super) backup: BackupId,
    pub(super) manifest_blake3: &'a str,
    pub(super) level: VerifyLevel,
    pub(super) sample: Option<Sample>,
    pub(super) started: Timestamp,
    pub(super) ok: bool,
    pub(super) findings: Vec<String>,
}

impl Repository {
    /// What was found by all verifies of a backup, newest first. What is damaged, another backup's, or not signed by a
    /// key that is trusted (where keys are) is left out.
    ///
    /// # Errors
    /// The storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn evidence(&self, id: &BackupId) -> Result<Vec<Evidence>> {
        let folder = Path::from(VERIFY).join(id.to_string());
        let paths = self.evidence_paths(&folder).await?;
        self.evidence_at(id, paths).await
    }

    /// The newest of `entries` (newest first, as [`list`](Self::list) gives them) that is complete and was verified as
    /// a whole at the level content or drill, by its own manifest; `None`: there is none.
    ///
    /// # Errors
    /// The storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn newest_verified(&self, entries: &[BackupEntry]) -> Result<Option<BackupId>> {
        let complete = entries.iter().filter(|entry| entry.is_complete());
        let candidates = complete.map(|entry| (entry.stack.as_str(), entry.id));
        self.first_verified(&mut self.evidence_by_backup().await?, candidates).await
    }

    /// Where the evidence is, by backup: one listing.
    pub(crate) async fn evidence_by_backup(&self) -> Result<BTreeMap<BackupId, Vec<Path>>> {
        let mut evidence: BTreeMap<BackupId, Vec<Path>> = BTreeMap::new();
        for path in self.evidence_paths(&Path::from(VERIFY)).await? {
            let backup = path.parts().nth(1).and_then(|name| name.as_ref().parse().ok());
            if let Some(backup) = backup {
                evidence.entry(backup).or_default().push(path);
            }
        }
        Ok(evidence)
    }

    /// The first of some backups, by stack and id, that was verified as a whole at the level content or drill, by its own
    /// manifest. What is looked at is taken out of `evidence`.
    pub(crate) async fn first_verified(
        &self,
        evidence: &mut BTreeMap<BackupId, Vec<Path>>,
        candidates: impl Iterator<Item = (&str, BackupId)>,
    ) -> Result<Option<BackupId>> {
        for (stack, id) in candidates {
            let Some(paths) = evidence.remove(&id) else { continue };
            if self.verified_at(stack, &id, paths, VerifyLevel::Content).await?.is_some() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Since when the backup is known to be whole, by evidence of the manifest that it has.
    async fn verified_at(
        &self,
        stack: &str,
        id: &BackupId,
        paths: Vec<Path>,
        level: VerifyLevel,
    ) -> Result<Option<Timestamp>> {
        let blake3 = match self.read_manifest(stack, id).await {
            Ok(found) => found.blake3,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Integrity) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Evidence::whole_since(&self.evidence_of(stack, id, &blake3, paths).await?, level))
    }

    /// The evidence at `paths` that saw this manifest of this stack's backup, newest first.
    pub(super) async fn evidence_of(
        &self,
        stack: &str,
        id: &BackupId,
        manifest_blake3: &str,
        paths: Vec<Path>,
    ) -> Result<Vec<Evidence>> {
        let mut evidence = self.evidence_at(id, paths).await?;
        evidence.retain(|one| one.stack == stack && one.manifest_blake3 == manifest_blake3);
        Ok(evidence)
    }

    async fn evidence_paths(&self, folder: &Path) -> Result<Vec<Path>> {
        let objects = self.storage().objects("list the evidence", folder).await?;
        Ok(objects.into_iter().map(|(path, _)| path).collect())
    }

    async fn evidence_at(&self, id: &BackupId, paths: Vec<Path>) -> Result<Vec<Evidence>> {
        let reads: Vec<_> = paths.into_iter().map(|path| self.read_evidence(id, path)).collect();
        let read: Vec<_> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_collect().await?;
        let mut evidence: Vec<Evidence> = read.into_iter().flatten().collect();
        evidence.sort_by_key(|one| std::cmp::Reverse((one.finished, one.started)));
        Ok(evidence)
    }

    /// Reads a piece of evidence; `None` if it counts for nothing.
    async fn read_evidence(&self, id: &BackupId, path: Path) -> Result<Option<Evidence>> {
        let bytes = match self.storage().read("read the evidence", &path).await {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Integrity | ErrorKind::Io) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Ok((document, signer)) = canonical::open_signed(&bytes, SCHEMA) else { return Ok(None) };
        let Ok(evidence) = serde_json::from_value::<Evidence>(document) else { return Ok(None) };
        let own = evidence.backup == *id && evidence.repository == self.id() && self.believes(signer);
        Ok(own.then_some(evidence))
    }

    /// Appends evidence. What keeps it from being written is told, and is no failure of the verify.
    pub(super) async fn record_evidence(&self, draft: Draft<'_>) -> EvidenceState {
        match self.write_evidence(draft).await {
            Ok(path) if self.check_own_signature().is_err() => EvidenceState::Unsigned(path.to_string()),
            Ok(path) => EvidenceState::Recorded(path.to_string()),
            Err(error) => EvidenceState::NotRecorded(error.to_string()),
        }
    }

    async fn write_evidence(&self, draft: Draft<'_>) -> Result<Path> {
        let finished = self.clock().now();
        let more = draft.findings.len().saturating_sub(FINDINGS_MAX);
        let mut findings = draft.findings;
        if more > 0 {
            findings.truncate(FINDINGS_MAX - 1);
            findings.push(format!("{} more", more + 1));
        }
        let evidence = Evidence {
            schema: SCHEMA.to_owned(),
            repository: self.id().to_owned(),
            stack: draft.stack.to_owned(),
            backup: draft.backup,
            manifest_blake3: draft.manifest_blake3.to_owned(),
            level: draft.level,
            sample: draft.sample,
            started: draft.started,
            finished,
            ok: draft.ok,
            findings,
            host: crate::run::host(),
            stackkit_version: env!("CARGO_PKG_VERSION").to_owned(),
            extra: Extra::new(),
        };
        let document = serde_json::to_value(&evidence)
            .map_err(|e| Error::unexpected("evidence can't be written as JSON").with_source(e))?;
        let text = canonical::seal_signed(document, self.signing_key())?;
        let name = format!("{}-{:08x}.json", finished.strftime("%Y%m%dT%H%M%SZ"), fastrand::u32(..));
        let path = Path::from(VERIFY).join(draft.backup.to_string()).join(name);
        self.storage().create("record the evidence", &path, text.into()).await?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(second: i64, level: VerifyLevel, sample: Option<&str>, ok: bool) -> Evidence {
        let at = Timestamp::from_second(second).unwrap();
        Evidence {
            schema: SCHEMA.to_owned(),
            repository: String::new(),
            stack: "shop".to_owned(),
            backup: "20261121T061530Z-9f3a1c02".parse().unwrap(),
            manifest_blake3: String::new(),
            level,
            sample: sample.map(|sample| sample.parse().unwrap()),
            started: at,
            finished: at,
            ok,
            findings: Vec::new(),
            host: None,
            stackkit_version: String::new(),
            extra: Extra::new(),
        }
    }

    fn since(evidence: &[Evidence], level: VerifyLevel) -> Option<i64> {
        Evidence::whole_since(evidence, level).map(Timestamp::as_second)
    }

    #[test]
    fn parts_add_up_and_damage_ends_what_was_known() {
        use VerifyLevel::{Content, Drill, Stored};
        assert_eq!(since(&[], Stored), None);
        let parts = [one(1, Content, Some("1/3"), true), one(2, Content, Some("2/3"), true)];
        assert_eq!(since(&parts, Content), None);
        let all = [&parts[..], &[one(3, Content, Some("3/3"), true), one(4, Content, Some("2/3"), true)]].concat();
        assert_eq!(since(&all, Content), Some(1));
        assert_eq!(since(&all, Drill), None);
        // Parts of another cut do not help.
        assert_eq!(since(&[&parts[..], &[one(3, Content, Some("3/4"), true)]].concat(), Content), None);
        // Deeper counts for what is less deep, and a later whole run counts for more.
        let drilled = [&all[..], &[one(9, Drill, None, true)]].concat();
        assert_eq!((since(&drilled, Stored), since(&drilled, Drill)), (Some(9), Some(9)));
        let damaged = [&drilled[..], &[one(10, Stored, Some("1/9"), false)]].concat();
        assert_eq!(since(&damaged, Stored), None);
        let mended = [&damaged[..], &[one(11, Stored, None, true)]].concat();
        assert_eq!((since(&mended, Stored), since(&mended, Content)), (Some(11), None));
        let tells = [&drilled[..], &damaged, &mended].map(Evidence::tells_of_damage);
        assert_eq!(tells, [false, true, false]);
        let deep = [one(1, Content, None, false), one(2, Stored, None, true), one(3, Content, Some("1/2"), true)];
        assert!(Evidence::tells_of_damage(&deep));
        let both = [one(5, Content, None, true), one(5, Content, None, false)];
        assert_eq!(since(&both, Content), None);
    }
}
