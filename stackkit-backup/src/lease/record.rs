//! What a lease's object says.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, ErrorKind, Result};

use crate::manifest::{Extra, canonical};

/// The schema of a lease.
const SCHEMA: &str = "stackkit.lease/1";

/// A lease as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    schema: String,
    holder: Holder,
    /// Fresh for each write: no two writes have the same bytes, so none has the same tag.
    nonce: String,
    /// One more for each time that somebody got the lease.
    pub(super) epoch: u64,
    ttl_ms: u64,
    state: State,
    #[serde(flatten)]
    extra: Extra,
}

/// Who holds a lease, or held it last. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Holder {
    host: Option<String>,
    pid: u32,
    purpose: String,
    /// Tells apart all who ever held a lease.
    random: String,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Held,
    Released,
}

impl Record {
    /// What this process writes when it gets a lease for the first time.
    pub(super) fn new(purpose: &str, ttl: Duration) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            holder: Holder {
                host: crate::run::host(),
                pid: std::process::id(),
                purpose: purpose.to_owned(),
                random: random(),
                extra: Extra::new(),
            },
            nonce: random(),
            epoch: 1,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            state: State::Held,
            extra: Extra::new(),
        }
    }

    /// The same holder's next write.
    pub(super) fn again(&self) -> Self {
        Self { nonce: random(), ..self.clone() }
    }

    /// The write of a holder that comes after `before`.
    pub(super) fn after(&self, before: &Self) -> Self {
        Self { epoch: before.epoch.saturating_add(1), ..self.again() }
    }

    /// The holder's last write.
    pub(super) fn released(&self) -> Self {
        Self { state: State::Released, ..self.again() }
    }

    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// Whether both are of one holder, and nobody had the lease between them.
    pub(super) fn same_holder(&self, other: &Self) -> bool {
        self.holder.random == other.holder.random && self.epoch == other.epoch
    }

    /// What tells this holder apart from all others.
    pub(super) fn random(&self) -> &str {
        &self.holder.random
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    /// Canonical JSON.
    ///
    /// # Errors
    /// `Unexpected` if it has no JSON form.
    pub(super) fn to_bytes(&self) -> Result<Bytes> {
        let document = serde_json::to_value(self)
            .map_err(|e| Error::unexpected("a lease can't be written as JSON").with_source(e))?;
        Ok(canonical::seal(document)?.into())
    }

    /// # Errors
    /// `Integrity` if it is damaged, `Incompatible` if a later version wrote it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut record: Self = serde_json::from_value(canonical::open(bytes, SCHEMA)?)
            .map_err(|e| Error::integrity("the document lacks what every lease has").with_source(e))?;
        record.extra.remove("checksum");
        Ok(record)
    }

    /// The error of somebody who finds this holder.
    pub(super) fn busy(&self, message: &str) -> Error {
        Error::new(ErrorKind::Busy, message)
            .with_context("holder", self.holder.host.as_deref().unwrap_or("an unnamed machine"))
            .with_context("pid", self.holder.pid)
            .with_context("purpose", &self.holder.purpose)
    }
}

fn random() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_is_another_and_all_are_read_back() {
        let first = Record::new("prune", Duration::from_secs(60));
        let writes = [first.clone(), first.again(), first.released(), first.after(&first)];
        let bytes: Vec<_> = writes.iter().map(|record| record.to_bytes().unwrap()).collect();
        for (at, (record, text)) in writes.iter().zip(&bytes).enumerate() {
            assert_eq!(&Record::from_bytes(text).unwrap(), record);
            assert!(!bytes[..at].contains(text));
        }
        assert!(first.same_holder(&writes[2]) && !first.same_holder(&writes[3]));
        assert!(!first.same_holder(&Record::new("prune", Duration::from_secs(60))));
    }

    #[test]
    fn members_of_later_versions_survive() {
        let mut document = serde_json::to_value(Record::new("prune", Duration::from_secs(60))).unwrap();
        document["later"] = "kept".into();
        document["holder"]["later"] = "kept".into();
        let text = canonical::seal(document).unwrap();
        let record = Record::from_bytes(text.as_bytes()).unwrap();
        assert_eq!(record.to_bytes().unwrap(), text);
    }
}
