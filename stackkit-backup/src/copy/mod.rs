//! Copies backups to another repository: byte for byte, for a second location or for cold storage.

mod origin;
mod report;
mod transfer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use stackkit_core::{Error, ErrorKind, Result};

pub(crate) use origin::Origins;
pub use report::{CopiedBackup, CopyOutcome, CopyReport};

use self::transfer::{Failure, Transfer};
use crate::id::BackupId;
use crate::progress::{Operation, Progress, ProgressPhase, Reporter};
use crate::repository::{BackupEntry, EntryState, MANIFEST, Repository, folder_of, is_unusable};
use crate::retention::{Announcement, record_of};

/// A copy that is being prepared: see [`Repository::copy_to`].
#[must_use = "a copy does nothing until it is run"]
pub struct CopyRun<'a> {
    source: &'a Repository,
    target: &'a Repository,
    only: Option<Vec<BackupId>>,
    stack: Option<String>,
    latest: Option<usize>,
    progress: Option<Arc<dyn Progress>>,
}

impl fmt::Debug for CopyRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyRun")
            .field("source", &self.source.id())
            .field("target", &self.target.id())
            .field("only", &self.only)
            .field("stack", &self.stack)
            .field("latest", &self.latest)
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Prepares a copy of backups to `target`; [`CopyRun::run`] makes it. All of them, unless some are chosen.
    ///
    /// ```no_run
    /// # async fn example(here: stackkit_backup::Repository, there: stackkit_backup::Repository)
    /// # -> stackkit_core::Result<()> {
    /// let report = here.copy_to(&there).stack("shop").latest(7).run().await?;
    /// println!("{report}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn copy_to<'a>(&'a self, target: &'a Self) -> CopyRun<'a> {
        CopyRun { source: self, target, only: None, stack: None, latest: None, progress: None }
    }
}

/// A backup that was chosen.
struct Chosen {
    id: BackupId,
    stack: String,
    /// What keeps it from being copied, if that is known already.
    finding: Option<String>,
}

impl<'a> CopyRun<'a> {
    /// Copies only the backups with these ids. One that was deleted at the target by retention is brought again.
    pub fn only(mut self, ids: impl IntoIterator<Item = BackupId>) -> Self {
        self.only = Some(ids.into_iter().collect());
        self
    }

    /// Copies only backups of this stack.
    pub fn stack(mut self, name: impl Into<String>) -> Self {
        self.stack = Some(name.into());
        self
    }

    /// Copies only the newest `count` complete backups of each stack. Partial ones do not count and are not copied.
    pub fn latest(mut self, count: usize) -> Self {
        self.latest = Some(count);
        self
    }

    /// Tells each step to `progress`. Bytes are counted for each backup from 0.
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Makes the copy, the oldest backup first. Stored bytes are copied as they are: nothing is encrypted anew, so whoever
    /// could read a backup can read its copy, whatever the recipients of the target are. Every byte is checked on its
    /// way against the manifest, and a backup exists at the target only when all of it is there. Evidence of verifies is
    /// not copied: it tells of other bytes.
    ///
    /// A backup that was locked against deletion is locked until the same time at a target that has locks. While a copy
    /// gets its manifest, the lease of a prune of the target is held.
    ///
    /// A backup that is damaged, or that the target may not have, is refused in the report, and the others are copied;
    /// ask [`CopyReport::is_ok`]. An interrupted copy is made again: what is at the target already is read there, checked
    /// and not copied twice. Fragments of a backup that never got its manifest are no backup, and are removed by a
    /// garbage collection of the target.
    ///
    /// # Errors
    /// `Busy` if the target is being pruned for more than an hour; `Config` if source and target are the same repository, or if the target trusts keys and has none to sign the
    /// record of its copies with; `NotFound` for an id that the source does not have; the storages' kinds: those of the
    /// target at once, those of the source if they do not concern one backup only.
    ///
    /// # Cancel safety
    /// Dropping the future leaves what is copied. No backup is there in part: it can be made again.
    pub async fn run(self) -> Result<CopyReport> {
        if self.source.id() == self.target.id() {
            return Err(Error::config("source and target are the same repository").with_context("id", self.target.id()));
        }
        let reporter = Reporter::new(self.progress.clone());
        reporter.started(Operation::Copy);
        reporter.phase(ProgressPhase::Preparing, None);
        let mut report = CopyReport {
            source: self.source.id().to_owned(),
            target: self.target.id().to_owned(),
            backups: Vec::new(),
        };
        for Chosen { id: backup, stack, finding } in self.chosen().await? {
            let outcome = match finding {
                Some(finding) => CopyOutcome::Refused { finding },
                None => Box::pin(self.copy(&backup, &stack, &reporter)).await?,
            };
            report.backups.push(CopiedBackup { backup, stack, outcome });
        }
        reporter.phase(ProgressPhase::Done, None);
        Ok(report)
    }

    /// What is to be copied, the oldest first.
    async fn chosen(&self) -> Result<Vec<Chosen>> {
        let mut entries = self.source.list_all().await?;
        entries.retain(|entry| self.stack.as_ref().is_none_or(|stack| entry.stack == *stack));
        if let Some(only) = &self.only {
            entries.retain(|entry| only.contains(&entry.id));
            if let Some(missing) = only.iter().find(|id| !entries.iter().any(|entry| entry.id == **id)) {
                return Err(Error::new(ErrorKind::NotFound, "the repository has no such backup")
                    .with_context("backup", missing));
            }
        }
        // The newest are the first here.
        let mut counts = BTreeMap::<String, usize>::new();
        entries.retain(|entry| {
            let Some(latest) = self.latest else { return true };
            let count = counts.entry(entry.stack.clone()).or_default();
            *count += usize::from(entry.is_complete());
            entry.is_complete() && *count <= latest
        });
        let chosen = entries.into_iter().rev().filter_map(|entry| self.choose(entry));
        Ok(chosen.collect())
    }

    fn choose(&self, entry: BackupEntry) -> Option<Chosen> {
        let finding = match (entry.state, &self.only) {
            (EntryState::Ready(_), _) => None,
            (EntryState::Damaged(error), _) => Some(error.to_string()),
            (EntryState::Announced(_), Some(_)) => Some("its deletion is announced".to_owned()),
            (EntryState::Incomplete, Some(_)) => Some("it has no manifest: it runs, or was interrupted".to_owned()),
            (_, None) => return None,
        };
        Some(Chosen { id: entry.id, stack: entry.stack, finding })
    }

    async fn copy(&self, id: &BackupId, stack: &str, reporter: &Reporter) -> Result<CopyOutcome> {
        let refused = |error: Error| Ok(CopyOutcome::Refused { finding: error.to_string() });
        let transfer = match self.open(id, stack, reporter).await {
            Ok(transfer) => transfer,
            Err(error) if is_unusable(&error) => return refused(error),
            Err(error) => return Err(error),
        };
        if let Some(outcome) = self.known(id, stack, &transfer).await? {
            return Ok(outcome);
        }
        match transfer.run().await {
            Ok(outcome) => Ok(outcome),
            Err(Failure::Source(error)) if is_unusable(&error) => refused(error),
            Err(Failure::Source(error) | Failure::Target(error)) => Err(error.with_context("backup", id)),
        }
    }

    /// Reads a backup's manifest, and asks both sides whether they believe it.
    async fn open<'b>(&'b self, id: &BackupId, stack: &str, reporter: &'b Reporter) -> Result<Transfer<'b>> {
        let raw = self.source.fetch_manifest(stack, id).await?;
        let found = self.source.check_manifest(stack, id, &raw)?;
        self.source.check_origin(&found).await?;
        self.source.trust().accept(found.signature, self.source.marker().is_signed())?;
        let there = self.target.check_manifest(stack, id, &raw)?;
        if self.target.trust().refuses_in_lists(there.signature) {
            return Err(Error::integrity("no key that the target trusts signed it"));
        }
        let open = found.manifest.artifacts().any(|(_, artifact)| !artifact.encryption.is_encrypted());
        if open && self.target.marker().is_encrypted() {
            return Err(Error::new(
                ErrorKind::Incompatible,
                "it is not encrypted, and the target was made for encrypted backups",
            ));
        }
        Ok(Transfer { source: self.source, target: self.target, found, raw, reporter })
    }

    /// What the target knows of the backup already.
    async fn known(&self, id: &BackupId, stack: &str, transfer: &Transfer<'_>) -> Result<Option<CopyOutcome>> {
        let path = folder_of(stack, id).join(MANIFEST);
        match self.target.storage().read("read the manifest", &path).await {
            Ok(manifest) if manifest == transfer.raw.manifest => {
                // A manifest without the record is what somebody else's copy left; now it is meant.
                self.target.accept_from(&transfer.found.manifest.repository).await?;
                // An earlier copy may have ended before its last step.
                transfer.lock_documents().await?;
                let announcement = self.target.announcement(&transfer.found).await?;
                if self.only.is_some() && matches!(announcement, Announcement::PurgeAfter(_)) {
                    let finding = "it is there, and its deletion is announced: undelete it".to_owned();
                    return Ok(Some(CopyOutcome::Refused { finding }));
                }
                return Ok(Some(CopyOutcome::AlreadyThere));
            }
            Ok(_) => {
                let finding = "the target has another backup of this id".to_owned();
                return Ok(Some(CopyOutcome::Refused { finding }));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if self.only.is_some() {
            return Ok(None);
        }
        let record = record_of(stack, id);
        match self.target.storage().size_bytes("look for the record of a deleted backup", &record).await {
            Ok(_) => Ok(Some(CopyOutcome::Pruned)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
