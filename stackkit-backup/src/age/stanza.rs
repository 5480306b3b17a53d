//! How a file key is wrapped: to an X25519 key, or by a passphrase.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use scrypt::Params;
use stackkit_core::{Error, ErrorKind, Result, Secret};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::payload::TAG_BYTES;
use super::{FILE_KEY_BYTES, FileKey, base64, damaged, random};

/// The type of a stanza for an X25519 key.
pub(super) const X25519: &str = "X25519";

/// The type of a stanza for a passphrase.
pub(super) const SCRYPT: &str = "scrypt";

const X25519_INFO: &[u8] = b"age-encryption.org/v1/X25519";
const SCRYPT_INFO: &[u8] = b"age-encryption.org/v1/scrypt";

/// Bytes of a key of X25519 and of a wrapping key.
const KEY_BYTES: usize = 32;

/// Bytes of the salt of a passphrase's stanza.
const SALT_BYTES: usize = 16;

/// The parameters r and p of scrypt that the format fixes.
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;

/// The most work that a passphrase's stanza may demand, as a power of two: 1 GiB of memory and a few seconds. `age -p`
/// writes 18. A file must not be able to take the memory of the machine.
pub(crate) const SCRYPT_LOG_N_MAX: u8 = 20;

/// One recipient's part of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stanza {
    /// The type and its arguments; at least the type.
    pub(super) arguments: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Stanza {
    pub(super) fn is(&self, kind: &str) -> bool {
        self.arguments.first().is_some_and(|first| first == kind)
    }
}

/// Wraps a file key so that the owner of `recipient` can read it.
///
/// # Errors
/// `Config` if the recipient is a point of low order: everybody could read it.
pub(super) fn wrap(file_key: &FileKey, recipient: &[u8; KEY_BYTES]) -> Result<Stanza> {
    let mut secret = Zeroizing::new([0; KEY_BYTES]);
    random(&mut *secret)?;
    let secret = StaticSecret::from(*secret);
    let share = PublicKey::from(&secret);
    let shared = secret.diffie_hellman(&PublicKey::from(*recipient));
    if !shared.was_contributory() {
        return Err(Error::config("the recipient is not a key: what is encrypted to it could be read by everybody"));
    }
    let key = x25519_key(share.as_bytes(), recipient, shared.as_bytes())?;
    let mut body = file_key.to_vec();
    let tag = key.seal_in_place_separate_tag(no_nonce(), Aad::empty(), &mut body).map_err(|_too_long| unexpected())?;
    body.extend_from_slice(tag.as_ref());
    Ok(Stanza { arguments: vec![X25519.to_owned(), base64::encode(share.as_bytes())], body })
}

/// The file key of an X25519 stanza; `None` if it is for another key.
///
/// # Errors
/// `Integrity` if the stanza is not in its form, or its share is a point of low order.
pub(super) fn unwrap(stanza: &Stanza, secret: &StaticSecret, public: &[u8; KEY_BYTES]) -> Result<Option<FileKey>> {
    let wrong = || damaged("a stanza of the header is not in its form");
    let [_, share] = stanza.arguments.as_slice() else {
        return Err(wrong());
    };
    let share = base64::decode(share.as_bytes()).and_then(|share| <[u8; KEY_BYTES]>::try_from(share).ok());
    let share = share.ok_or_else(wrong)?;
    if stanza.body.len() != FILE_KEY_BYTES + TAG_BYTES {
        return Err(wrong());
    }
    let shared = secret.diffie_hellman(&PublicKey::from(share));
    if !shared.was_contributory() {
        return Err(wrong());
    }
    Ok(unseal(&x25519_key(&share, public, shared.as_bytes())?, &stanza.body))
}

/// The file key of a passphrase's stanza; `None` if the passphrase is wrong.
///
/// # Errors
/// `Unsupported` beyond [`SCRYPT_LOG_N_MAX`]; `Integrity` if the stanza is not in its form.
pub(super) fn unwrap_scrypt(stanza: &Stanza, passphrase: &Secret) -> Result<Option<FileKey>> {
    let wrong = || damaged("the passphrase's stanza is not in its form");
    let [_, salt, log_n] = stanza.arguments.as_slice() else {
        return Err(wrong());
    };
    let salt = base64::decode(salt.as_bytes()).filter(|salt| salt.len() == SALT_BYTES).ok_or_else(wrong)?;
    let digits = !log_n.is_empty() && log_n.len() <= 2 && log_n.bytes().all(|byte| byte.is_ascii_digit());
    let log_n = log_n.parse::<u8>().ok().filter(|n| digits && *n > 0 && !log_n.starts_with('0')).ok_or_else(wrong)?;
    if log_n > SCRYPT_LOG_N_MAX {
        let message = "the passphrase's work factor is too high: encrypt the identity again with a lower one";
        return Err(Error::new(ErrorKind::Unsupported, message)
            .with_context("log_n", log_n)
            .with_context("log_n_max", SCRYPT_LOG_N_MAX));
    }
    if stanza.body.len() != FILE_KEY_BYTES + TAG_BYTES {
        return Err(wrong());
    }
    let salt = [SCRYPT_INFO, &salt].concat();
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let parameters = Params::new(log_n, SCRYPT_R, SCRYPT_P).map_err(|e| wrong().with_source(e))?;
    scrypt::scrypt(passphrase.expose().as_bytes(), &salt, &parameters, &mut *key)
        .map_err(|e| unexpected().with_source(e))?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, &*key).map_err(|_wrong_length| unexpected())?;
    Ok(unseal(&LessSafeKey::new(key), &stanza.body))
}

fn x25519_key(share: &[u8], recipient: &[u8], shared: &[u8]) -> Result<LessSafeKey> {
    let salt = [share, recipient].concat();
    Ok(LessSafeKey::new(derive(&salt, shared, X25519_INFO, &CHACHA20_POLY1305)?))
}

/// HKDF-SHA-256.
pub(super) fn derive<A: KeyType, K>(salt: &[u8], secret: &[u8], info: &[u8], kind: A) -> Result<K>
where
    K: for<'a> From<ring::hkdf::Okm<'a, A>>,
{
    let key = Salt::new(HKDF_SHA256, salt).extract(secret);
    let info = [info];
    let expanded = key.expand(&info, kind).map_err(|_too_long| unexpected())?;
    Ok(K::from(expanded))
}

fn unseal(key: &LessSafeKey, body: &[u8]) -> Option<FileKey> {
    let (sealed, tag) = body.split_at_checked(FILE_KEY_BYTES)?;
    let mut file_key = Zeroizing::new(<[u8; FILE_KEY_BYTES]>::try_from(sealed).ok()?);
    let tag = Tag::try_from(tag).ok()?;
    key.open_in_place_separate_tag(no_nonce(), Aad::empty(), tag, &mut *file_key, 0..).ok()?;
    Some(file_key)
}

/// A wrapping key seals one message only, so the format fixes its nonce.
fn no_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn unexpected() -> Error {
    Error::unexpected("a key could not be derived")
}
