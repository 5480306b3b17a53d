//! The public half of a key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stackkit_core::{Error, Result};

use super::bech32::{self, KEY_BYTES};

const PREFIX: &str = "age";

/// A public key that artifacts are encrypted to: `age1…`, as `age-keygen` prints it. It is not secret.
///
/// ```
/// use stackkit_backup::Recipient;
/// let recipient: Recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj".parse()?;
/// assert!(recipient.to_string().starts_with("age1"));
/// # Ok::<(), stackkit_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient([u8; KEY_BYTES]);

impl Recipient {
    pub(crate) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl FromStr for Recipient {
    type Err = Error;

    /// Reads `age1…`.
    ///
    /// # Errors
    /// `Config` if it is anything else: a secret key, an SSH key, one of a plugin, a typing error.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        // Secret keys are long to type, and easy to paste into the wrong place: the text is never told.
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(Error::config("this is a secret key: a recipient is its public half, `age1…`"));
        }
        let key = bech32::decode(PREFIX, text)
            .ok_or_else(|| Error::config("a recipient is an X25519 key as age-keygen prints it: `age1…`"))?;
        Ok(Self(*key))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode(PREFIX, &self.0))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

impl Serialize for Recipient {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Recipient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
