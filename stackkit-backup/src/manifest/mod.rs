//! The manifest: what a backup holds. It is written last; without it there is no backup.
//!
//! Every type keeps the members that it does not know in `extra`, so a later version's manifest of the same schema
//! survives being read and written. `FORMAT.md` describes each field.

pub(crate) mod canonical;
mod check;
mod seal;

use jiff::Timestamp;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stackkit_core::backup::{ArtifactInfo, ArtifactName, ArtifactSpec, PointInTime, VendorInfo};
use stackkit_core::{Census, Error, Result, ServiceId};

pub(crate) use self::seal::SEALED_MANIFEST;
use crate::id::BackupId;
use crate::keys::{Recipient, TrustedKey};
use crate::pipeline::{FRAME_BYTES_MAX, Layout};

/// The schema that this version writes and reads.
pub const MANIFEST_SCHEMA: &str = "stackkit.manifest/1";

/// The members of an object that this version does not know.
pub type Extra = Map<String, Value>;

/// A type of the contracts, with the members that this version does not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extended<T> {
    /// What is known.
    #[serde(flatten)]
    pub value: T,
    /// What is not.
    #[serde(flatten)]
    pub extra: Extra,
}

impl<T> From<T> for Extended<T> {
    fn from(value: T) -> Self {
        Self { value, extra: Extra::new() }
    }
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// [`MANIFEST_SCHEMA`].
    pub schema: String,
    /// The id of the repository that it was written to.
    pub repository: String,
    /// The backup's id.
    pub id: BackupId,
    /// The stack's name.
    pub stack: String,
    /// The name of the machine that made it, if known.
    pub host: Option<String>,
    /// The version of stackkit that made it.
    pub stackkit_version: String,
    /// When it began.
    pub started: Timestamp,
    /// When its last artifact was stored.
    pub finished: Timestamp,
    /// Whether every service is in it.
    pub status: Status,
    /// What made it run; `None`: not told.
    pub trigger: Option<String>,
    /// The caller's tags, in the caller's order.
    pub tags: Vec<String>,
    /// A title for people; `None`: none.
    pub label: Option<String>,
    /// The stack's backup before it; `None`: it is the first, or not chained.
    pub prev: Option<Previous>,
    /// Until when the storage keeps it from being deleted; `None`: not kept.
    pub retain_until: Option<Timestamp>,
    /// How the artifacts are encrypted.
    pub encryption: Encryption,
    /// Which key signed the manifest, in the object beside it; `None`: not signed.
    pub signature: Option<SignatureRecord>,
    /// Where the whole manifest is, encrypted, if this is only its public part; see [`Manifest::is_sealed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// How the services belong together in time.
    pub consistency: ConsistencyRecord,
    /// The services, in the order of the stack.
    pub services: Vec<ServiceRecord>,
    /// How long the steps took.
    pub timings: Timings,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The backup before one, in the chain of a stack's backups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Previous {
    /// Its id.
    pub id: BackupId,
    /// The BLAKE3 of the bytes of its `manifest.json`, 64 hex digits.
    pub manifest_blake3: String,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Previous {
    /// The backup `id`, whose manifest has this hash.
    #[must_use]
    pub fn new(id: BackupId, manifest_blake3: String) -> Self {
        Self { id, manifest_blake3, extra: Extra::new() }
    }
}

/// What signed a manifest. The signature itself is the object `manifest.sig`: 64 raw bytes over the bytes of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SignatureRecord {
    /// `ed25519`.
    pub scheme: String,
    /// The public key.
    pub key: TrustedKey,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

impl SignatureRecord {
    /// The scheme of RFC 8032.
    pub const ED25519: &str = "ed25519";

    /// A signature by `key`.
    #[must_use]
    pub fn new(key: TrustedKey) -> Self {
        Self { scheme: Self::ED25519.to_owned(), key, extra: Extra::new() }
    }
}

/// Where the whole of a manifest is whose `manifest.json` is only the public part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sealed {
    /// The object's path below the backup's folder: `manifest.json.age`.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// Their BLAKE3, 64 hex digits.
    pub blake3: String,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Whether every service is in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Every service is.
    Complete,
    /// At least one failed, and the caller had allowed that. It never counts for retention or as the latest.
    Partial,
}

/// How bytes are encrypted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Encryption {
    /// `none` or `age`.
    pub scheme: String,
    /// The age recipients (`age1…`) whose identities can read it.
    pub recipients: Vec<String>,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Encryption {
    /// The scheme of bytes that are not encrypted.
    pub const NONE: &str = "none";

    /// The scheme of standard age files, version 1.
    pub const AGE: &str = "age";

    /// No encryption.
    #[must_use]
    pub fn none() -> Self {
        Self { scheme: Self::NONE.to_owned(), recipients: Vec::new(), extra: Extra::new() }
    }

    /// Encryption to these recipients, or none if there are none.
    pub(crate) fn to(recipients: &[Recipient]) -> Self {
        match recipients.is_empty() {
            true => Self::none(),
            false => Self {
                scheme: Self::AGE.to_owned(),
                recipients: recipients.iter().map(ToString::to_string).collect(),
                extra: Extra::new(),
            },
        }
    }

    /// Whether a key is needed to read it.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.scheme != Self::NONE
    }
}

/// How the services of a backup belong together in time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConsistencyRecord {
    /// `barrier`: each service has its own point in time, and all were pinned together.
    pub mode: String,
    /// Between the first and the last pinned point, in ms, rounded up.
    pub spread_ms: u64,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How long the steps of a backup took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Timings {
    /// Until every service's point in time was pinned.
    pub begin_ms: u64,
    /// From then until the last artifact was stored.
    pub run_ms: u64,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One service of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceRecord {
    /// Its id in the stack.
    pub id: ServiceId,
    /// Its kind.
    pub kind: String,
    /// Where it was: nothing in it is secret.
    pub endpoint: String,
    /// The kind of the error and its message, if it failed in a partial backup.
    pub error: Option<ServiceFailure>,
    /// The moment that the dump shows; `None` if it failed before.
    pub point: Option<Extended<PointInTime>>,
    /// Which software made the dump; `None` if it failed.
    pub vendor: Option<Extended<VendorInfo>>,
    /// Counts of exactly what was dumped; `None` if it failed.
    pub census: Option<Extended<Census>>,
    /// What the reader should know.
    pub warnings: Vec<String>,
    /// How long the dump took.
    pub run_ms: u64,
    /// Its artifacts, by name.
    pub artifacts: Vec<ArtifactRecord>,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Why a service is missing from a partial backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceFailure {
    /// The error's kind.
    pub kind: String,
    /// Its message: stackkit's own words.
    pub message: String,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ServiceFailure {
    pub(crate) fn new(error: &Error) -> Self {
        Self { kind: error.kind().as_str().to_owned(), message: error.message().to_owned(), extra: Extra::new() }
    }
}

/// One artifact of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArtifactRecord {
    /// What the provider said of it: name, format, media type, restore command.
    #[serde(flatten)]
    pub spec: ArtifactSpec,
    /// The object's path below the backup's folder.
    pub path: String,
    /// The bytes that the provider wrote.
    pub plain: PlainRecord,
    /// The bytes of the object.
    pub stored: StoredRecord,
    /// The frames of the compression.
    pub frames: FramesRecord,
    /// How it is compressed.
    pub compression: Compression,
    /// How it is encrypted.
    pub encryption: Encryption,
    /// From its creation until it was stored.
    pub elapsed_ms: u64,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The bytes that a provider wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlainRecord {
    /// How many.
    pub bytes: u64,
    /// Their BLAKE3, 64 hex digits.
    pub blake3: String,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The bytes of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredRecord {
    /// How many.
    pub bytes: u64,
    /// Their BLAKE3, 64 hex digits.
    pub blake3: String,
    /// In how many parts they were uploaded.
    pub parts: u64,
    /// The storage's tag of the object; `None` if it gave none.
    pub etag: Option<String>,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The frames of an artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FramesRecord {
    /// Plain bytes in each frame but the last.
    pub bytes: u64,
    /// How many there are.
    pub count: u64,
    /// Where the frame index begins, in compressed bytes.
    pub index_offset: u64,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How an artifact is compressed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compression {
    /// `zstd`.
    pub scheme: String,
    /// The level.
    pub level: i32,
    /// What is not known.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Compression {
    /// The scheme of standard zstd frames.
    pub const ZSTD: &str = "zstd";
}

impl Manifest {
    /// Reads a manifest and checks it: schema, checksum, canonical form, and that it names nothing outside its folder.
    ///
    /// # Errors
    /// `Incompatible` for another version of the schema, or for a scheme that this version can't read; `Integrity`
    /// if it is damaged.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let document = canonical::open(bytes, MANIFEST_SCHEMA).map_err(|e| e.with_operation("read the manifest"))?;
        let mut manifest: Self = serde_json::from_value(document)
            .map_err(|e| Error::integrity("the manifest lacks what every manifest has").with_source(e))?;
        manifest.extra.remove("checksum");
        for artifact in manifest.services.iter().flat_map(|service| &service.artifacts) {
            artifact.check_schemes()?;
            artifact.check_frames()?;
        }
        for service in &manifest.services {
            service.check_paths()?;
        }
        check::check(&manifest)?;
        Ok(manifest)
    }

    /// Writes the manifest as canonical JSON with its checksum; members that are not known included.
    ///
    /// # Errors
    /// `Unexpected` if a value has no JSON form.
    pub fn to_json(&self) -> Result<String> {
        let document = serde_json::to_value(self)
            .map_err(|e| Error::unexpected("the manifest can't be written as JSON").with_source(e))?;
        canonical::seal(document)
    }

    /// The record of a service.
    ///
    /// # Errors
    /// `NotFound` if the backup has none of that id, or if its dump failed.
    pub fn service(&self, id: &str) -> Result<&ServiceRecord> {
        let missing = |message: &str| {
            Error::new(stackkit_core::ErrorKind::NotFound, message)
                .with_context("service", id)
                .with_context("backup", self.id)
        };
        let record = self.services.iter().find(|record| record.id == *id);
        match record {
            None => Err(missing("the backup has no such service")),
            Some(record) if record.error.is_some() => Err(missing("the dump of the service failed in this backup")),
            Some(record) => Ok(record),
        }
    }

    /// All artifacts, each with its service.
    pub fn artifacts(&self) -> impl Iterator<Item = (&ServiceRecord, &ArtifactRecord)> {
        self.services.iter().flat_map(|service| service.artifacts.iter().map(move |artifact| (service, artifact)))
    }
}

impl ServiceRecord {
    fn check_paths(&self) -> Result<()> {
        let expected = |artifact: &ArtifactRecord| {
            artifact_path(&self.id, &artifact.spec.name, artifact.encryption.is_encrypted())
        };
        match self.artifacts.iter().find(|artifact| artifact.path != expected(artifact)) {
            None => Ok(()),
            Some(artifact) => Err(Error::integrity("the manifest names an artifact at a place that is not its own")
                .with_context("path", &artifact.path)),
        }
    }
}

impl ArtifactRecord {
    fn check_schemes(&self) -> Result<()> {
        let unknown = |scheme: &str| {
            Error::new(stackkit_core::ErrorKind::Incompatible, "this version of stackkit can't read the artifact")
                .with_context("artifact", &self.spec.name)
                .with_context("scheme", scheme)
        };
        match (self.compression.scheme.as_str(), self.encryption.scheme.as_str()) {
            (Compression::ZSTD, Encryption::NONE | Encryption::AGE) => Ok(()),
            (Compression::ZSTD, encryption) => Err(unknown(encryption)),
            (compression, _) => Err(unknown(compression)),
        }
    }

    fn check_frames(&self) -> Result<()> {
        let bytes = self.frames.bytes;
        if bytes == 0 || bytes > FRAME_BYTES_MAX {
            return Err(Error::new(stackkit_core::ErrorKind::Incompatible, "the artifact's frames are too large")
                .with_context("artifact", &self.spec.name)
                .with_context("frame_bytes", bytes)
                .with_context("frame_bytes_max", FRAME_BYTES_MAX));
        }
        match self.frames.count == self.plain.bytes.div_ceil(bytes) {
            true => Ok(()),
            false => Err(Error::integrity("the manifest's number of frames does not fit its bytes")
                .with_context("artifact", &self.spec.name)),
        }
    }

    /// What the provider that restores it is told.
    #[must_use]
    pub fn info(&self) -> ArtifactInfo {
        ArtifactInfo::new(self.spec.clone(), self.plain.bytes, self.plain.blake3.clone())
    }

    pub(crate) fn layout(&self, folder: &Path) -> Layout {
        Layout {
            path: self.path.split('/').fold(folder.clone(), |path, part| path.join(part)),
            plain_bytes: self.plain.bytes,
            plain_blake3: self.plain.blake3.clone(),
            stored_bytes: self.stored.bytes,
            stored_blake3: self.stored.blake3.clone(),
            frame_bytes: self.frames.bytes,
            frames: self.frames.count,
            index_offset: self.frames.index_offset,
            encrypted_to: self.encryption.is_encrypted().then(|| self.encryption.recipients.clone()),
        }
    }
}

/// Where an artifact lies below its backup's folder.
pub(crate) fn artifact_path(service: &ServiceId, name: &ArtifactName, encrypted: bool) -> String {
    let ending = if encrypted { "zst.age" } else { "zst" };
    format!("{service}/{name}.{ending}")
}

#[cfg(test)]
mod tests;
