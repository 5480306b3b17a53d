//! Manifests whose content is encrypted: `manifest.json` keeps only what listing, retention and a check without a key
//! need; the whole is beside it.

use stackkit_core::{Error, Result};

use super::{Manifest, Sealed};

/// The object that holds the whole manifest of a sealed one.
pub(crate) const SEALED_MANIFEST: &str = "manifest.json.age";

impl Manifest {
    /// Whether this is only the public part of a manifest: ids, times, sizes and hashes. What the services are called at
    /// the vendor's, counts, addresses and commands are in the encrypted part, which needs an identity.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The public part: ids, times, tags, sizes and hashes of stored bytes.
    pub(crate) fn public_part(&self, sealed: Sealed) -> Self {
        let mut public = self.clone();
        public.sealed = Some(sealed);
        public.host = None;
        public.label = None;
        public.trigger = None;
        for service in &mut public.services {
            service.endpoint = String::new();
            service.point = None;
            service.vendor = None;
            service.census = None;
            service.warnings = Vec::new();
            if let Some(failure) = &mut service.error {
                failure.message = String::new();
            }
            for artifact in &mut service.artifacts {
                // The hash of plain bytes would tell whoever has a guess of them that it is right.
                artifact.plain.blake3 = String::new();
                artifact.spec.restore_command = String::new();
            }
        }
        public
    }

    /// Checks that `self` is the whole of which `public` is the public part.
    ///
    /// # Errors
    /// `Integrity` if it is not.
    pub(crate) fn belongs_to(&self, public: &Self) -> Result<()> {
        let expected = public.sealed.clone().map(|sealed| self.public_part(sealed));
        match expected.as_ref() == Some(public) {
            true => Ok(()),
            false => Err(Error::integrity("the encrypted manifest does not belong to its public part")),
        }
    }
}
