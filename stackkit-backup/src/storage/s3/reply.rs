//! What S3 answers, as XML.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stackkit_core::{Error, Result};

/// An error of the server.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Refusal {
    pub(super) code: String,
}

/// `GET ?versioning`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Versioning {
    pub(super) status: Option<String>,
}

/// `GET ?object-lock`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ObjectLock {
    pub(super) object_lock_enabled: Option<String>,
}

/// `GET key?retention`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Retention {
    pub(super) retain_until_date: Option<Timestamp>,
}

/// `GET key?legal-hold`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LegalHold {
    pub(super) status: Option<String>,
}

/// `GET ?versions`. Versions and delete markers are mixed, so each kind is a list of its own here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Versions {
    #[serde(rename = "Version")]
    pub(super) versions: Vec<Version>,
    #[serde(rename = "DeleteMarker")]
    pub(super) markers: Vec<Version>,
    pub(super) is_truncated: bool,
    pub(super) next_key_marker: Option<String>,
    pub(super) next_version_id_marker: Option<String>,
}

/// One version of an object, or one delete marker.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Version {
    pub(super) key: String,
    pub(super) version_id: String,
}

/// `GET ?uploads`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Uploads {
    #[serde(rename = "Upload")]
    pub(super) uploads: Vec<Upload>,
    pub(super) is_truncated: bool,
    pub(super) next_key_marker: Option<String>,
    pub(super) next_upload_id_marker: Option<String>,
}

/// One unfinished multipart upload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: Timestamp,
}

/// Reads an answer.
///
/// # Errors
/// `Unexpected` if it is not what S3 answers.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    quick_xml::de::from_reader(body)
        .map_err(|e| Error::unexpected("the storage's answer is not what S3 answers").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
    const NAMESPACE: &str = r#"xmlns="http://s3.amazonaws.com/doc/2006-03-01/""#;

    #[test]
    fn mixed_versions_and_markers_are_read() {
        let text = format!(
            "{HEAD}<ListVersionsResult {NAMESPACE}><Name>b</Name><Prefix>a</Prefix><KeyMarker></KeyMarker>\
             <DeleteMarker><Key>a</Key><VersionId>3</VersionId><IsLatest>true</IsLatest></DeleteMarker>\
             <Version><Key>a</Key><VersionId>2</VersionId><Size>4</Size><Owner><ID>x</ID></Owner></Version>\
             <DeleteMarker><Key>a</Key><VersionId>1</VersionId></DeleteMarker>\
             <Version><Key>a&amp;b</Key><VersionId>null</VersionId></Version>\
             <IsTruncated>true</IsTruncated><NextKeyMarker>a&amp;b</NextKeyMarker>\
             <NextVersionIdMarker>null</NextVersionIdMarker></ListVersionsResult>"
        );
        let found: Versions = parse(text.as_bytes()).unwrap();
        let ids =
            |versions: &[Version]| versions.iter().map(|v| format!("{} {}", v.key, v.version_id)).collect::<Vec<_>>();
        assert_eq!(ids(&found.versions), ["a 2", "a&b null"]);
        assert_eq!(ids(&found.markers), ["a 3", "a 1"]);
        assert_eq!((found.is_truncated, found.next_key_marker.as_deref()), (true, Some("a&b")));
    }

    #[test]
    fn empty_and_missing_elements_are_read() {
        let text = format!("{HEAD}<VersioningConfiguration {NAMESPACE}/>");
        assert_eq!(parse::<Versioning>(text.as_bytes()).unwrap().status, None);
        let text =
            format!("{HEAD}<VersioningConfiguration {NAMESPACE}><Status>Enabled</Status></VersioningConfiguration>");
        assert_eq!(parse::<Versioning>(text.as_bytes()).unwrap().status.as_deref(), Some("Enabled"));
        let text = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>";
        assert!(parse::<Uploads>(text.as_bytes()).unwrap().uploads.is_empty());
        let text =
            "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2026-11-22T10:00:00.123Z</RetainUntilDate></Retention>";
        let until = parse::<Retention>(text.as_bytes()).unwrap().retain_until_date.unwrap();
        assert_eq!(until.to_string(), "2026-11-22T10:00:00.123Z");
        for bad in ["", "<", "no xml", "<Retention><RetainUntilDate>soon</RetainUntilDate></Retention>"] {
            assert!(parse::<Retention>(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
