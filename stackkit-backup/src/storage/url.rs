//! The names of repositories.

use std::path::PathBuf;

use stackkit_core::{Error, ErrorKind, Result};
use url::Url;

/// What the URL of a directory begins with.
const FILE: &str = "file://";

/// What the name of a store in memory begins with.
const MEMORY: &str = "memory:";

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// In a directory of this machine.
    Directory(PathBuf),
    /// In memory, under a name that the process shares; without a name, nobody shares it.
    Memory(String),
    /// In a bucket.
    #[cfg(feature = "s3")]
    Bucket(Box<super::s3::BucketLocation>),
}

impl Location {
    /// Reads `file:///path`, an absolute path, `memory:NAME`, or `s3://bucket/prefix?…`.
    ///
    /// # Errors
    /// `Unsupported` for a scheme of another storage, `Config` for what names no place.
    pub(super) fn parse(url: &str) -> Result<Self> {
        if url.starts_with('/') {
            return Ok(Self::Directory(PathBuf::from(url)));
        }
        if let Some(name) = url.strip_prefix(MEMORY) {
            return Ok(Self::Memory(name.to_owned()));
        }
        // The text is not repeated in errors: it may hold a password.
        let parsed = Url::parse(url).map_err(|e| {
            Error::config("a repository is named by a URL such as file:///var/backups, or by an absolute path")
                .with_source(e)
        })?;
        match parsed.scheme() {
            "file" => directory_of(url, &parsed).map(Self::Directory),
            #[cfg(feature = "s3")]
            "s3" => super::s3::BucketLocation::parse(&parsed).map(Box::new).map(Self::Bucket),
            #[cfg(not(feature = "s3"))]
            "s3" => Err(Error::new(
                ErrorKind::Unsupported,
                "this program was built without S3: the feature `backup-s3` of the crate `stackkit` adds it",
            )),
            other => Err(Error::new(ErrorKind::Unsupported, "there are no repositories at URLs of this scheme")
                .with_context("scheme", other)),
        }
    }
}

fn directory_of(url: &str, parsed: &Url) -> Result<PathBuf> {
    let refused = || Error::config("a file URL has three slashes and an absolute path: file:///var/backups");
    // A URL without slashes would be taken for an absolute path, and one with a control character for one without it.
    let slashes = url.get(..FILE.len()).is_some_and(|start| start.eq_ignore_ascii_case(FILE));
    if !slashes || url.contains(char::is_control) || parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(refused());
    }
    parsed.to_file_path().map_err(|()| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths_name_places() {
        let directory = |path: &str| Location::Directory(PathBuf::from(path));
        for (url, place) in [
            ("/var/backups", directory("/var/backups")),
            ("file:///var/my%20backups", directory("/var/my backups")),
            ("memory:", Location::Memory(String::new())),
            ("memory:shop", Location::Memory("shop".to_owned())),
        ] {
            assert_eq!(Location::parse(url).unwrap(), place, "{url}");
        }
    }

    #[test]
    fn what_names_no_place_is_refused_without_repeating_it() {
        for (bad, kind) in [
            ("ftp://key:hunter2@bucket/x", ErrorKind::Unsupported),
            ("var/backups", ErrorKind::Config),
            #[cfg(feature = "s3")]
            ("s3://key:hunter2@bucket/x", ErrorKind::Config),
            #[cfg(not(feature = "s3"))]
            ("s3://key:hunter2@bucket/x", ErrorKind::Unsupported),
            ("file://host/var", ErrorKind::Config),
            ("file:///var?x=1", ErrorKind::Config),
            ("file:var/backups", ErrorKind::Config),
            ("file:/var/backups", ErrorKind::Config),
            ("file:///var/back\nups", ErrorKind::Config),
            ("", ErrorKind::Config),
        ] {
            let error = Location::parse(bad).unwrap_err();
            assert_eq!(error.kind(), kind, "{bad}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
