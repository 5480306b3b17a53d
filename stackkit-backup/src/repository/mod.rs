//! The repository: where backups are.

mod cache;
mod canary;
mod list;
mod marker;
mod options;
mod read;
mod scan;

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use stackkit_core::{Clock, Error, Result, Stack};

pub(crate) use cache::Raw;
pub use list::{BackupEntry, EntryState};
pub(crate) use marker::Marker;
pub use options::RepositoryOptions;
pub(crate) use read::{Found, is_unusable};

use crate::copy::Origins;
use crate::id::BackupId;
use crate::keys::{Identity, Recipient, SigningKey, TrustedKey};
use crate::manifest::SEALED_MANIFEST;
use crate::run::BackupRun;
use crate::storage::{Capabilities, Storage};
use crate::trust::Trust;

/// The folder of all backups.
pub(crate) const BACKUPS: &str = "backups";

/// The name of a backup's manifest.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The name of the signature of a manifest.
pub(crate) const SIGNATURE: &str = "manifest.sig";

/// The name of an announced deletion.
pub(crate) const TOMBSTONE: &str = "tombstone.json";

/// The objects beside the services' folders, those of later versions included: no service can have such an id.
pub(crate) const RESERVED_NAMES: [&str; 4] = [MANIFEST, SEALED_MANIFEST, SIGNATURE, TOMBSTONE];

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
    options: Arc<RepositoryOptions>,
    origins: Arc<Origins>,
}

impl Repository {
    /// Opens the repository at `url`, and makes it if there is none: `file:///path`, an absolute path,
    /// `s3://bucket/prefix?endpoint=…&region=…` with the feature `s3`, or for tests `memory:NAME`, which the process
    /// shares. `FORMAT.md` lists what a bucket's URL can say; credentials are never a part of it.
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
        let storage = options.limited(Storage::open(url).await?);
        let marker = Arc::new(Marker::read(&storage).await?);
        Ok(Self { storage, marker, options: Arc::new(options), origins: Arc::default() })
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
        let storage = options.limited(storage);
        let marker = Arc::new(Marker::read_or_create(&storage, &options).await?);
        if options.unencrypted && marker.is_encrypted() {
            return Err(Error::config("the repository was made for encrypted backups: say `encrypt_to`")
                .with_operation("open the repository"));
        }
        let repository = Self { storage, marker, options: Arc::new(options), origins: Arc::default() };
        canary::check_or_create(&repository).await?;
        Ok(repository)
    }

    /// The same repository, with an identity that reads encrypted backups.
    #[must_use]
    pub fn with_identity(mut self, identity: Identity) -> Self {
        Arc::make_mut(&mut self.options).identity = Some(identity);
        self
    }

    /// What the storage could do when the repository was made.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.marker.capabilities()
    }

    /// The recipients that were named when the repository was made, as `age1…`; empty if it is not encrypted. Each
    /// backup tells its own.
    #[must_use]
    pub fn recorded_recipients(&self) -> &[String] {
        self.marker.recipients()
    }

    /// The keys whose signatures were expected when the repository was made; empty if it is not signed.
    #[must_use]
    pub fn recorded_signers(&self) -> &[TrustedKey] {
        self.marker.signers()
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

    pub(crate) fn marker(&self) -> &Marker {
        &self.marker
    }

    pub(crate) fn origins(&self) -> &Origins {
        &self.origins
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.options.clock
    }

    pub(crate) fn recipients(&self) -> &[Recipient] {
        &self.options.recipients
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.options.identity.as_ref()
    }

    pub(crate) fn signing_key(&self) -> Option<&SigningKey> {
        self.options.signing_key.as_ref()
    }

    /// The local copy of manifests, if the caller wants one.
    fn cache(&self) -> Option<cache::Cache> {
        self.options.cache.as_ref().map(|folder| cache::Cache::new(folder, self.id()))
    }

    /// Refuses to announce what nobody would believe: where backups are signed, so must be what says that they may go.
    ///
    /// # Errors
    /// `Config` if there is no signing key, or one that is not trusted.
    pub(crate) fn check_own_signature(&self) -> Result<()> {
        let state = self.trust().judge(self.signing_key().map(SigningKey::trusted));
        self.trust().accept(state, self.marker().is_signed()).map_err(|error| {
            Error::config("in a signed repository a deletion must be signed: say `sign_with` (`--signing-key`)")
                .with_source(error)
        })
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.options.trust
    }
}

/// Where a backup lies.
pub(crate) fn folder_of(stack: &str, id: &BackupId) -> Path {
    Path::from(BACKUPS).join(stack).join(id.to_string())
}
