//! Which manifests are believed.

use std::fmt;

use stackkit_core::{Error, Result};

use crate::keys::TrustedKey;

/// What is known of the signature of a manifest. A signature that is wrong is damage, and no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureState {
    /// It is not signed.
    Unsigned,
    /// A key signed it that the caller trusts.
    Trusted(TrustedKey),
    /// This key signed it; the caller named no key that it trusts.
    NotJudged(TrustedKey),
    /// This key signed it, and it is not among those that the caller trusts.
    Foreign(TrustedKey),
}

impl fmt::Display for SignatureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("unsigned"),
            Self::Trusted(_) => f.write_str("signed"),
            Self::NotJudged(_) => f.write_str("signature not judged"),
            Self::Foreign(_) => f.write_str("signed by a key that is not trusted"),
        }
    }
}

/// The caller's rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    keys: Vec<TrustedKey>,
    accept_untrusted: bool,
}

impl Trust {
    pub(crate) fn add(&mut self, key: TrustedKey) {
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
    }

    pub(crate) fn accept_untrusted(&mut self) {
        self.accept_untrusted = true;
    }

    /// What is known of a manifest whose signature by `signer` is right.
    pub(crate) fn judge(&self, signer: Option<TrustedKey>) -> SignatureState {
        match signer {
            None => SignatureState::Unsigned,
            Some(key) if self.keys.contains(&key) => SignatureState::Trusted(key),
            Some(key) if self.keys.is_empty() => SignatureState::NotJudged(key),
            Some(key) => SignatureState::Foreign(key),
        }
    }

    /// Refuses what the caller does not trust. Without any trusted key, only what is unsigned in a repository that never
    /// had a signer is taken.
    ///
    /// # Errors
    /// `Integrity`, saying what to do.
    pub(crate) fn accept(&self, state: SignatureState, repository_is_signed: bool) -> Result<()> {
        if self.accept_untrusted {
            return Ok(());
        }
        let refused = match state {
            SignatureState::Trusted(_) => return Ok(()),
            SignatureState::Unsigned if self.keys.is_empty() && !repository_is_signed => return Ok(()),
            SignatureState::Unsigned => Error::integrity(
                "it is not signed, and the backups of this repository should be: accept it as untrusted if you mean to",
            ),
            SignatureState::NotJudged(key) => Error::integrity(
                "it is signed, and no trusted key was given: name the key that you trust, or accept it as untrusted",
            )
            .with_context("signer", key),
            SignatureState::Foreign(key) => {
                Error::integrity("it is signed by a key that is not trusted").with_context("signer", key)
            }
        };
        Err(refused)
    }

    /// Whether what is unsigned or signed by others counts as damaged wherever it is met: once a key is named.
    pub(crate) fn refuses_in_lists(&self, state: SignatureState) -> bool {
        let good = matches!(state, SignatureState::Trusted(_));
        !good && !self.keys.is_empty() && !self.accept_untrusted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SigningKey;

    fn accepted(trust: &Trust, signer: Option<TrustedKey>, signed: bool) -> bool {
        trust.accept(trust.judge(signer), signed).is_ok()
    }

    #[test]
    fn only_what_a_named_key_signed_is_believed() {
        let (own, other) = (SigningKey::generate().unwrap().trusted(), SigningKey::generate().unwrap().trusted());
        let mut trust = Trust::default();
        assert!(accepted(&trust, None, false));
        assert!(!accepted(&trust, None, true));
        assert!(!accepted(&trust, Some(own), true));
        trust.add(own);
        assert!(accepted(&trust, Some(own), false));
        assert!(!accepted(&trust, Some(other), true));
        assert!(!accepted(&trust, None, false));
        assert!(trust.refuses_in_lists(trust.judge(None)));
        trust.accept_untrusted();
        assert!(accepted(&trust, None, true) && accepted(&trust, Some(other), true));
    }
}
