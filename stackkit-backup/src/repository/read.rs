//! Reads manifests: checked against their place, their signature and the caller's trust.

use bytes::Bytes;
use object_store::path::Path;
use serde::Deserialize;
use stackkit_core::{Error, ErrorKind, Result};

use super::cache::Raw;
use super::{BACKUPS, MANIFEST, Repository, SIGNATURE, folder_of};
use crate::age;
use crate::id::BackupId;
use crate::keys::{Identity, SIGNATURE_BYTES, TrustedKey};
use crate::manifest::{Manifest, SEALED_MANIFEST, Sealed, SignatureRecord};
use crate::trust::SignatureState;

/// How many of a stack's newest backups are looked at for the one before the next. More damaged ones in a row leave the
/// next one unchained.
const NEWEST_LOOKED_AT: usize = 32;

/// A backup that was found, and where.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) folder: Path,
    pub(crate) manifest: Manifest,
    /// The hash of the manifest's bytes.
    pub(crate) blake3: String,
    pub(crate) signature: SignatureState,
}

impl Repository {
    /// The manifest of a backup, checked.
    ///
    /// # Errors
    /// `NotFound`; `Integrity` if it is damaged, another backup's, or not signed by whom it should be; `Incompatible`
    /// if a later version wrote it.
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
            match self.find_in(&stack, id).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => damaged = damaged.or(Some(error)),
                Ok(found) => return Ok(found),
            }
        }
        let missing =
            || Error::new(ErrorKind::NotFound, "the repository has no such backup").with_context("backup", id);
        Err(damaged.unwrap_or_else(missing))
    }

    async fn find_in(&self, stack: &str, id: &BackupId) -> Result<Found> {
        let found = self.read_manifest(stack, id).await?;
        let named = |e: Error| {
            e.with_operation("read the manifest").with_context("object", found.folder.clone().join(MANIFEST))
        };
        self.trust().accept(found.signature, self.marker().is_signed()).map_err(named)?;
        match (&found.manifest.sealed, self.identity()) {
            (Some(sealed), Some(identity)) => {
                let manifest = self.unseal(&found, sealed, identity).await?;
                Ok(Found { manifest, ..found })
            }
            _ => Ok(found),
        }
    }

    /// Reads the whole of a manifest whose public part is known.
    async fn unseal(&self, public: &Found, sealed: &Sealed, identity: &Identity) -> Result<Manifest> {
        let path = public.folder.clone().join(SEALED_MANIFEST);
        let named = |e: Error| e.with_operation("read the encrypted manifest").with_context("object", &path);
        let bytes = self.sealed_bytes(sealed, &path).await.map_err(named)?;
        let text = age::decrypt(identity, &bytes).map_err(named)?;
        let manifest = Manifest::from_json(&text).map_err(named)?;
        manifest.belongs_to(&public.manifest).map_err(named)?;
        Ok(manifest)
    }

    /// Checks the stored bytes of an encrypted manifest that nobody had a key for.
    ///
    /// # Errors
    /// `Integrity` if they are not those that the public part names; the storage's kinds.
    pub(crate) async fn check_sealed(&self, public: &Found) -> Result<()> {
        let Some(sealed) = &public.manifest.sealed else { return Ok(()) };
        let path = public.folder.clone().join(SEALED_MANIFEST);
        let bytes = self.sealed_bytes(sealed, &path).await;
        bytes.map(drop).map_err(|e| e.with_operation("read the encrypted manifest").with_context("object", &path))
    }

    /// The bytes of an encrypted manifest: exactly those that the public part names.
    async fn sealed_bytes(&self, sealed: &Sealed, path: &Path) -> Result<Bytes> {
        let damaged = || Error::integrity("the encrypted manifest is not the one that was written");
        if sealed.path != SEALED_MANIFEST {
            return Err(damaged());
        }
        let bytes = match self.storage.read("read the encrypted manifest", path).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::integrity("the encrypted manifest is missing"));
            }
            bytes => bytes?,
        };
        let same = blake3::hash(&bytes).to_hex().as_str() == sealed.blake3 && bytes.len() as u64 == sealed.bytes;
        if same { Ok(bytes) } else { Err(damaged()) }
    }

    /// Reads a manifest and checks its place and its signature; whether the signer is trusted is the caller's to say.
    pub(crate) async fn read_manifest(&self, stack: &str, id: &BackupId) -> Result<Found> {
        let raw = self.fetch_manifest(stack, id).await?;
        let found = self.check_manifest(stack, id, &raw)?;
        self.check_origin(&found).await?;
        Ok(found)
    }

    /// Checks that a manifest was written to this repository, or to one that this one has copies of.
    pub(crate) async fn check_origin(&self, found: &Found) -> Result<()> {
        match self.accepts_from(&found.manifest.repository).await? {
            true => Ok(()),
            false => Err(Error::integrity("the manifest belongs to another backup")
                .with_operation("read the manifest")
                .with_context("object", found.folder.clone().join(MANIFEST))
                .with_context("repository", &found.manifest.repository)),
        }
    }

    /// Reads the bytes of a manifest and, if it says that it is signed, of its signature.
    pub(crate) async fn fetch_manifest(&self, stack: &str, id: &BackupId) -> Result<Raw> {
        let folder = folder_of(stack, id);
        let manifest = self.storage.read("read the manifest", &folder.clone().join(MANIFEST)).await?;
        // What can't be parsed fails at the check; most manifests are signed or the repository knows that none is.
        let path = folder.join(SIGNATURE);
        let signature = match says_signed(&manifest) {
            false => Bytes::new(),
            true => match self.storage.read("read the signature", &path).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(Error::integrity("the signature of the manifest is missing")
                        .with_operation("read the signature")
                        .with_context("object", &path));
                }
                signature => signature?,
            },
        };
        Ok(Raw { manifest, signature })
    }

    /// Checks what was read; which repository it was written to is not asked.
    pub(crate) fn check_manifest(&self, stack: &str, id: &BackupId, raw: &Raw) -> Result<Found> {
        let folder = folder_of(stack, id);
        let named =
            |e: Error| e.with_operation("read the manifest").with_context("object", folder.clone().join(MANIFEST));
        let manifest = Manifest::from_json(&raw.manifest).map_err(named)?;
        if (manifest.id, manifest.stack.as_str()) != (*id, stack) {
            return Err(named(Error::integrity("the manifest belongs to another backup")));
        }
        let signer = match &manifest.signature {
            Some(record) => Some(check_signature(record, raw).map_err(named)?),
            None => None,
        };
        let blake3 = blake3::hash(&raw.manifest).to_hex().to_string();
        Ok(Found { folder, manifest, blake3, signature: self.trust().judge(signer) })
    }

    /// The newest backup of a stack whose manifest can be used, complete or partial, announced for deletion or not: the
    /// one that the next is chained to.
    pub(crate) async fn newest(&self, stack: &str) -> Result<Option<Found>> {
        let folders = self.storage.folders(&Path::from(BACKUPS).join(stack)).await?;
        let mut ids: Vec<BackupId> = folders.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        for id in ids.iter().take(NEWEST_LOOKED_AT) {
            match self.read_manifest(stack, id).await {
                Ok(found) if !self.trust().refuses_in_lists(found.signature) => return Ok(Some(found)),
                Ok(_) => {}
                Err(error) if is_unusable(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Whether a manifest names a signature. Only read before its check: the check decides.
fn says_signed(manifest: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Signed {
        signature: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Signed>(manifest).is_ok_and(|document| document.signature.is_some())
}

fn check_signature(record: &SignatureRecord, raw: &Raw) -> Result<TrustedKey> {
    if record.scheme != SignatureRecord::ED25519 {
        return Err(Error::new(ErrorKind::Incompatible, "this version of stackkit can't check such a signature")
            .with_context("scheme", &record.scheme));
    }
    match raw.signature.len() == SIGNATURE_BYTES && record.key.verify(&raw.manifest, &raw.signature) {
        true => Ok(record.key),
        false => Err(Error::integrity("the signature of the manifest is wrong")),
    }
}

/// Whether an error is about one manifest, and not about the repository: one bad sector must not hide all other backups.
pub(crate) fn is_unusable(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::Integrity
            | ErrorKind::Incompatible
            | ErrorKind::Io
            | ErrorKind::PermissionDenied
    )
}
