//! How a repository is opened.

use std::num::NonZeroU64;
use std::path::PathBuf;

use stackkit_core::{Clock, Error, Result};

use crate::keys::{Identity, Recipient, SigningKey, TrustedKey};
use crate::storage::{ObjectLockMode, Storage};
use crate::trust::Trust;

/// How a repository is opened.
///
/// To write backups, either [`encrypt_to`](Self::encrypt_to) or [`unencrypted`](Self::unencrypted) must be said.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RepositoryOptions {
    pub(super) unencrypted: bool,
    pub(super) recipients: Vec<Recipient>,
    pub(super) encrypt_manifest: bool,
    pub(super) identity: Option<Identity>,
    pub(super) single_writer: bool,
    pub(super) bandwidth_limit: Option<NonZeroU64>,
    pub(super) object_lock: Option<ObjectLockMode>,
    pub(super) clock: Clock,
    pub(super) signing_key: Option<SigningKey>,
    pub(super) trust: Trust,
    pub(super) cache: Option<PathBuf>,
}

impl RepositoryOptions {
    /// The defaults: encryption is demanded, time is the system's, nothing is signed and no key is trusted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes artifacts as they are: whoever can read the repository can read the data.
    #[must_use]
    pub fn unencrypted(mut self) -> Self {
        self.unencrypted = true;
        self
    }

    /// Encrypts to `recipient`: its identity can read the backups, and the host that makes them can't. May be said of
    /// several; each can read everything. Two are advised, one of them kept elsewhere.
    #[must_use]
    pub fn encrypt_to(mut self, recipient: Recipient) -> Self {
        if !self.recipients.contains(&recipient) {
            self.recipients.push(recipient);
        }
        self
    }

    /// Encrypts manifests too. What stays readable are ids, times, tags, names of services and artifacts, sizes, and hashes
    /// of stored bytes: enough to list, to prune and to check the stored bytes without a key.
    #[must_use]
    pub fn encrypt_manifest(mut self) -> Self {
        self.encrypt_manifest = true;
        self
    }

    /// Reads encrypted backups with `identity`.
    #[must_use]
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Signs each manifest with `key`, and trusts what it signed.
    #[must_use]
    pub fn sign_with(mut self, key: SigningKey) -> Self {
        self.trust.add(key.trusted());
        self.signing_key = Some(key);
        self
    }

    /// Believes manifests that this key signed; may be said of several. As soon as one key is trusted, a manifest that
    /// is unsigned or signed by another is refused.
    #[must_use]
    pub fn trust(mut self, key: TrustedKey) -> Self {
        self.trust.add(key);
        self
    }

    /// Takes manifests that are unsigned, or signed by a key that is not trusted, all the same. Whoever could write to
    /// the repository may have made them.
    #[must_use]
    pub fn accept_untrusted(mut self) -> Self {
        self.trust.accept_untrusted();
        self
    }

    /// Takes the time of the repository's own acts from `clock`. A backup takes its time from its stack.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Keeps copies of manifests below this local directory, so that a listing of a repository in a network reads only
    /// what is new. Manifests name services and count their contents; the directory is made for its owner only.
    #[must_use]
    pub fn with_cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// Promises that no other process or task prunes this repository, or restores from it into the same stack, at the
    /// same time; nobody checks it. Needed only where the storage has neither compare-and-swap nor file locks: elsewhere
    /// leases are taken all the same.
    #[must_use]
    pub fn single_writer(mut self) -> Self {
        self.single_writer = true;
        self
    }

    /// Moves no more than this many bytes per second to the storage and from it, all artifacts of this repository
    /// together, on average over a part of an upload. Reading from a directory of this machine is not held back.
    #[must_use]
    pub fn with_bandwidth_limit(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.bandwidth_limit = Some(bytes_per_second);
        self
    }

    /// How objects are locked until a backup's `retain_until`, in a bucket with Object Lock;
    /// [`ObjectLockMode::Governance`] unless set.
    #[must_use]
    pub fn with_object_lock(mut self, mode: ObjectLockMode) -> Self {
        self.object_lock = Some(mode);
        self
    }

    /// The storage, at the speed that was asked for.
    pub(super) fn limited(&self, storage: Storage) -> Storage {
        match self.bandwidth_limit {
            Some(limit) => storage.with_bandwidth_limit(limit),
            None => storage,
        }
    }

    pub(crate) fn is_single_writer(&self) -> bool {
        self.single_writer
    }

    /// Whether manifests are encrypted.
    pub(crate) fn seals_manifests(&self) -> bool {
        self.encrypt_manifest
    }

    /// How objects are locked.
    pub(crate) fn object_lock_mode(&self) -> ObjectLockMode {
        self.object_lock.unwrap_or(ObjectLockMode::Governance)
    }

    /// Refuses to write before it was said how.
    pub(crate) fn check_encryption(&self) -> Result<()> {
        let wrong = match (self.unencrypted, self.recipients.is_empty()) {
            (true, true) if self.encrypt_manifest => "a manifest is encrypted to recipients: say `encrypt_to` too",
            (true, true) | (false, false) => return Ok(()),
            (true, false) => "`unencrypted` contradicts `encrypt_to`: say one of them",
            (false, true) => {
                "say `RepositoryOptions::encrypt_to` with the recipient that can read the backups, or `unencrypted`"
            }
        };
        Err(Error::config(wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_to_write_must_be_said_and_not_twice() {
        let recipient = Identity::generate().unwrap().recipients().remove(0);
        let good = |options: RepositoryOptions| options.check_encryption().is_ok();
        assert!(!good(RepositoryOptions::new()));
        assert!(good(RepositoryOptions::new().unencrypted()));
        assert!(good(RepositoryOptions::new().encrypt_to(recipient).encrypt_manifest()));
        assert!(!good(RepositoryOptions::new().encrypt_to(recipient).unencrypted()));
        assert!(!good(RepositoryOptions::new().unencrypted().encrypt_manifest()));
    }
}
