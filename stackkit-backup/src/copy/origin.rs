//! From which repositories a repository holds copies: `copies/<id>.json`.
//!
//! A manifest says which repository it was written to, so that a backup that was put elsewhere by accident, or by
//! somebody who wants it taken for another, is none there. A copy leaves the manifest as it is, so that its signature
//! and the chain stay right; this record says that it was meant.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, ErrorKind, Result};

use crate::manifest::{Extra, canonical};
use crate::repository::Repository;

/// The folder of the records.
const COPIES: &str = "copies";

/// The schema of a record.
const SCHEMA: &str = "stackkit.copies/1";

/// Digits of a repository's id.
const ID_DIGITS: usize = 16;

/// How many sources are remembered, so that a listing reads each record once.
const REMEMBERED_MAX: usize = 64;

/// A record.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    schema: String,
    /// The repository that the record is in.
    repository: String,
    /// The one that its copies are from.
    source: String,
    created: Timestamp,
    stackkit_version: String,
    #[serde(flatten)]
    extra: Extra,
}

/// The sources whose records were read already. A record is never removed.
#[derive(Debug, Default)]
pub(crate) struct Origins(Mutex<BTreeSet<String>>);

impl Origins {
    fn knows(&self, source: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(source)
    }

    fn remember(&self, source: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < REMEMBERED_MAX {
            known.insert(source.to_owned());
        }
    }
}

impl Repository {
    /// Whether manifests of the repository `source` belong here: its own, and those of the ones that it has copies of.
    ///
    /// # Errors
    /// `Integrity` if the record is damaged, or signed by nobody who is trusted; the storage's kinds.
    pub(crate) async fn accepts_from(&self, source: &str) -> Result<bool> {
        if source == self.id() || self.origins().knows(source) {
            return Ok(true);
        }
        // What a manifest names becomes a path only if it is an id.
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if source.len() != ID_DIGITS || !source.bytes().all(is_digit) {
            return Ok(false);
        }
        let path = path_of(source);
        let bytes = match self.storage().read("read the record of copies", &path).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            bytes => bytes?,
        };
        self.check_record(source, &bytes)
            .map_err(|e| e.with_operation("read the record of copies").with_context("object", &path))?;
        self.origins().remember(source);
        Ok(true)
    }

    fn check_record(&self, source: &str, bytes: &[u8]) -> Result<()> {
        let (document, signer) = canonical::open_signed(bytes, SCHEMA)?;
        let record: Record = serde_json::from_value(document)
            .map_err(|e| Error::integrity("the record lacks what every record has").with_source(e))?;
        if (record.repository.as_str(), record.source.as_str()) != (self.id(), source) {
            return Err(Error::integrity("the record belongs to another repository"));
        }
        match self.trust().refuses_in_lists(self.trust().judge(signer)) {
            false => Ok(()),
            true => Err(Error::integrity("the record is not signed by a key that is trusted")),
        }
    }

    /// Writes down that copies from `source` belong here, if it is not written yet.
    ///
    /// # Errors
    /// `Config` if keys are trusted here and there is none to sign with; as [`accepts_from`](Self::accepts_from).
    pub(super) async fn accept_from(&self, source: &str) -> Result<()> {
        if self.accepts_from(source).await? {
            return Ok(());
        }
        let signer = self.signing_key().map(crate::keys::SigningKey::trusted);
        if self.trust().refuses_in_lists(self.trust().judge(signer)) {
            return Err(Error::config(
                "the target trusts only signed documents, so the record of its copies must be signed: say `sign_with`",
            ));
        }
        let record = Record {
            schema: SCHEMA.to_owned(),
            repository: self.id().to_owned(),
            source: source.to_owned(),
            created: self.clock().now(),
            stackkit_version: env!("CARGO_PKG_VERSION").to_owned(),
            extra: Extra::new(),
        };
        let document = serde_json::to_value(&record)
            .map_err(|e| Error::unexpected("a record can't be written as JSON").with_source(e))?;
        let text = canonical::seal_signed(document, self.signing_key())?;
        let written = self.storage().create("write the record of copies", &path_of(source), text.into()).await;
        // Another copy may have written it, or an answer was lost: what is there counts.
        match (self.accepts_from(source).await?, written) {
            (true, _) | (false, Ok(())) => Ok(()),
            (false, Err(error)) => Err(error),
        }
    }
}

fn path_of(source: &str) -> Path {
    Path::from(COPIES).join(format!("{source}.json"))
}
