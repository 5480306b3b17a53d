//! Signatures: Ed25519, in the standard PEM files that `openssl` reads too.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, Result, Secret};
use zeroize::Zeroizing;

use super::file;

/// Bytes of a private seed and of a public key (RFC 8032).
const KEY_BYTES: usize = 32;

/// Bytes of a signature (RFC 8032).
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// What stands before the seed in a PKCS #8 file of version 1 (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What stands before the key in a public key file (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The labels of PEM (RFC 7468).
const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// The key that a backup host signs manifests with. Whoever has it can make backups that are believed.
///
/// Its file is a PKCS #8 PEM file, as `openssl genpkey -algorithm ed25519` makes it.
///
/// ```
/// use stackkit_backup::SigningKey;
/// # fn main() -> stackkit_core::Result<()> {
/// let key = SigningKey::generate()?;
/// assert!(key.trusted().verify(b"a manifest", &key.sign(b"a manifest")));
/// assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.trusted()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SigningKey {
    seed: Zeroizing<[u8; KEY_BYTES]>,
    pair: Arc<Ed25519KeyPair>,
    trusted: TrustedKey,
}

impl SigningKey {
    /// A new key from the system's random numbers.
    ///
    /// # Errors
    /// `Io` if the system has none.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        let failed = |_| Error::new(stackkit_core::ErrorKind::Io, "the system gives no random numbers");
        SystemRandom::new().fill(&mut *seed).map_err(failed)?;
        Self::from_seed(seed)
    }

    /// Reads a PEM file that nobody but its owner can read.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied` if others can read the file; `Config` if it holds no such key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let named = |e: Error| e.with_operation("read the signing key").with_context("path", path.display());
        let text = file::read_private(path).map_err(named)?;
        Self::from_pem(&text).map_err(named)
    }

    /// Reads the text of a PEM file.
    ///
    /// # Errors
    /// `Config` if it holds no Ed25519 private key.
    pub fn from_pem(text: &Secret) -> Result<Self> {
        let wrong = || {
            Error::config(
                "this is no Ed25519 private key: `stackctl keygen` or `openssl genpkey -algorithm ed25519` makes one",
            )
        };
        let der = Zeroizing::new(unwrap_pem(text.expose(), PRIVATE_LABEL).ok_or_else(wrong)?);
        let seed = der.strip_prefix(&PKCS8_PREFIX).ok_or_else(wrong)?;
        let seed = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(seed).map_err(|_length| wrong())?);
        Self::from_seed(seed)
    }

    fn from_seed(seed: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed)
            .map_err(|_rejected| Error::config("this is no Ed25519 private key"))?;
        let public = pair.public_key().as_ref();
        let public = public.try_into().map_err(|_length| Error::unexpected("a public key of another length"))?;
        Ok(Self { seed, pair: Arc::new(pair), trusted: TrustedKey(public) })
    }

    /// The text of its PEM file.
    #[must_use]
    pub fn to_pem(&self) -> Secret {
        let der = Zeroizing::new([&PKCS8_PREFIX[..], &self.seed[..]].concat());
        Secret::new(wrap_pem(&der, PRIVATE_LABEL))
    }

    /// The key that others check its signatures with.
    #[must_use]
    pub fn trusted(&self) -> TrustedKey {
        self.trusted
    }

    /// The signature of `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.pair.sign(message);
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes.copy_from_slice(signature.as_ref());
        bytes
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.trusted)
    }
}

/// The public half of a [`SigningKey`]: manifests that it checks are believed. It is no secret.
///
/// As text it is 64 hex digits; its file is a PEM file, as `openssl pkey -pubout` makes it. Both can be parsed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TrustedKey([u8; KEY_BYTES]);

impl TrustedKey {
    /// Reads a PEM file, or one that holds 64 hex digits.
    ///
    /// # Errors
    /// `NotFound`; `Io`; `Config` if it holds no such key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let named = |e: Error| e.with_operation("read the trusted key").with_context("path", path.display());
        file::read_public(path).map_err(named)?.parse().map_err(named)
    }

    /// The text of its PEM file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        wrap_pem(&[&SPKI_PREFIX[..], &self.0[..]].concat(), PUBLIC_LABEL)
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl FromStr for TrustedKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bytes = match unwrap_pem(text, PUBLIC_LABEL) {
            Some(der) => der.strip_prefix(&SPKI_PREFIX).map(<[u8]>::to_vec),
            None => hex(text.trim()),
        };
        let wrong = || Error::config("this is no Ed25519 public key: give its PEM file, or 64 hex digits");
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(wrong)
    }
}

impl TryFrom<String> for TrustedKey {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TrustedKey> for String {
    fn from(key: TrustedKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKey({self})")
    }
}

/// The bytes that lower-case or upper-case hex digits stand for.
pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high << 4) | low).collect())
}

fn wrap_pem(der: &[u8], label: &str) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The bytes of the first PEM block with this label.
fn unwrap_pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body = Zeroizing::new(body.split_ascii_whitespace().collect::<String>());
    STANDARD.decode(body.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first test vector of RFC 8032, section 7.1, as the files of RFC 8410 hold such keys.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

    fn key() -> SigningKey {
        SigningKey::from_seed(Zeroizing::new(hex(SEED).unwrap().try_into().unwrap())).unwrap()
    }

    #[test]
    fn the_vector_of_the_standard_is_met() {
        assert_eq!(key().trusted().to_string(), PUBLIC);
        assert_eq!(key().sign(b"").to_vec(), hex(SIGNATURE).unwrap());
        assert!(PUBLIC.parse::<TrustedKey>().unwrap().verify(b"", &hex(SIGNATURE).unwrap()));
    }

    #[test]
    fn both_files_survive_the_round_trip() {
        let read = SigningKey::from_pem(&key().to_pem()).unwrap();
        assert_eq!(read.trusted(), key().trusted());
        assert_eq!(key().trusted().to_pem().parse::<TrustedKey>().unwrap(), key().trusted());
    }

    #[test]
    fn other_bytes_are_not_verified() {
        let key = key();
        let signature = key.sign(b"message");
        assert!(!key.trusted().verify(b"massage", &signature));
        assert!(!key.trusted().verify(b"message", &signature[..63]));
        assert!(!SigningKey::generate().unwrap().trusted().verify(b"message", &signature));
    }

    #[test]
    fn what_is_no_key_is_refused_without_telling_it() {
        for text in ["", "hunter2", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n", PUBLIC] {
            let error = SigningKey::from_pem(&Secret::new(text)).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        assert!("d75a".parse::<TrustedKey>().is_err());
        assert!(key().to_pem().expose().parse::<TrustedKey>().is_err());
        assert!(!format!("{:?}", key()).contains(SEED));
    }
}
