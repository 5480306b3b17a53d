//! Where a volume is and how it is looked at.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use stackkit_core::{ConfigFault, Error, Result, ServiceId};

use crate::expected::ExpectedWrite;

/// The environment variable that [`Volume::from_env`](crate::Volume::from_env) reads the directory from.
pub const ENV_PATH: &str = "STACKKIT_VOLUME_PATH";

/// How many links are followed one after the other (`MAXSYMLINKS` of Linux).
const LINKS_MAX: usize = 40;

/// The id of a volume whose own is missing or not valid.
pub(crate) const DEFAULT_ID: &str = "volume";

/// The settings of a [`Volume`](crate::Volume).
#[derive(Debug, Clone)]
pub(crate) struct VolumeConfig {
    pub(crate) id: ServiceId,
    pub(crate) path: PathBuf,
    /// Nothing is ever written to it on purpose.
    pub(crate) is_read_only: bool,
    /// It has to be a mount point.
    pub(crate) is_mount_point: bool,
    /// The next large write, such as a backup.
    pub(crate) expected_write: ExpectedWrite,
    /// What was wrong with the id.
    id_fault: Option<ConfigFault>,
}

impl VolumeConfig {
    /// Takes everything over; what is wrong is told by [`validate`](Self::validate).
    pub(crate) fn new(id: &str, path: PathBuf) -> Self {
        let (id, id_fault) = ServiceId::or_fault(id, DEFAULT_ID, "volume.id");
        let expected_write = ExpectedWrite::default();
        Self { id, path, is_read_only: false, is_mount_point: false, expected_write, id_fault }
    }

    /// Replaces the id.
    pub(crate) fn set_id(&mut self, id: &str) {
        (self.id, self.id_fault) = ServiceId::or_fault(id, DEFAULT_ID, "volume.id");
    }

    /// Everything that is wrong, at once.
    pub(crate) fn validate(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        faults.extend(self.id_fault.clone());
        let path = self.path.display();
        if !self.path.is_absolute() {
            let message = format!("the path {path:?} is not absolute; give the whole path");
            faults.push(ConfigFault::error("volume.path.relative", message));
        } else if self.path.components().any(|component| component == Component::ParentDir) {
            let message = format!("the path {path:?} holds `..`; write it out");
            faults.push(ConfigFault::error("volume.path.parent", message));
        } else if self.path.parent().is_none() {
            let message = "the root directory of the system is not a volume; name a directory in it".to_owned();
            faults.push(ConfigFault::error("volume.path.root", message));
        }
        faults
    }
}

/// The directory that a `file://` URL names.
///
/// # Errors
/// `Config` for another scheme, a host other than `localhost`, a query, or a broken escape.
pub(crate) fn path_of_url(url: &str) -> Result<PathBuf> {
    let fault = |reason: &str| Error::config(format!("a volume's URL is file:///absolute/path: {reason}"));
    let rest = url.strip_prefix("file://").ok_or_else(|| fault("it has another scheme"))?;
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(fault("it names another host"));
    }
    if path.contains(['?', '#']) {
        return Err(fault("it holds a query or fragment; write ? as %3F and # as %23"));
    }
    let bytes = unescape(path.as_bytes()).ok_or_else(|| fault("it holds a broken % escape"))?;
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// Undoes percent encoding (RFC 3986, section 2.1); `None` for a broken or NUL escape.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match first {
            b'%' => {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                (u8::from_str_radix(digits, 16).ok().filter(|byte| *byte != 0)?, &tail[2..])
            }
            byte => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    Some(bytes)
}

/// The path itself, with the symbolic links that lead to it resolved, also where the directory is gone: a restore
/// replaces the directory, not a link.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        if let Ok(resolved) = path.canonicalize() {
            return resolved;
        }
        let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
        let (Some(parent), Some(name)) = (parent, path.file_name()) else { return path };
        let place = parent.join(name);
        match place.read_link() {
            Ok(target) => path = parent.join(target),
            Err(_no_link) => return place,
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(id: &str, path: &str) -> Vec<String> {
        VolumeConfig::new(id, path.into()).validate().into_iter().map(|fault| fault.code).collect()
    }

    #[test]
    fn all_faults_are_told_at_once() {
        assert_eq!(codes("uploads", "/srv/uploads"), [""; 0]);
        assert_eq!(codes("a b", "uploads"), ["volume.id", "volume.path.relative"]);
        assert_eq!(codes("a", "/srv/../etc"), ["volume.path.parent"]);
        assert_eq!(codes("a", "/"), ["volume.path.root"]);
    }

    #[test]
    fn urls_name_local_directories() {
        let path = |url| path_of_url(url).map(|path| path.into_os_string().into_vec());
        assert_eq!(path("file:///srv/my%20files").unwrap(), b"/srv/my files");
        assert_eq!(path("file://localhost/srv/%FF").unwrap(), b"/srv/\xff");
        for bad in ["http:///srv", "file://host/srv", "file:srv", "file:///a?b", "file:///a%2", "file:///a%00", "/srv"]
        {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
