//! The file format of `age`, version 1, without I/O: <https://c2sp.org/age>.
//!
//! A file is a header and a payload. The header wraps one random file key once for each recipient; the payload is a
//! nonce and chunks of 64 KiB, each sealed on its own, so any of them can be opened alone.
//!
//! What this does *not* do: no other recipients than X25519 are written, no plugins, no SSH keys.

mod armor;
mod base64;
mod header;
mod payload;
mod stanza;

use ring::rand::{SecureRandom, SystemRandom};
use stackkit_core::{Error, ErrorKind, Result, Secret};
use zeroize::Zeroizing;

pub(crate) use header::{HEADER_BYTES_MAX, Opened, Unlock, open_header, write_header};
pub(crate) use payload::{CHUNK_BYTES, Chunk, NONCE_BYTES, Opener, SEALED_CHUNK_BYTES, Sealer, sealed_bytes};

use crate::keys::{Identity, Recipient};

/// Bytes of a file key.
pub(crate) const FILE_KEY_BYTES: usize = 16;

/// The key that a header wraps.
pub(crate) type FileKey = Zeroizing<[u8; FILE_KEY_BYTES]>;

/// Encrypts a small object to `recipients`.
///
/// # Errors
/// `Config` if there is no recipient, or one that is no key; `Unexpected` if the system has no randomness.
pub(crate) fn encrypt(recipients: &[Recipient], plain: &[u8]) -> Result<Vec<u8>> {
    let (mut file, mut sealer) = write_header(recipients)?;
    file.reserve(usize::try_from(sealed_bytes(plain.len() as u64)).unwrap_or(0));
    let mut chunks = plain.chunks(CHUNK_BYTES).peekable();
    if chunks.peek().is_none() {
        sealer.seal(&mut file, Chunk::EMPTY, Chunk::Last)?;
    }
    while let Some(chunk) = chunks.next() {
        file.extend_from_slice(chunk);
        let kind = if chunks.peek().is_some() { Chunk::Inner } else { Chunk::Last };
        sealer.seal(&mut file, chunk.len(), kind)?;
    }
    Ok(file)
}

/// Decrypts a small object.
///
/// # Errors
/// `Unauthenticated` if none of the identity's keys can read it; `Integrity` if it is damaged.
pub(crate) fn decrypt(identity: &Identity, file: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    decrypt_with(&Unlock::Identity(identity), file)
}

/// Decrypts a file that `age -p` made, armored or not.
///
/// # Errors
/// `Unauthenticated` if the passphrase is wrong; `Unsupported` if it demands more work than is allowed; `Integrity`
/// if it is damaged.
pub(crate) fn decrypt_with_passphrase(passphrase: &Secret, file: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let unlock = Unlock::Passphrase(passphrase);
    match armor::is_armored(file) {
        true => decrypt_with(&unlock, &armor::decode(file)?),
        false => decrypt_with(&unlock, file),
    }
}

/// Whether bytes begin as a file of `age` does, armored or not.
pub(crate) fn is_file(bytes: &[u8]) -> bool {
    header::is_header(bytes) || armor::is_armored(bytes)
}

fn decrypt_with(unlock: &Unlock<'_>, file: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let Opened { header_bytes, file_key } = open_header(file, unlock)?;
    let (nonce, sealed) = file[header_bytes..].split_at_checked(NONCE_BYTES).ok_or_else(cut)?;
    let opener = Opener::new(&file_key, nonce)?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    let plain_bytes = opener.open_all(&mut plain)?;
    plain.truncate(plain_bytes);
    Ok(plain)
}

/// Fills `bytes` with randomness of the system.
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|ring::error::Unspecified| Error::unexpected("the system gives no random bytes"))
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Integrity, format!("the encrypted bytes are damaged: {what}"))
}

fn cut() -> Error {
    damaged("they end too early")
}

#[cfg(test)]
mod tests;
