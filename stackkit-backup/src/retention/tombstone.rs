//! The announcement of a deletion, and the record of one.

use jiff::Timestamp;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, ErrorKind, Result};

use super::planner::Announcement;
use crate::id::BackupId;
use crate::manifest::{Extra, Previous, canonical};
use crate::repository::{Found, Repository, TOMBSTONE, folder_of};

/// The schema of both.
pub(crate) const TOMBSTONE_SCHEMA: &str = "stackkit.tombstone/1";

/// The folder of the records of deleted backups.
const PRUNED: &str = "pruned";

/// What `tombstone.json` says: that a backup will be deleted. The record of a deleted backup has the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    pub(crate) schema: String,
    pub(crate) repository: String,
    pub(crate) stack: String,
    pub(crate) id: BackupId,
    /// The manifest of the backup. Another backup that takes the place of this one is not deleted.
    pub(crate) manifest_blake3: String,
    /// The backup before it: so the chain of a stack can be followed past it when it is gone.
    pub(crate) prev: Option<Previous>,
    pub(crate) announced: Timestamp,
    /// When it may be deleted, by the clock of whoever does.
    pub(crate) purge_after: Timestamp,
    /// Why, for people.
    pub(crate) reasons: Vec<String>,
    pub(crate) stackkit_version: String,
    #[serde(flatten)]
    pub(crate) extra: Extra,
}

/// What is at the place of a tombstone.
pub(crate) enum FoundTombstone {
    Nothing,
    /// A tombstone that can be believed, and its bytes.
    Usable(Box<Tombstone>, bytes::Bytes),
    /// Something that can't, and why.
    Unusable(String),
}

/// Where the record of a deleted backup is.
pub(crate) fn record_of(stack: &str, id: &BackupId) -> Path {
    Path::from(PRUNED).join(stack).join(format!("{id}.json"))
}

/// Reads a tombstone and writes it again, for a fuzzer.
#[cfg(any(fuzzing, test))]
pub(crate) fn rewrite_tombstone(bytes: &[u8]) -> Option<String> {
    let (document, _) = canonical::open_signed(bytes, TOMBSTONE_SCHEMA).ok()?;
    let tombstone: Tombstone = serde_json::from_value(document).ok()?;
    canonical::seal_signed(serde_json::to_value(&tombstone).ok()?, None).ok()
}

impl Repository {
    /// Writes a tombstone, signed if the repository has a signing key, unless there is one already. What is there then
    /// is returned.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(super) async fn announce(&self, tombstone: &Tombstone) -> Result<FoundTombstone> {
        let document = serde_json::to_value(tombstone)
            .map_err(|e| Error::unexpected("a tombstone can't be written as JSON").with_source(e))?;
        let text = canonical::seal_signed(document, self.signing_key())?;
        let (path, bytes) = (folder_of(&tombstone.stack, &tombstone.id).join(TOMBSTONE), bytes::Bytes::from(text));
        match self.storage().create("announce a deletion", &path, bytes.clone()).await {
            Ok(()) => Ok(FoundTombstone::Usable(Box::new(tombstone.clone()), bytes)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.tombstone(&tombstone.stack, &tombstone.id).await
            }
            Err(error) => Err(error),
        }
    }

    /// Announces that what a backup left that did not end will be deleted: it may still be running, and looks for this
    /// when its manifest is written. Whatever is there already says the same.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn claim_unfinished(&self, stack: &str, id: &BackupId) -> Result<()> {
        let now = self.clock().now();
        let claim = Tombstone {
            schema: TOMBSTONE_SCHEMA.to_owned(),
            repository: self.id().to_owned(),
            stack: stack.to_owned(),
            id: *id,
            // There is no manifest: should one come, this is not about it.
            manifest_blake3: String::new(),
            prev: None,
            announced: now,
            purge_after: now,
            reasons: vec!["a backup that did not end".to_owned()],
            stackkit_version: env!("CARGO_PKG_VERSION").to_owned(),
            extra: Extra::new(),
        };
        self.announce(&claim).await.map(drop)
    }

    /// Reads the tombstone of a backup.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn tombstone(&self, stack: &str, id: &BackupId) -> Result<FoundTombstone> {
        self.read_tombstone(&folder_of(stack, id).join(TOMBSTONE), stack, id).await
    }

    /// What the tombstone beside a manifest says.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn announcement(&self, found: &Found) -> Result<Announcement> {
        Ok(match self.tombstone(&found.manifest.stack, &found.manifest.id).await? {
            FoundTombstone::Nothing => Announcement::None,
            FoundTombstone::Unusable(message) => Announcement::Unusable(message),
            FoundTombstone::Usable(tombstone, _) if tombstone.manifest_blake3 == found.blake3 => {
                Announcement::PurgeAfter(tombstone.purge_after)
            }
            FoundTombstone::Usable(..) => Announcement::Unusable("it is about another manifest".to_owned()),
        })
    }

    /// Whether a record that can be believed says that this backup was being deleted.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn is_recorded_as_pruned(&self, stack: &str, id: &BackupId) -> Result<bool> {
        Ok(matches!(self.pruned_record(stack, id).await?, FoundTombstone::Usable(..)))
    }

    /// Reads the record of a backup that was deleted, or is being deleted.
    ///
    /// # Errors
    /// The storage's kinds.
    pub(crate) async fn pruned_record(&self, stack: &str, id: &BackupId) -> Result<FoundTombstone> {
        self.read_tombstone(&record_of(stack, id), stack, id).await
    }

    /// Reads a tombstone, or the record of one. Somebody who can write but not sign must not make others delete.
    pub(super) async fn read_tombstone(&self, path: &Path, stack: &str, id: &BackupId) -> Result<FoundTombstone> {
        let unusable = |e: &Error| Ok(FoundTombstone::Unusable(e.message().to_owned()));
        let bytes = match self.storage().read("read a tombstone", path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(FoundTombstone::Nothing),
            Err(error) if error.kind() == ErrorKind::Integrity => return unusable(&error),
            Err(error) => return Err(error),
        };
        let (document, signer) = match canonical::open_signed(&bytes, TOMBSTONE_SCHEMA) {
            Ok(opened) => opened,
            Err(error) => return unusable(&error),
        };
        if let Err(error) = self.trust().accept(self.trust().judge(signer), self.marker().is_signed()) {
            return unusable(&error);
        }
        let Ok(tombstone) = serde_json::from_value::<Tombstone>(document) else {
            return Ok(FoundTombstone::Unusable("it lacks what every tombstone has".to_owned()));
        };
        let home = (tombstone.repository.as_str(), tombstone.stack.as_str(), tombstone.id);
        match home == (self.id(), stack, *id) {
            true => Ok(FoundTombstone::Usable(Box::new(tombstone), bytes)),
            false => Ok(FoundTombstone::Unusable("it belongs to another backup".to_owned())),
        }
    }
}
