//! The secret half of a key.

use std::fmt;
use std::sync::Arc;

use stackkit_core::{Error, Result, Secret};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::Recipient;
use super::bech32::{self, KEY_BYTES};
use crate::age;

const PREFIX: &str = "age-secret-key-";

/// The most keys in one identity: each is tried on each artifact that is read.
const KEYS_MAX: usize = 100;

/// The secret keys that read what was encrypted to their [`Recipient`]s: what an identity file of `age` holds, one key
/// or several. Cheap to clone; never printed; wiped from memory with the last clone.
///
/// ```
/// use stackkit_backup::{Identity, Recipient};
/// let identity = Identity::generate()?;
/// let recipients: Vec<Recipient> = identity.recipients();
/// assert_eq!(Identity::parse(&identity.to_file_text())?.recipients(), recipients);
/// # Ok::<(), stackkit_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Identity(Arc<[Key]>);

struct Key {
    secret: StaticSecret,
    public: [u8; KEY_BYTES],
}

impl Key {
    fn new(secret: &[u8; KEY_BYTES]) -> Self {
        let secret = StaticSecret::from(*secret);
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }
}

impl Identity {
    /// Makes one key.
    ///
    /// # Errors
    /// `Unexpected` if the system gives no random bytes.
    pub fn generate() -> Result<Self> {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        age::random(&mut *secret)?;
        Ok(Self(Arc::new([Key::new(&secret)])))
    }

    /// Reads the text of an identity file: a line `AGE-SECRET-KEY-1…` for each key; empty lines and those that begin
    /// with `#` do not count.
    ///
    /// # Errors
    /// `Config` naming the line that is no key, or if there is none.
    pub fn parse(text: &Secret) -> Result<Self> {
        let lines = text.expose().lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let mut keys = Vec::new();
        for (number, line) in lines {
            let key = bech32::decode(PREFIX, line).ok_or_else(|| {
                // What stands there may be a secret with a typing error.
                Error::config("a line of the identity is not a key `AGE-SECRET-KEY-1…`").with_context("line", number)
            })?;
            keys.push(Key::new(&key));
            if keys.len() > KEYS_MAX {
                return Err(Error::config("the identity has too many keys").with_context("keys_max", KEYS_MAX));
            }
        }
        match keys.is_empty() {
            true => Err(Error::config("the identity holds no key `AGE-SECRET-KEY-1…`")),
            false => Ok(Self(keys.into())),
        }
    }

    /// The public halves, in the order of the keys.
    #[must_use]
    pub fn recipients(&self) -> Vec<Recipient> {
        self.0.iter().map(|key| Recipient::from_bytes(key.public)).collect()
    }

    /// The text of an identity file, as `age` reads it too.
    #[must_use]
    pub fn to_file_text(&self) -> Secret {
        let lines = self.0.iter().map(|key| {
            let secret = bech32::encode(PREFIX, key.secret.as_bytes());
            let recipient = Recipient::from_bytes(key.public);
            Zeroizing::new(format!("# public key: {recipient}\n{}\n", *Zeroizing::new(secret.to_ascii_uppercase())))
        });
        let lines: Vec<_> = lines.collect();
        let mut text = String::with_capacity(lines.iter().map(|line| line.len()).sum());
        lines.iter().for_each(|line| text.push_str(line));
        Secret::new(text)
    }

    /// Each secret key with its public half.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&StaticSecret, &[u8; KEY_BYTES])> {
        self.0.iter().map(|key| (&key.secret, &key.public))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.recipients()).finish()
    }
}

#[cfg(test)]
mod tests {
    use stackkit_core::ErrorKind;

    use super::*;

    #[test]
    fn several_keys_survive_the_round_trip_and_none_is_printed() {
        let (first, second) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let text = format!("# both\n\n{}\r\n{}", first.to_file_text().expose(), second.to_file_text().expose());
        let both = Identity::parse(&Secret::new(text)).unwrap();
        assert_eq!(both.recipients(), [first.recipients(), second.recipients()].concat());
        assert_eq!(Identity::parse(&both.to_file_text()).unwrap().recipients(), both.recipients());
        let debug = format!("{both:?}").to_uppercase();
        assert!(debug.contains("AGE1") && !debug.contains("SECRET-KEY"), "{debug}");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_told() {
        for text in ["", "# none\n", "AGE-SECRET-KEY-1QQQQ", "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73eq"]
        {
            let error = Identity::parse(&Secret::new(text)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.chain().to_string().contains("QQQQ"), "{error}");
        }
        let error = "AGE-SECRET-KEY-1QQQQ".parse::<Recipient>().err().unwrap();
        assert!(error.to_string().contains("secret key") && !error.to_string().contains("QQQQ"), "{error}");
    }
}
