//! What a bucket can do beyond keeping objects: versions, locks, and a list of unfinished uploads.

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use object_store::path::Path;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use stackkit_core::{Error, Result};
use tokio::sync::OnceCell;

use super::client::{Client, Refused, Request, Retry, sha256};
use super::key_of;
use super::reply::{self, LegalHold, ObjectLock, Retention, Uploads, Version, Versioning, Versions};
use crate::storage::{Deleted, DeletedBytes, ObjectLockMode, unlockable};

/// Pages of a listing that are followed: at 1,000 names each, more than any single object has versions.
const PAGES_MAX: usize = 10_000;

/// A time as S3 takes it, to the second.
const SECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(0));

/// A bucket, and the folder in it that is the repository's.
#[derive(Debug)]
pub(in crate::storage) struct Bucket {
    client: Client,
    prefix: Path,
    nature: OnceCell<Nature>,
}

/// How a bucket was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) struct Nature {
    /// It keeps old versions.
    pub(in crate::storage) versioning: bool,
    /// It knows locks.
    pub(in crate::storage) object_lock: bool,
}

impl Bucket {
    pub(super) fn new(client: Client, prefix: Path) -> Self {
        Self { client, prefix, nature: OnceCell::new() }
    }

    /// Asks for one name, once: what does not answer, or refuses the credentials, is known soon.
    pub(super) async fn greet(&self) -> Result<()> {
        let request = Request::new("open the repository", Method::GET, None)
            .query("list-type", "2")
            .query("max-keys", "1")
            .query("prefix", self.prefix.as_ref());
        match self.client.send(&request, Retry::Never).await? {
            Ok(_) => Ok(()),
            Err(refused) => Err(refused.error(&request).with_context("bucket", self.client.url.as_str())),
        }
    }

    /// How the bucket was set up; asked once. What may not be asked, or is not known there, counts as not set up.
    pub(in crate::storage) async fn nature(&self) -> Result<Nature> {
        let ask = || async {
            let versioning: Option<Versioning> = self.property("versioning").await?;
            let lock: Option<ObjectLock> = self.property("object-lock").await?;
            Ok(Nature {
                versioning: versioning.and_then(|found| found.status).is_some_and(|status| status == "Enabled"),
                object_lock: lock.and_then(|found| found.object_lock_enabled).is_some_and(|lock| lock == "Enabled"),
            })
        };
        self.nature.get_or_try_init(ask).await.copied()
    }

    async fn property<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>> {
        let request = Request::new("ask for the bucket's set-up", Method::GET, None).query(name, "");
        match self.client.send(&request, Retry::Bounded).await? {
            Ok(body) => reply::parse(&body).map(Some),
            Err(Refused { status, .. }) if is_unknown(status) || status == StatusCode::FORBIDDEN => Ok(None),
            Err(refused) => Err(refused.error(&request)),
        }
    }

    /// What becomes of deleted bytes: in a bucket with locks, [`delete_versions`](Self::delete_versions) frees them.
    pub(in crate::storage) async fn deleted_bytes(&self) -> Result<DeletedBytes> {
        let nature = self.nature().await?;
        match nature.versioning && !nature.object_lock {
            true => Ok(DeletedBytes::KeptAsVersions),
            false => Ok(DeletedBytes::Freed),
        }
    }

    /// Deletes an object with all its versions, for buckets with locks: there a plain deletion only hides it.
    ///
    /// If any version is locked, the object stays as visible as it was.
    pub(in crate::storage) async fn delete_versions(&self, operation: &'static str, path: &Path) -> Result<Deleted> {
        let key = key_of(&self.prefix, path);
        let Versions { versions, markers, .. } = self.versions(operation, &key).await?;
        if versions.is_empty() && markers.is_empty() {
            return Ok(Deleted::Absent);
        }
        // Newest first is the order of the listing. The newest is deleted last, so that no older one shows up instead
        // of it; markers after all versions, for the same reason.
        let mut locked: Option<Deleted> = None;
        for version in versions.iter().rev() {
            if let Some(found) = self.delete_version(operation, &key, version).await? {
                locked = Some(later(locked, found));
            }
        }
        if let Some(locked) = locked {
            return Ok(locked);
        }
        for marker in &markers {
            self.delete_version(operation, &key, marker).await?;
        }
        Ok(if versions.is_empty() { Deleted::Absent } else { Deleted::Gone })
    }

    /// Deletes one version; `Some` if it is locked.
    async fn delete_version(&self, operation: &'static str, key: &Path, version: &Version) -> Result<Option<Deleted>> {
        let id = version.version_id.as_str();
        let request = Request::new(operation, Method::DELETE, Some(key)).query("versionId", id);
        let refused = match self.client.send(&request, Retry::Bounded).await? {
            Ok(_) => return Ok(None),
            Err(Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
            Err(refused) => refused,
        };
        // The refusal does not say why: Amazon's servers answer 403, others 400.
        let held: Option<LegalHold> = self.lock(operation, key, ("legal-hold", id)).await?;
        if held.and_then(|hold| hold.status).is_some_and(|status| status == "ON") {
            return Ok(Some(Deleted::Locked { until: None }));
        }
        let retention: Option<Retention> = self.lock(operation, key, ("retention", id)).await?;
        match retention.and_then(|retention| retention.retain_until_date) {
            Some(until) => Ok(Some(Deleted::Locked { until: Some(until) })),
            None => Err(refused.error(&request)),
        }
    }

    /// One kind of lock of a version, or of the newest for an empty id; `None` if there is none.
    async fn lock<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        key: &Path,
        (kind, version): (&'static str, &str),
    ) -> Result<Option<T>> {
        let mut request = Request::new(operation, Method::GET, Some(key)).query(kind, "");
        if !version.is_empty() {
            request = request.query("versionId", version);
        }
        match self.client.send(&request, Retry::Bounded).await? {
            Ok(body) => reply::parse(&body).map(Some),
            Err(Refused { code, .. }) if code == "NoSuchKey" => {
                Err(Refused { status: StatusCode::NOT_FOUND, code }.error(&request))
            }
            // Without locks in the bucket the answer is 400, without one at the object 404.
            Err(Refused { status, .. }) if is_unknown(status) || status == StatusCode::BAD_REQUEST => Ok(None),
            Err(refused) => Err(refused.error(&request)),
        }
    }

    /// All versions of one object, newest first.
    async fn versions(&self, operation: &'static str, key: &Path) -> Result<Versions> {
        let mut all = Versions::default();
        let (mut key_marker, mut version_marker) = (None, None);
        for _ in 0..PAGES_MAX {
            let mut request =
                Request::new(operation, Method::GET, None).query("versions", "").query("prefix", key.as_ref());
            if let Some(marker) = key_marker.take() {
                request = request.query("key-marker", marker);
            }
            if let Some(marker) = version_marker.take() {
                request = request.query("version-id-marker", marker);
            }
            let page: Versions = reply::parse(&self.client.ask(&request).await?)?;
            let beyond = page.versions.iter().chain(&page.markers).any(|version| version.key != key.as_ref());
            let ours = |version: &Version| version.key == key.as_ref();
            all.versions.extend(page.versions.into_iter().filter(ours));
            all.markers.extend(page.markers.into_iter().filter(ours));
            // Names are in order: after the object come those that are longer.
            if beyond || !page.is_truncated || page.next_key_marker.is_none() {
                return Ok(all);
            }
            (key_marker, version_marker) = (page.next_key_marker, page.next_version_id_marker);
        }
        Err(Error::unexpected("a listing of versions has no end").with_operation(operation).with_context("object", key))
    }

    /// Locks the newest version of an object.
    pub(in crate::storage) async fn retain_until(
        &self,
        operation: &'static str,
        path: &Path,
        until: Timestamp,
        mode: ObjectLockMode,
    ) -> Result<()> {
        let key = key_of(&self.prefix, path);
        let body = Bytes::from(format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode>\
             <RetainUntilDate>{}</RetainUntilDate></Retention>",
            SECONDS.timestamp_to_string(&whole_seconds(until))
        ));
        let request = Request::new(operation, Method::PUT, Some(&key))
            .query("retention", "")
            .header("content-type", "application/xml")
            .header("x-amz-checksum-sha256", sha256(&body))
            .header("x-amz-sdk-checksum-algorithm", "SHA256");
        let request = Request { body, ..request };
        match self.client.send(&request, Retry::Bounded).await? {
            Ok(_) => Ok(()),
            // A bucket without locks is told with the code of many other faults.
            Err(Refused { status: StatusCode::BAD_REQUEST, .. }) if !self.nature().await?.object_lock => {
                Err(unlockable(operation, path))
            }
            Err(refused) => Err(refused.error(&request)),
        }
    }

    /// Until when the newest version of an object is locked.
    pub(in crate::storage) async fn locked_until(
        &self,
        operation: &'static str,
        path: &Path,
    ) -> Result<Option<Timestamp>> {
        let key = key_of(&self.prefix, path);
        let retention: Option<Retention> = self.lock(operation, &key, ("retention", "")).await?;
        Ok(retention.and_then(|retention| retention.retain_until_date))
    }

    /// Ends multipart uploads below a folder of the prefix that began before `older_than`; returns how many.
    pub(in crate::storage) async fn abort_uploads(&self, folder: &Path, older_than: Timestamp) -> Result<u64> {
        let operation = "remove unfinished uploads";
        let prefix = match folder.parts().fold(self.prefix.clone(), |path, part| path.join(part)).as_ref() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let (mut key_marker, mut upload_marker) = (String::new(), String::new());
        let mut aborted = 0;
        for _ in 0..PAGES_MAX {
            let request = Request::new(operation, Method::GET, None)
                .query("uploads", "")
                .query("prefix", prefix.as_str())
                .query("key-marker", key_marker.as_str())
                .query("upload-id-marker", upload_marker.as_str());
            let body = match self.client.send(&request, Retry::Bounded).await? {
                Ok(body) => body,
                // Where nobody can list them, their storage removes them by a rule of its own.
                Err(Refused { status, .. }) if is_unknown(status) => return Ok(aborted),
                Err(refused) => return Err(refused.error(&request)),
            };
            let page: Uploads = reply::parse(&body)?;
            for upload in page.uploads.iter().filter(|upload| upload.initiated < older_than) {
                // The name is the storage's, so it is taken as it is.
                let key = Path::parse(&upload.key)
                    .map_err(|e| Error::unexpected("an upload has a name that no object can have").with_source(e))?;
                let request =
                    Request::new(operation, Method::DELETE, Some(&key)).query("uploadId", upload.upload_id.as_str());
                match self.client.send(&request, Retry::Bounded).await? {
                    Ok(_) => aborted += 1,
                    Err(Refused { status: StatusCode::NOT_FOUND, .. }) => {}
                    Err(refused) => return Err(refused.error(&request)),
                }
            }
            match (page.is_truncated, page.next_key_marker) {
                (true, Some(marker)) => key_marker = marker,
                _ => return Ok(aborted),
            }
            upload_marker = page.next_upload_id_marker.unwrap_or_default();
        }
        Err(Error::unexpected("a listing of uploads has no end").with_operation(operation))
    }
}

/// What servers answer to a question that they do not know, or whose answer is "nothing".
fn is_unknown(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED)
}

/// Of two locks the one that ends later; one without a known end is the latest.
fn later(one: Option<Deleted>, other: Deleted) -> Deleted {
    match (one, other) {
        (Some(Deleted::Locked { until: Some(one) }), Deleted::Locked { until: Some(other) }) => {
            Deleted::Locked { until: Some(one.max(other)) }
        }
        (Some(locked @ Deleted::Locked { until: None }), _) => locked,
        (_, other) => other,
    }
}

/// The time in whole seconds, rounded up: a lock must not end too early.
fn whole_seconds(time: Timestamp) -> Timestamp {
    match time.subsec_nanosecond() > 0 {
        true => Timestamp::from_second(time.as_second().saturating_add(1)).unwrap_or(Timestamp::MAX),
        false => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_never_end_too_early() {
        for (time, text) in [
            ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"),
            ("2026-11-22T10:00:00.000000001Z", "2026-11-22T10:00:01Z"),
            ("2026-11-22T10:59:59.9Z", "2026-11-22T11:00:00Z"),
        ] {
            assert_eq!(SECONDS.timestamp_to_string(&whole_seconds(time.parse().unwrap())), text);
        }
    }

    #[test]
    fn of_two_locks_the_later_counts() {
        let [early, late]: [Timestamp; 2] = [1, 2].map(|second| Timestamp::from_second(second).unwrap());
        let lock = |until| Deleted::Locked { until };
        assert_eq!(later(None, lock(Some(early))), lock(Some(early)));
        assert_eq!(later(Some(lock(Some(late))), lock(Some(early))), lock(Some(late)));
        assert_eq!(later(Some(lock(Some(early))), lock(None)), lock(None));
        assert_eq!(later(Some(lock(None)), lock(Some(late))), lock(None));
    }
}
