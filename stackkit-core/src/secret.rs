//! Passwords and keys that nothing prints.

use std::fmt;

use zeroize::Zeroizing;

/// What stands in a text where a secret was.
pub const REDACTED: &str = "***";

/// A password shorter than this is called weak.
const PASSWORD_CHARS_MIN: usize = 8;

/// Passwords of images, sample configurations and tutorials of every store; an adapter adds those of its own.
const PASSWORDS_DEFAULT: &[&str] =
    &["password", "example", "admin", "root", "secret", "changeme", "test", "123456", "12345678"];

/// Why a password should not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// It is one that everybody tries first.
    Default,
    /// It has fewer than 8 characters.
    Short,
}

/// A password or key: never printed, never serialised, wiped from memory on drop.
///
/// ```
/// use stackkit_core::Secret;
/// let secret = Secret::new("hunter2");
/// assert_eq!(format!("{secret:?}"), "Secret(***)");
/// assert_eq!(secret.expose(), "hunter2");
/// assert_eq!(secret.redact("login hunter2 failed"), "login *** failed");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Every call of this is a place to look at in a review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why the password should not stay, if it should not: well known, one of `own` (the store's defaults, the user's name),
    /// or short. Letter case does not count.
    ///
    /// ```
    /// use stackkit_core::{Secret, Weakness};
    /// assert_eq!(Secret::new("Foobared").weakness(&["foobared"]), Some(Weakness::Default));
    /// assert_eq!(Secret::new("k9#xq").weakness(&[]), Some(Weakness::Short));
    /// assert_eq!(Secret::new("k9#xq-2Lw!").weakness(&[]), None);
    /// ```
    #[must_use]
    pub fn weakness(&self, own: &[&str]) -> Option<Weakness> {
        let known = PASSWORDS_DEFAULT.iter().chain(own).any(|known| known.eq_ignore_ascii_case(self.expose()));
        let short = self.expose().chars().count() < PASSWORD_CHARS_MIN;
        if known { Some(Weakness::Default) } else { short.then_some(Weakness::Short) }
    }

    /// `text` with each occurrence of the secret replaced by [`REDACTED`].
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        if self.is_empty() { text.to_owned() } else { text.replace(self.expose(), REDACTED) }
    }

    /// `text` with each occurrence of each of `secrets` replaced by [`REDACTED`], longest first: one that is a part of
    /// another must not leave the rest of it behind.
    ///
    /// ```
    /// use stackkit_core::Secret;
    /// let secrets = [Secret::new("hunter"), Secret::new("hunter2")];
    /// assert_eq!(Secret::redact_all(&secrets, "login hunter2 failed"), "login *** failed");
    /// ```
    #[must_use]
    pub fn redact_all(secrets: &[Self], text: &str) -> String {
        let mut longest_first: Vec<&Self> = secrets.iter().collect();
        longest_first.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        longest_first.into_iter().fold(text.to_owned(), |text, secret| secret.redact(&text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({REDACTED})")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_secret_redacts_nothing() {
        assert_eq!(Secret::default().redact("abc"), "abc");
    }
}
