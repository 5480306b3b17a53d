//! Identities in files.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use stackkit_core::{Error, Result, Secret};

use super::Identity;
use super::file::{read_private_bytes, text};
use crate::age;

/// The rights of a file with a secret: its owner's only.
const MODE_SECRET: u32 = 0o600;

impl Identity {
    /// Reads an identity file, as `age-keygen` writes it.
    ///
    /// # Errors
    /// `PermissionDenied` if others than its owner have any right on it; `Config` if it holds no key or is protected by
    /// a passphrase; `NotFound` and the other kinds of the file system.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_private_bytes(path).map_err(|e| named(e, path))?;
        if age::is_file(&bytes) {
            let message = "the identity file is protected by a passphrase, which was not given";
            return Err(named(Error::config(message), path));
        }
        text(bytes).and_then(|text| Self::parse(&text)).map_err(|e| named(e, path))
    }

    /// Reads an identity file that `age -p` protects, armored or not. It takes about a second and some hundred MB of
    /// memory: that is what makes guessing dear.
    ///
    /// # Errors
    /// `Unauthenticated` if the passphrase is wrong; `Unsupported` if the file demands more work than 2²⁰ (1 GiB of
    /// memory); `Integrity` if it is damaged; otherwise as [`from_file`](Self::from_file).
    pub fn from_file_with_passphrase(path: impl AsRef<Path>, passphrase: &Secret) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_private_bytes(path).map_err(|e| named(e, path))?;
        if !age::is_file(&bytes) {
            let message = "the identity file is not protected by a passphrase";
            return Err(named(Error::config(message), path));
        }
        let plain = age::decrypt_with_passphrase(passphrase, &bytes);
        plain.and_then(text).and_then(|text| Self::parse(&text)).map_err(|e| named(e, path))
    }

    /// Writes an identity file that only its owner can read. A file that exists is not touched.
    ///
    /// # Errors
    /// `AlreadyExists`; the kinds of the file system.
    pub fn write_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let failed = |e| Error::io("write the identity", e).with_context("path", path.display());
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(MODE_SECRET).open(path).map_err(failed)?;
        file.write_all(self.to_file_text().expose().as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }
}

fn named(error: Error, path: &Path) -> Error {
    error.with_operation("read the identity").with_context("path", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use stackkit_core::ErrorKind;

    use super::super::file::FILE_BYTES_MAX;
    use super::*;

    #[test]
    fn a_written_file_is_its_owners_and_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.txt");
        let identity = Identity::generate().unwrap();
        identity.write_file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Identity::from_file(&path).unwrap().recipients(), identity.recipients());
        assert_eq!(identity.write_file(&path).err().unwrap().kind(), ErrorKind::AlreadyExists);
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = Identity::from_file(&path).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("chmod 600") && error.to_string().contains("key.txt"), "{error}");
        }
        assert_eq!(Identity::from_file(directory.path().join("none")).err().unwrap().kind(), ErrorKind::NotFound);
    }

    /// What `age -p` and `age -p -a` 1.1.1 made of `age/vectors/identity.txt`, with this passphrase.
    const PROTECTED: [&[u8]; 2] =
        [include_bytes!("vectors/passphrase.age"), include_bytes!("vectors/passphrase-armored.age")];
    const PASSPHRASE: &str = "correct horse";

    #[test]
    fn what_age_protects_by_a_passphrase_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.age");
        let expected = Identity::parse(&Secret::new(include_str!("../age/vectors/identity.txt"))).unwrap();
        for protected in PROTECTED {
            std::fs::write(&path, protected).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let identity = Identity::from_file_with_passphrase(&path, &Secret::new(PASSPHRASE)).unwrap();
            assert_eq!(identity.recipients(), expected.recipients());
            assert_eq!(Identity::from_file(&path).err().unwrap().kind(), ErrorKind::Config);
        }
        let wrong = Identity::from_file_with_passphrase(&path, &Secret::new("battery staple")).err().unwrap();
        assert_eq!(wrong.kind(), ErrorKind::Unauthenticated);
        assert!(!wrong.chain().to_string().contains("staple"), "{wrong}");
        std::fs::write(&path, expected.to_file_text().expose()).unwrap();
        let open = Identity::from_file_with_passphrase(&path, &Secret::new(PASSPHRASE)).err().unwrap();
        assert_eq!(open.kind(), ErrorKind::Config);
    }

    #[test]
    fn what_is_too_large_or_no_text_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.txt");
        for content in [vec![b'#'; FILE_BYTES_MAX + 1], vec![0xff; 10]] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert_eq!(Identity::from_file(&path).err().unwrap().kind(), ErrorKind::Config);
        }
    }
}
