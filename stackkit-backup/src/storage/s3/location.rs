//! The URL of a bucket: `s3://bucket/prefix?endpoint=…`.

use std::path::PathBuf;
use std::time::Duration;

use object_store::path::Path;
use stackkit_core::{Error, Result};
use url::Url;

/// The lengths that S3 allows for a bucket's name, in bytes.
const BUCKET_BYTES: std::ops::RangeInclusive<usize> = 3..=63;

/// The longest that one request may be allowed to take.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// A place in a bucket, and what the URL says of the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::storage) struct BucketLocation {
    pub(super) bucket: String,
    pub(super) prefix: Path,
    pub(super) endpoint: Option<Url>,
    pub(super) region: Option<String>,
    pub(super) path_style: Option<bool>,
    pub(super) profile: Option<String>,
    pub(super) credentials_file: Option<PathBuf>,
    pub(super) timeout: Option<Duration>,
}

impl BucketLocation {
    /// Reads the URL of a bucket.
    ///
    /// # Errors
    /// `Config`, which never repeats the URL: it may hold what must stay secret.
    pub(in crate::storage) fn parse(url: &Url) -> Result<Self> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::config(
                "credentials do not belong into a repository's URL: they come from the AWS environment or its files",
            ));
        }
        let wrong = || Error::config("a bucket is named as s3://bucket/prefix?endpoint=https://host:port&region=name");
        if url.port().is_some() || url.fragment().is_some() {
            return Err(wrong());
        }
        let bucket = url.host_str().filter(|name| is_bucket(name)).ok_or_else(wrong)?;
        let prefix = Path::from_url_path(url.path().trim_end_matches('/')).map_err(|e| {
            Error::config("the part after the bucket's name is no prefix that objects can have").with_source(e)
        })?;
        let mut location = Self { bucket: bucket.to_owned(), prefix, ..Self::default() };
        for (name, value) in url.query_pairs() {
            location.set(&name, &value)?;
        }
        Ok(location)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let repeated = match name {
            "endpoint" => self.endpoint.replace(endpoint(value)?).is_some(),
            "region" => self.region.replace(region(value)?).is_some(),
            "path_style" => self.path_style.replace(truth(name, value)?).is_some(),
            "profile" => self.profile.replace(value.to_owned()).is_some(),
            "credentials_file" => self.credentials_file.replace(PathBuf::from(value)).is_some(),
            "timeout" => self.timeout.replace(seconds(value)?).is_some(),
            _ => {
                return Err(Error::config(
                    "a bucket's URL knows endpoint, region, path_style, profile, credentials_file and timeout only",
                )
                .with_context("parameter", name));
            }
        };
        match repeated {
            false => Ok(()),
            true => Err(Error::config("a parameter stands twice in the bucket's URL").with_context("parameter", name)),
        }
    }
}

fn is_bucket(name: &str) -> bool {
    BUCKET_BYTES.contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// Reads the address of a server. Without `http://` in front, nothing is sent that is not encrypted.
///
/// # Errors
/// `Config`, without repeating it.
pub(super) fn endpoint(text: &str) -> Result<Url> {
    let wrong =
        || Error::config("an S3 endpoint is https://host:port, or http://host:port if nothing is to be encrypted");
    let url = Url::parse(text).map_err(|e| wrong().with_source(e))?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.path() == "/";
    match plain && url.has_host() && matches!(url.scheme(), "http" | "https") {
        true => Ok(url),
        false => Err(wrong()),
    }
}

/// Checks the name of a region: it becomes a part of a host's name.
pub(super) fn region(text: &str) -> Result<String> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        true => Ok(text.to_owned()),
        false => Err(Error::config("a region is named as eu-central-1").with_context("parameter", "region")),
    }
}

fn truth(name: &str, value: &str) -> Result<bool> {
    value.parse().map_err(|e| {
        Error::config("a parameter of the bucket's URL must be true or false")
            .with_context("parameter", name)
            .with_source(e)
    })
}

fn seconds(value: &str) -> Result<Duration> {
    let timeout = value.parse().ok().map(Duration::from_secs);
    timeout.filter(|timeout| !timeout.is_zero() && *timeout <= TIMEOUT_MAX).ok_or_else(|| {
        Error::config("the timeout of a bucket's requests is a whole number of seconds from 1 to 3600")
            .with_context("parameter", "timeout")
    })
}

#[cfg(test)]
mod tests {
    use stackkit_core::ErrorKind;

    use super::*;

    fn parse(url: &str) -> Result<BucketLocation> {
        BucketLocation::parse(&Url::parse(url).unwrap())
    }

    #[test]
    fn every_parameter_is_read() {
        let location = parse(
            "s3://my-Bucket.1/a%20b/c/?endpoint=http://127.0.0.1:9000&region=eu-west-1&path_style=false\
             &profile=backup&credentials_file=/run/secrets/s3&timeout=20",
        );
        let expected = BucketLocation {
            bucket: "my-Bucket.1".to_owned(),
            prefix: Path::from("a b/c"),
            endpoint: Some(Url::parse("http://127.0.0.1:9000").unwrap()),
            region: Some("eu-west-1".to_owned()),
            path_style: Some(false),
            profile: Some("backup".to_owned()),
            credentials_file: Some(PathBuf::from("/run/secrets/s3")),
            timeout: Some(Duration::from_secs(20)),
        };
        assert_eq!(location.unwrap(), expected);
        for (url, prefix) in [("s3://bucket", ""), ("s3://bucket/", ""), ("s3://bucket/x", "x")] {
            assert_eq!(parse(url).unwrap().prefix, Path::from(prefix), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_what_is_secret_is_not_repeated() {
        for (url, told) in [
            ("s3://key:hunter2@bucket/x", "credentials do not belong"),
            ("s3://hunter2@bucket/x", "credentials do not belong"),
            ("s3://bucket/x?endpoint=http://key:hunter2@host", "an S3 endpoint is"),
            ("s3://bucket/x?endpoint=host:9000", "an S3 endpoint is"),
            ("s3://bucket/x?endpoint=ftp://host", "an S3 endpoint is"),
            ("s3://bucket/x?secret_access_key=hunter2", "parameter=secret_access_key"),
            ("s3://bucket/x?region=a/hunter2", "a region is named"),
            ("s3://bucket/x?path_style=1", "parameter=path_style"),
            ("s3://bucket/x?timeout=0", "parameter=timeout"),
            ("s3://bucket/x?timeout=99999", "parameter=timeout"),
            ("s3://bucket/x?region=a&region=b", "stands twice"),
            ("s3://bucket:9000/x", "s3://bucket/prefix"),
            ("s3://b/x", "s3://bucket/prefix"),
            ("s3:///x", "s3://bucket/prefix"),
            ("s3://bucket/a//b", "no prefix"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(error.to_string().contains(told), "{url}: {error}");
            assert!(!error.chain().to_string().contains("hunter2"), "{url}: {}", error.chain());
        }
    }
}
