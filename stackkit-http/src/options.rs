//! How the routes behave, and who sees what.

use std::borrow::Cow;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stackkit_core::Secret;

/// Who sees details: endpoints, failures, measurements and findings. Statuses and names are for everybody.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Details {
    /// Nobody. [`operator_router`](crate::operator_router) on a listener of its own shows them still.
    #[default]
    Hidden,
    /// A request with `Authorization: Bearer` and this token, or with `Basic`, any user and this token as the password; every
    /// other one is answered as if they were hidden, but for `/status?login`, which has a browser ask. An empty token fits no
    /// request.
    Token(Secret),
    /// Everybody who can reach the router.
    Open,
}

/// How the routes behave.
///
/// ```
/// use stackkit_core::Secret;
/// use stackkit_http::{Details, RouterOptions};
/// let options = RouterOptions::new().with_details(Details::Token(Secret::new("k9#xq-2Lw!")));
/// assert!(matches!(options.details, Details::Token(_)));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RouterOptions {
    /// Who sees details; [`Details::Hidden`] unless set.
    pub details: Details,
}

impl RouterOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets who sees details.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = details;
        self
    }
}

/// How much one request may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Statuses and names.
    Public,
    /// Everything.
    Operator,
}

impl Access {
    pub(crate) fn is_operator(self) -> bool {
        self == Self::Operator
    }
}

impl Details {
    /// How much a request with these headers may see.
    pub(crate) fn access(&self, headers: &HeaderMap) -> Access {
        let may = match self {
            Self::Hidden => false,
            Self::Open => true,
            Self::Token(token) => given(headers).is_some_and(|given| fits(token, &given)),
        };
        if may { Access::Operator } else { Access::Public }
    }

    /// Whether the answer hangs on the request's credentials.
    pub(crate) fn asks_who(&self) -> bool {
        matches!(self, Self::Token(_))
    }
}

/// The token of `Authorization: Bearer …`, or the password of `Authorization: Basic …` (RFC 7617, 2); the scheme is read in any
/// case of letters (RFC 9110, 11.1).
fn given(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let space = value.iter().position(|letter| *letter == b' ')?;
    let (scheme, credentials) = value.split_at_checked(space)?;
    let credentials = credentials.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(credentials.into());
    }
    let pair = scheme.eq_ignore_ascii_case(b"basic").then(|| STANDARD.decode(credentials).ok()).flatten()?;
    let password = pair.splitn(2, |letter| *letter == b':').nth(1)?;
    Some(password.to_vec().into())
}

/// Whether `given` is the token, in a time that tells its length at most.
fn fits(token: &Secret, given: &[u8]) -> bool {
    let wanted = token.expose().as_bytes();
    if wanted.is_empty() || wanted.len() != given.len() {
        return false;
    }
    let differ = wanted.iter().zip(given).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(details: &Details, authorization: Option<&str>) -> Access {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        }
        details.access(&headers)
    }

    #[test]
    fn only_the_whole_token_opens() {
        let details = Details::Token(Secret::new("k9#xq-2Lw!"));
        for right in ["Bearer k9#xq-2Lw!", "bearer k9#xq-2Lw!", "BEARER  k9#xq-2Lw! "] {
            assert_eq!(access(&details, Some(right)), Access::Operator, "{right}");
        }
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer k9#xq-2Lw", "Bearer k9#xq-2Lw!!", "Bearer k9#xq-2LW!", "Basic k9#xq-2Lw!"]
        {
            assert_eq!(access(&details, Some(wrong)), Access::Public, "{wrong}");
        }
        assert_eq!(access(&details, None), Access::Public);
    }

    #[test]
    fn the_token_is_the_password_of_any_user() {
        let details = Details::Token(Secret::new("k9:xq-2Lw!"));
        let basic = |pair: &str| access(&details, Some(&format!("Basic {}", STANDARD.encode(pair))));
        for right in ["operator:k9:xq-2Lw!", ":k9:xq-2Lw!"] {
            assert_eq!(basic(right), Access::Operator, "{right}");
        }
        for wrong in ["", ":", "k9:xq-2Lw!", "operator:", "operator:k9:xq-2Lw", "operator:k9:xq-2Lw!!", "k9:xq-2Lw!:"] {
            assert_eq!(basic(wrong), Access::Public, "{wrong}");
        }
        let right = STANDARD.encode(":k9:xq-2Lw!");
        assert_eq!(access(&details, Some(&format!("bASIC  {right} "))), Access::Operator);
        for wrong in [format!("Basic{right}"), format!("Digest {right}"), format!("Basic {right}?"), "Basic".to_owned()]
        {
            assert_eq!(access(&details, Some(&wrong)), Access::Public, "{wrong}");
        }
    }

    #[test]
    fn an_empty_token_is_nobodys() {
        let details = Details::Token(Secret::new(""));
        assert_eq!(access(&details, Some("Bearer ")), Access::Public);
        assert_eq!(access(&details, Some("Basic Og==")), Access::Public);
        assert_eq!(access(&Details::Hidden, Some("Bearer x")), Access::Public);
        assert_eq!(access(&Details::Open, None), Access::Operator);
    }
}
