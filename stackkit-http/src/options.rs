//! How the routes behave, and who sees what.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use stackkit_core::Secret;

/// Who sees details: endpoints, failures, measurements and findings. Statuses and names are for everybody.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Details {
    /// Nobody. [`operator_router`](crate::operator_router) on a listener of its own shows them still.
    #[default]
    Hidden,
    /// A request with `Authorization: Bearer` and this token; every other one is answered as if they were hidden. An empty
    /// token fits no request.
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
            Self::Token(token) => bearer(headers).is_some_and(|given| fits(token, given)),
        };
        if may { Access::Operator } else { Access::Public }
    }

    /// Whether the answer hangs on the request's credentials.
    pub(crate) fn asks_who(&self) -> bool {
        matches!(self, Self::Token(_))
    }
}

/// The token of `Authorization: Bearer …`; the scheme is read in any case of letters (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token.trim_ascii())
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
    fn an_empty_token_is_nobodys() {
        let details = Details::Token(Secret::new(""));
        assert_eq!(access(&details, Some("Bearer ")), Access::Public);
        assert_eq!(access(&Details::Hidden, Some("Bearer x")), Access::Public);
        assert_eq!(access(&Details::Open, None), Access::Operator);
    }
}
