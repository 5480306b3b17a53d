//! Removes what crashes left behind: never a backup, and never one that is being made.

mod apply;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, Result};

pub use apply::GcRun;

use crate::error::storage as storage_error;
use crate::id::BackupId;
use crate::repository::{Repository, TOMBSTONE, folder_of};
use crate::run::format_bytes;
use crate::storage::PROBES;

/// How old something must be to be taken for what a crash left: longer than any backup takes.
const AGE: Duration = Duration::from_secs(48 * 3600);

/// The least age that can be asked for. A backup that runs longer than the age that is asked for, and writes nothing
/// meanwhile, fails.
const AGE_MIN: Duration = Duration::from_secs(3600);

const COLLECT: &str = "look for what crashes left";

/// What is taken for garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcOptions {
    min_age: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { min_age: AGE }
    }
}

impl GcOptions {
    /// What is at least 48 hours old.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how old something must be. Default: 48 hours; at least one. It should be longer than the longest backup takes:
    /// a backup that runs has no manifest either, and is told from what a crash left by its age alone. One that was taken
    /// for garbage notices it at its end, and fails.
    #[must_use]
    pub fn with_min_age(mut self, min_age: Duration) -> Self {
        self.min_age = min_age;
        self
    }

    fn validate(&self) -> Result<()> {
        match self.min_age >= AGE_MIN {
            true => Ok(()),
            false => {
                Err(Error::config("younger than an hour, a backup that runs can't be told from what a crash left")
                    .with_context("min_age_seconds", self.min_age.as_secs()))
            }
        }
    }
}

/// What some garbage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GcKind {
    /// The folder of a backup that ended without a manifest.
    Unfinished,
    /// The folder of a backup that was being deleted.
    HalfPurged,
    /// An object by which the storage was tried.
    Probe,
}

impl fmt::Display for GcKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfinished => "a backup that was not finished",
            Self::HalfPurged => "a backup that was being deleted",
            Self::Probe => "a trial of the storage",
        })
    }
}

/// Some garbage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GcItem {
    /// What it is.
    pub kind: GcKind,
    /// The folder or the object.
    pub path: String,
    /// The stack and the id of its backup, if it was one.
    pub backup: Option<(String, BackupId)>,
    /// How many objects it has.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a collection of garbage would remove: plain data. Unfinished uploads, which no listing shows, are removed too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a plan removes nothing until it is applied"]
#[non_exhaustive]
pub struct GcPlan {
    /// The repository that it was made from.
    pub repository: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// What began, or was last written, later than this is not touched.
    pub older_than: Timestamp,
    /// What is removed, by path.
    pub items: Vec<GcItem>,
    /// Folders without a manifest that are too young, or dated in the future: a backup that runs, most likely.
    pub kept: Vec<String>,
}

impl fmt::Display for GcPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            let bytes = format_bytes(item.bytes);
            writeln!(f, "remove  {}  {}: {} objects, {bytes}", item.path, item.kind, item.objects)?;
        }
        self.kept.iter().try_for_each(|path| writeln!(f, "keep    {path}  too young: a backup that runs?"))?;
        write!(f, "uploads that began before {} and never ended are removed too", self.older_than)
    }
}

/// What a collection of garbage did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GcReport {
    /// What was removed.
    pub removed: Vec<GcItem>,
    /// What was not, and why: the storage locks it, or it is not garbage any more.
    pub left: Vec<(String, String)>,
    /// Unfinished uploads that were removed.
    pub uploads: u64,
    /// The bytes that are free again, without those of uploads.
    pub freed_bytes: u64,
}

impl fmt::Display for GcReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.removed.iter().try_for_each(|item| writeln!(f, "removed  {}  {}", item.path, item.kind))?;
        self.left.iter().try_for_each(|(path, why)| writeln!(f, "left     {path}  {why}"))?;
        write!(f, "{} unfinished uploads removed, {} freed", self.uploads, format_bytes(self.freed_bytes))
    }
}

/// What is known of a folder without a manifest.
enum Leftover {
    Garbage(GcItem),
    TooYoung,
}

impl Repository {
    /// Looks for what crashes left behind: folders of backups without a manifest, backups whose deletion did not end,
    /// trials of the storage. Nothing is changed.
    ///
    /// A folder without a manifest counts as garbage only if its id *and* the times that the storage gives its objects
    /// are old enough: a wrong clock can keep garbage, and not make garbage of a backup.
    ///
    /// # Errors
    /// `Config` if the age that is asked for is below an hour; the storage's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn plan_gc(&self, options: &GcOptions) -> Result<GcPlan> {
        options.validate()?;
        let made_at = self.clock().now();
        let older_than = made_at.checked_sub(options.min_age).unwrap_or(Timestamp::MIN);
        let (mut items, mut kept) = (Vec::new(), Vec::new());
        for spot in self.spots().await?.into_iter().filter(|spot| spot.manifest.is_none()) {
            match self.leftover(&spot.stack, spot.id, older_than).await? {
                Leftover::Garbage(item) => items.push(item),
                Leftover::TooYoung => kept.push(folder_of(&spot.stack, &spot.id).to_string()),
            }
        }
        items.extend(self.probes(older_than).await?);
        items.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(GcPlan { repository: self.id().to_owned(), made_at, older_than, items, kept })
    }

    /// Judges a folder without a manifest.
    async fn leftover(&self, stack: &str, id: BackupId, older_than: Timestamp) -> Result<Leftover> {
        let folder = folder_of(stack, &id);
        let objects = self.storage().objects(COLLECT, &folder).await?;
        let item = |kind| GcItem {
            kind,
            path: folder.to_string(),
            backup: Some((stack.to_owned(), id)),
            objects: objects.len() as u64,
            bytes: objects.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add),
        };
        if self.is_recorded_as_pruned(stack, &id).await? {
            return Ok(Leftover::Garbage(item(GcKind::HalfPurged)));
        }
        if id.time() >= older_than {
            return Ok(Leftover::TooYoung);
        }
        // An earlier collection that was interrupted may have left the tombstone.
        let is_tombstone = |path: &Path| objects.len() > 1 && path.filename() == Some(TOMBSTONE);
        for (path, _) in objects.iter().filter(|(path, _)| !is_tombstone(path)) {
            if !self.was_written_before(path, older_than).await? {
                return Ok(Leftover::TooYoung);
            }
        }
        Ok(Leftover::Garbage(item(GcKind::Unfinished)))
    }

    async fn probes(&self, older_than: Timestamp) -> Result<Vec<GcItem>> {
        let mut items = Vec::new();
        for (path, bytes) in self.storage().objects(COLLECT, &Path::from(PROBES)).await? {
            if self.was_written_before(&path, older_than).await? {
                let path = path.to_string();
                items.push(GcItem { kind: GcKind::Probe, path, backup: None, objects: 1, bytes });
            }
        }
        Ok(items)
    }

    /// Whether the storage says that an object is old. One that is gone is.
    async fn was_written_before(&self, path: &Path, older_than: Timestamp) -> Result<bool> {
        match self.storage().store().head(path).await {
            Ok(meta) => Ok(meta.last_modified.timestamp() < older_than.as_second()),
            Err(object_store::Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(storage_error(COLLECT, path, error)),
        }
    }
}
