//! How a repository is opened.

use std::path::PathBuf;

use stackkit_core::{Clock, Error, Result};

use crate::keys::{SigningKey, TrustedKey};
use crate::trust::Trust;

/// How a repository is opened.
///
/// To write backups, either [`encrypt_to`](Self::encrypt_to) or [`unencrypted`](Self::unencrypted) must be said.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RepositoryOptions {
    pub(super) unencrypted: bool,
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

    pub(crate) fn check_encryption(&self) -> Result<()> {
        match self.unencrypted {
            true => Ok(()),
            false => Err(Error::config(
                "encryption is not available in this version: say `RepositoryOptions::unencrypted` to write without it",
            )),
        }
    }
}
