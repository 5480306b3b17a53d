//! Files of keys.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use stackkit_core::{Error, ErrorKind, Result, Secret};
use zeroize::Zeroizing;

/// The largest key file that is read: hundreds of keys with comments.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Reads the text of a file that only its owner can read.
///
/// # Errors
/// `NotFound`; `PermissionDenied` if others can read it; `Config` if it is no text file of a key's size; `Io`.
pub(crate) fn read_private(path: &Path) -> Result<Secret> {
    let file = open(path)?;
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::mode(&file.metadata().map_err(|e| Error::io("open", e))?) & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "others than its owner can read the file of a private key: run `chmod 600` on it",
        ));
    }
    let mut text = Zeroizing::new(String::new());
    read_text(file, &mut text)?;
    Ok(Secret::new(std::mem::take(&mut *text)))
}

/// Reads the text of a file of public keys.
///
/// # Errors
/// `NotFound`; `Config` if it is no text file of a key's size; `Io`.
pub(crate) fn read_public(path: &Path) -> Result<String> {
    let mut text = String::new();
    read_text(open(path)?, &mut text)?;
    Ok(text)
}

fn open(path: &Path) -> Result<File> {
    // Asked before it is opened: to open a named pipe would wait for its writer.
    match std::fs::metadata(path).map_err(|e| Error::io("open", e))?.is_file() {
        true => File::open(path).map_err(|e| Error::io("open", e)),
        false => Err(Error::config("a key is read from a regular file")),
    }
}

fn read_text(file: File, text: &mut String) -> Result<()> {
    // Room for the largest file, so that no copy of a key is left behind when the text grows.
    text.reserve_exact(usize::try_from(FILE_BYTES_MAX + 1).unwrap_or_default());
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(text);
    read.map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => Error::config("the file is no text"),
        _ => Error::io("read", e),
    })?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(Error::config("the file is too large for a key")),
        false => Ok(()),
    }
}
