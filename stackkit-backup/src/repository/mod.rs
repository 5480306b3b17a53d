//! The repository: where backups are.

mod list;
mod marker;

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use stackkit_core::{Clock, Error, ErrorKind, Result, Stack};

pub use list::{BackupEntry, EntryState};
pub(crate) use marker::Marker;

use crate::id::BackupId;
use crate::manifest::Manifest;
use crate::run::BackupRun;
use crate::storage::Storage;

/// The folder of all backups.
pub(crate) const BACKUPS: &str = "backups";

/// The name of a backup's manifest.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The objects beside the services' folders, those of later versions included: no service can have such an id.
pub(crate) const RESERVED_NAMES: [&str; 3] = [MANIFEST, "manifest.sig", "tombstone.json"];

/// How a repository is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RepositoryOptions {
    unencrypted: bool,
    clock: Clock,
}

impl RepositoryOptions {
    /// The defaults: encryption is demanded, time is the system's.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes artifacts as they are. This version has no encryption, so a repository can be created and written only
    /// with this.
    #[must_use]
    pub fn unencrypted(mut self) -> Self {
        self.unencrypted = true;
        self
    }

    /// Takes the time of the repository's creation from `clock`. A backup takes its time from its stack.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn check_encryption(&self) -> Result<()> {
        match self.unencrypted {
            true => Ok(()),
            false => Err(Error::config(
                "encryption is not available in this version: say `RepositoryOptions::unencrypted` to write without it",
            )),
        }
    }
}

/// A place where backups are kept; cheap to clone.
///
/// ```no_run
/// use stackkit_backup::{Repository, RepositoryOptions, VerifyLevel};
/// # async fn example(stack: &stackkit_core::Stack) -> stackkit_core::Result<()> {
/// let options = RepositoryOptions::new().unencrypted();
/// let repository = Repository::open_or_create("file:///var/backups/shop", options).await?;
/// let backup = repository.backup(stack).with_tag("nightly").run().await?;
/// println!("{backup}");
/// println!("{}", repository.verify(backup.id(), VerifyLevel::Stored).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) storage: Storage,
    marker: Arc<Marker>,
    options: RepositoryOptions,
}

impl Repository {
    /// Opens the repository at `url`, and makes it if there is none: `file:///path`, an absolute path, or for tests
    /// `memory:NAME`, which the process shares.
    ///
    /// # Errors
    /// `Config` without [`RepositoryOptions::unencrypted`]; `Unsupported` for another scheme; `Integrity` or
    /// `Incompatible` if what is there can't be used; the file system's kinds.
    ///
    /// # Cancel safety
    /// Cancel safe: at worst an empty repository is left.
    pub async fn open_or_create(url: &str, options: RepositoryOptions) -> Result<Self> {
        options.check_encryption()?;
        Self::create_in(Storage::open_or_create(url).await?, options).await
    }

    /// Opens the repository at `url`, which must exist. Without [`RepositoryOptions::unencrypted`] it can only be read.
    ///
    /// # Errors
    /// `NotFound` if there is none; otherwise as [`open_or_create`](Self::open_or_create).
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn open(url: &str, options: RepositoryOptions) -> Result<Self> {
        let storage = Storage::open(url).await?;
        let marker = Arc::new(Marker::read(&storage).await?);
        Ok(Self { storage, marker, options })
    }

    /// Opens or makes a repository in any object store: for tests, and for storages that have no URL here.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create).
    ///
    /// # Cancel safety
    /// Cancel safe: at worst an empty repository is left.
    pub async fn with_store(store: Arc<dyn ObjectStore>, options: RepositoryOptions) -> Result<Self> {
        options.check_encryption()?;
        Self::create_in(Storage::new(store), options).await
    }

    async fn create_in(storage: Storage, options: RepositoryOptions) -> Result<Self> {
        let marker = Arc::new(Marker::read_or_create(&storage, &options.clock).await?);
        Ok(Self { storage, marker, options })
    }

    /// The repository's own id, 16 hex digits; every manifest carries it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.marker.id
    }

    /// Prepares a backup of `stack`; [`BackupRun::run`] makes it.
    pub fn backup<'a>(&'a self, stack: &'a Stack) -> BackupRun<'a> {
        BackupRun::new(self, stack)
    }

    pub(crate) fn options(&self) -> &RepositoryOptions {
        &self.options
    }

    /// The manifest of a backup, checked.
    ///
    /// # Errors
    /// `NotFound`; `Integrity` if it is damaged or another backup's; `Incompatible` if a later version wrote it.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn manifest(&self, id: &BackupId) -> Result<Manifest> {
        Ok(self.find(id).await?.manifest)
    }

    /// Finds a backup by its id alone. A copy of it below the name of another stack does not stand in its way.
    pub(crate) async fn find(&self, id: &BackupId) -> Result<Found> {
        let mut damaged = None;
        for stack in self.storage.folders(&Path::from(BACKUPS)).await? {
            let folder = folder_of(&stack, id);
            match self.read_manifest(&stack, id).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => damaged = damaged.or(Some(error)),
                Ok((manifest, blake3)) => return Ok(Found { folder, manifest, blake3 }),
            }
        }
        let missing =
            || Error::new(ErrorKind::NotFound, "the repository has no such backup").with_context("backup", id);
        Err(damaged.unwrap_or_else(missing))
    }

    /// Reads a manifest, and the hash of its bytes.
    async fn read_manifest(&self, stack: &str, id: &BackupId) -> Result<(Manifest, String)> {
        let path = folder_of(stack, id).join(MANIFEST);
        let bytes = self.storage.read("read the manifest", &path).await?;
        let named = |e: Error| e.with_context("object", &path);
        let manifest = Manifest::from_json(&bytes).map_err(named)?;
        let home = (manifest.id, manifest.stack.as_str(), manifest.repository.as_str());
        match home == (*id, stack, self.id()) {
            true => Ok((manifest, blake3::hash(&bytes).to_hex().to_string())),
            false => Err(named(
                Error::integrity("the manifest belongs to another backup").with_operation("read the manifest"),
            )),
        }
    }
}

/// A backup that was found, and where.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) folder: Path,
    pub(crate) manifest: Manifest,
    /// The hash of the manifest's bytes.
    pub(crate) blake3: String,
}

/// Where a backup lies.
pub(crate) fn folder_of(stack: &str, id: &BackupId) -> Path {
    Path::from(BACKUPS).join(stack).join(id.to_string())
}
