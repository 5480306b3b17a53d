//! The repository's marker `stackkit.json` and its `README.txt`.

use jiff::Timestamp;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, ErrorKind, Result};

use super::RepositoryOptions;
use crate::keys::{SigningKey, TrustedKey};
use crate::manifest::{Encryption, Extra, canonical};
use crate::storage::{Capabilities, Storage};

/// The schema of the marker.
const SCHEMA: &str = "stackkit.repository/1";

/// The marker's name.
const MARKER: &str = "stackkit.json";

/// The name of the instructions for people.
const README: &str = "README.txt";

/// The instructions for people. They are a part of the format: an edit makes another repository.
const README_TEXT: &str = include_str!("readme.txt");

/// What a repository says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Marker {
    schema: String,
    pub(crate) id: String,
    created: Timestamp,
    stackkit_version: String,
    capabilities: CapabilitiesRecord,
    encryption: Encryption,
    /// The keys whose signatures are expected, as of the repository's creation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    signers: Vec<TrustedKey>,
    readme: ReadmeRecord,
    #[serde(flatten)]
    extra: Extra,
}

/// What the storage can do, found by trying.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CapabilitiesRecord {
    put_if_absent: bool,
    #[serde(default)]
    compare_and_swap: bool,
    #[serde(default)]
    versioning: bool,
    #[serde(default)]
    object_lock: bool,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ReadmeRecord {
    bytes: u64,
    blake3: String,
    #[serde(flatten)]
    extra: Extra,
}

impl Marker {
    /// Reads and checks the marker.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Integrity`; `Incompatible` for another version or an encrypted repository.
    pub(crate) async fn read(storage: &Storage) -> Result<Self> {
        let path = Path::from(MARKER);
        let bytes = storage.read("open the repository", &path).await?;
        let named = |e: Error| e.with_operation("open the repository").with_context("object", MARKER);
        let document = canonical::open(&bytes, SCHEMA).map_err(named)?;
        let mut marker: Self = serde_json::from_value(document)
            .map_err(|e| named(Error::integrity("the marker lacks what every marker has").with_source(e)))?;
        marker.extra.remove("checksum");
        match marker.encryption.scheme.as_str() {
            Encryption::NONE | Encryption::AGE => Ok(marker),
            other => Err(named(
                Error::new(
                    ErrorKind::Incompatible,
                    "this version of stackkit can't read repositories with this encryption",
                )
                .with_context("scheme", other),
            )),
        }
    }

    /// Reads the marker, or makes the repository if there is none.
    ///
    /// # Errors
    /// As [`read`](Self::read); `Unsupported` if the storage overwrites where it must not.
    pub(crate) async fn read_or_create(storage: &Storage, options: &RepositoryOptions) -> Result<Self> {
        match Self::read(storage).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
        let capabilities = storage.probe().await?;
        if !capabilities.put_if_absent {
            let missing = "the storage has no put-if-absent: it overwrites what exists";
            return Err(Error::new(ErrorKind::Unsupported, missing).with_operation("create the repository"));
        }
        put_readme(storage).await?;
        let marker = Self {
            schema: SCHEMA.to_owned(),
            id: format!("{:016x}", fastrand::u64(..)),
            created: options.clock.now(),
            stackkit_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: CapabilitiesRecord {
                put_if_absent: capabilities.put_if_absent,
                compare_and_swap: capabilities.compare_and_swap,
                versioning: capabilities.versioning,
                object_lock: capabilities.object_lock,
                extra: Extra::new(),
            },
            encryption: Encryption::to(&options.recipients),
            signers: options.signing_key.iter().map(SigningKey::trusted).collect(),
            readme: ReadmeRecord {
                bytes: README_TEXT.len() as u64,
                blake3: blake3::hash(README_TEXT.as_bytes()).to_hex().to_string(),
                extra: Extra::new(),
            },
            extra: Extra::new(),
        };
        let document = serde_json::to_value(&marker)
            .map_err(|e| Error::unexpected("the marker can't be written as JSON").with_source(e))?;
        let text = canonical::seal(document)?;
        match storage.create("create the repository", &Path::from(MARKER), text.into()).await {
            // Somebody else made it at the same moment, or an answer was lost: what is there counts.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::read(storage).await,
            Err(error) => Err(error),
            Ok(()) => Ok(marker),
        }
    }

    /// What the storage could do when the repository was made.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let record = &self.capabilities;
        Capabilities {
            put_if_absent: record.put_if_absent,
            compare_and_swap: record.compare_and_swap,
            versioning: record.versioning,
            object_lock: record.object_lock,
        }
    }

    /// Whether it was made for encrypted backups.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.encryption.is_encrypted()
    }

    /// Whether a signature is expected of every backup.
    pub(crate) fn is_signed(&self) -> bool {
        !self.signers.is_empty()
    }

    pub(crate) fn recipients(&self) -> &[String] {
        &self.encryption.recipients
    }

    pub(crate) fn signers(&self) -> &[TrustedKey] {
        &self.signers
    }

    /// What is wrong with the repository's own two objects, as errors.
    pub(crate) async fn check(storage: &Storage) -> Vec<(&'static str, Error)> {
        let marker = match Self::read(storage).await {
            Ok(marker) => marker,
            Err(error) => return vec![(MARKER, error)],
        };
        let same = |bytes: &[u8]| blake3::hash(bytes).to_hex().as_str() == marker.readme.blake3;
        match storage.read("read", &Path::from(README)).await {
            Ok(bytes) if same(&bytes) => Vec::new(),
            Ok(_) => vec![(README, Error::integrity("the instructions are not those that were written"))],
            Err(error) => vec![(README, error)],
        }
    }
}

/// Writes the instructions. A place with other instructions is somebody else's.
async fn put_readme(storage: &Storage) -> Result<()> {
    let path = Path::from(README);
    match storage.create("create the repository", &path, README_TEXT.into()).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other?,
    }
    match storage.read("create the repository", &path).await? == README_TEXT {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::AlreadyExists, "the place holds a README.txt that is not a repository's")
            .with_operation("create the repository")),
    }
}
