//! Artifacts: the byte streams that a dump is made of.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use crate::error::{Error, Result};
use crate::service::is_safe_name;

/// The longest [`ArtifactName`] in bytes; file systems allow 255 with room for the repository's endings.
pub const ARTIFACT_NAME_BYTES_MAX: usize = 128;

/// The name of one byte stream of a dump, such as `database.dump`: a safe file name.
///
/// ```
/// use stackkit_core::backup::ArtifactName;
/// assert!(ArtifactName::new("dump.rdb").is_ok());
/// assert!(ArtifactName::new("a/b").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactName(String);

impl ArtifactName {
    /// Checks and takes over a name.
    ///
    /// # Errors
    /// `Config` if it is empty, longer than [`ARTIFACT_NAME_BYTES_MAX`], or holds anything but `a-z A-Z 0-9 . _ -`.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        match is_safe_name(&name, ARTIFACT_NAME_BYTES_MAX) {
            true => Ok(Self(name)),
            false => Err(Error::config(format!("artifact name {name:?} is not a safe file name"))),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ArtifactName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<ArtifactName> for String {
    fn from(name: ArtifactName) -> Self {
        name.0
    }
}

/// What a provider says of an artifact before it writes it.
///
/// ```
/// use stackkit_core::backup::{ArtifactName, ArtifactSpec};
/// let spec = ArtifactSpec::new(ArtifactName::new("dump.rdb").unwrap(), "redis-rdb")
///     .with_restore_command("redis-server --dbfilename dump.rdb");
/// assert_eq!(spec.format, "redis-rdb");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArtifactSpec {
    /// The name, unique in its dump.
    pub name: ArtifactName,
    /// The vendor's format, such as `postgresql-custom`, `redis-rdb`, `tar-pax`.
    pub format: String,
    /// The media type; `application/octet-stream` unless set.
    pub media_type: String,
    /// How to restore the plain bytes by hand with the vendor's tools; the artifact is read from standard input.
    pub restore_command: String,
}

impl ArtifactSpec {
    /// An artifact called `name` in the vendor's `format`.
    pub fn new(name: ArtifactName, format: impl Into<String>) -> Self {
        Self {
            name,
            format: format.into(),
            media_type: "application/octet-stream".to_owned(),
            restore_command: String::new(),
        }
    }

    /// Sets the media type.
    #[must_use]
    pub fn with_media_type(mut self, media_type: impl Into<String>) -> Self {
        self.media_type = media_type.into();
        self
    }

    /// Sets the command that restores the plain bytes by hand. Never with a secret in it.
    #[must_use]
    pub fn with_restore_command(mut self, command: impl Into<String>) -> Self {
        self.restore_command = command.into();
        self
    }
}

/// What the sink answers when an artifact was finished: it exists now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArtifactReceipt {
    /// The artifact's name.
    pub name: ArtifactName,
    /// How many bytes the provider wrote.
    pub plain_bytes: u64,
    /// BLAKE3 of those bytes, 64 hex digits.
    pub plain_blake3: String,
}

impl ArtifactReceipt {
    /// A receipt for `plain_bytes` bytes with the given hash.
    pub fn new(name: ArtifactName, plain_bytes: u64, plain_blake3: impl Into<String>) -> Self {
        Self { name, plain_bytes, plain_blake3: plain_blake3.into() }
    }
}

/// What is known of an artifact that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArtifactInfo {
    /// What the provider said of it.
    pub spec: ArtifactSpec,
    /// Its size in plain bytes.
    pub plain_bytes: u64,
    /// BLAKE3 of its plain bytes, 64 hex digits.
    pub plain_blake3: String,
}

impl ArtifactInfo {
    /// An artifact of `plain_bytes` bytes with the given hash.
    pub fn new(spec: ArtifactSpec, plain_bytes: u64, plain_blake3: impl Into<String>) -> Self {
        Self { spec, plain_bytes, plain_blake3: plain_blake3.into() }
    }

    /// The artifact's name.
    #[must_use]
    pub fn name(&self) -> &ArtifactName {
        &self.spec.name
    }
}

/// Takes the artifacts of a dump. Many may be open at once, so one provider may write several streams in parallel.
#[async_trait]
pub trait ArtifactSink: Send + Sync {
    /// Opens a new artifact.
    ///
    /// # Errors
    /// `AlreadyExists` if the dump has one of that name; `Io` and the storage's own kinds.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no artifact.
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>>;
}

/// One artifact in the making. It exists only after [`finish`](ArtifactWriter::finish); dropping the writer aborts it.
#[async_trait]
pub trait ArtifactWriter: Send {
    /// Appends plain bytes. Waits while the storage is slow: that is the back pressure.
    ///
    /// # Errors
    /// The storage's. After an error the artifact can't be finished any more.
    ///
    /// # Cancel safety
    /// Not cancel safe: after a dropped `write` the writer may only be dropped.
    async fn write(&mut self, chunk: Bytes) -> Result<()>;

    /// Makes the artifact exist. Called when the source ended well, exit status included, and only then.
    ///
    /// # Errors
    /// The storage's; the artifact does not exist then.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the artifact, or leaves it whole; a manifest never names it.
    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt>;
}

/// Streams the plain bytes of an artifact.
pub type ArtifactReader = Box<dyn AsyncRead + Send + Unpin>;

/// Gives the artifacts of one service in one backup.
#[async_trait]
pub trait ArtifactSource: Send + Sync {
    /// What there is.
    fn artifacts(&self) -> &[ArtifactInfo];

    /// Reads one from its start. The bytes are checked while they are read: a damaged artifact ends in an error,
    /// never in a silent end.
    ///
    /// # Errors
    /// `NotFound` for an unknown name; `Integrity` and the storage's kinds, also from the reader, as the
    /// [`std::io::Error`]'s inner error.
    async fn open(&self, name: &ArtifactName) -> Result<ArtifactReader>;

    /// Reads `plain_bytes` of one, without what comes before.
    ///
    /// # Errors
    /// As [`open`](ArtifactSource::open); `Config` for a range beyond the end.
    async fn open_range(&self, name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader>;
}

impl dyn ArtifactSource + '_ {
    /// What is known of the artifact called `name`.
    ///
    /// # Errors
    /// `NotFound`, naming it.
    pub fn info(&self, name: &ArtifactName) -> Result<&ArtifactInfo> {
        self.artifacts().iter().find(|artifact| artifact.name() == name).ok_or_else(|| {
            Error::new(crate::ErrorKind::NotFound, "the backup has no such artifact").with_context("artifact", name)
        })
    }
}
