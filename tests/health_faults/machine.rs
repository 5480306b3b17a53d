//! Tools of the machine that make servers fail: stopped processes, certificates, files that belong to a server.

use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};

/// A process that does nothing until the value is gone; its sockets stay open.
pub(crate) struct Stopped(Pid);

impl Stopped {
    pub(crate) fn stop(pid: u32) -> Self {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Writes a file that the owner of `folder` alone may read.
pub(crate) fn write_private(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let owner = std::fs::metadata(folder).unwrap();
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    path
}

/// A certificate for `localhost` and 127.0.0.1 that vouches for itself, and its key, as PEM.
pub(crate) fn certificate(until_year: i32) -> (String, String) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A year in which no certificate of these tests is valid any more, and one in which all are.
pub(crate) const EXPIRED: i32 = 2001;
pub(crate) const VALID: i32 = 4000;
