//! Files of keys.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use stackkit_core::{Error, ErrorKind, Result, Secret};
use zeroize::{Zeroize, Zeroizing};

/// The largest key file that is read: hundreds of keys with comments.
pub(super) const FILE_BYTES_MAX: usize = 64 << 10;

/// The rights of everybody but the owner.
const MODE_OTHERS: u32 = 0o077;

/// Reads a file that only its owner can use.
///
/// # Errors
/// `NotFound`; `PermissionDenied` if others have any right on it; `Config` if it is no file of a key's size; `Io`.
pub(crate) fn read_private_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let file = open(path)?;
    // Of the open file: what lies at the path may be exchanged meanwhile.
    let mode = file.metadata().map_err(|e| Error::io("open", e))?.mode();
    if mode & MODE_OTHERS != 0 {
        let message = "others than its owner can use the file of a private key: run `chmod 600` on it";
        return Err(
            Error::new(ErrorKind::PermissionDenied, message).with_context("mode", format!("{:o}", mode & 0o777))
        );
    }
    read_bytes(file)
}

/// Reads the text of a file that only its owner can use.
///
/// # Errors
/// As [`read_private_bytes`]; `Config` if it is no text.
pub(crate) fn read_private(path: &Path) -> Result<Secret> {
    text(read_private_bytes(path)?)
}

/// Reads the text of a file of public keys.
///
/// # Errors
/// `NotFound`; `Config` if it is no text file of a key's size; `Io`.
pub(crate) fn read_public(path: &Path) -> Result<String> {
    Ok(text(read_bytes(open(path)?)?)?.expose().to_owned())
}

fn open(path: &Path) -> Result<File> {
    // Asked before it is opened: to open a named pipe would wait for its writer.
    match std::fs::metadata(path).map_err(|e| Error::io("open", e))?.is_file() {
        true => File::open(path).map_err(|e| Error::io("open", e)),
        false => Err(Error::config("a key is read from a regular file")),
    }
}

fn read_bytes(file: File) -> Result<Zeroizing<Vec<u8>>> {
    // Room for the largest file, so that no copy of a key is left behind when the buffer grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", e))?;
    match bytes.len() > FILE_BYTES_MAX {
        true => Err(Error::config("the file is too large for a key").with_context("bytes_max", FILE_BYTES_MAX)),
        false => Ok(bytes),
    }
}

/// Bytes as a secret text, without a copy.
///
/// # Errors
/// `Config` if they are none.
pub(super) fn text(mut bytes: Zeroizing<Vec<u8>>) -> Result<Secret> {
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Secret::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            Err(Error::config("the key is no text"))
        }
    }
}
