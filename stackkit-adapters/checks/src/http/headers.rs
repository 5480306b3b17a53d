//! The headers that a user adds to a request.

use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use stackkit_core::{ConfigFault, Error, Result, Secret};

/// What the client calls itself.
const AGENT: &str = concat!("stackkit/", env!("CARGO_PKG_VERSION"));

/// Headers of requests. No value is ever shown: one that was not called secret may be one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers(Vec<Header>);

#[derive(Debug, Clone)]
struct Header {
    name: String,
    value: Secret,
    is_secret: bool,
}

impl Headers {
    pub(crate) fn add(&mut self, name: String, value: Secret, is_secret: bool) {
        self.0.push(Header { name, value, is_secret });
    }

    pub(crate) fn have_secrets(&self) -> bool {
        self.0.iter().any(|header| header.is_secret)
    }

    /// Each header that HTTP does not allow, by name.
    pub(crate) fn faults(&self, code: &'static str) -> impl Iterator<Item = ConfigFault> {
        let bad = self.0.iter().filter(|header| header.parts().is_none());
        bad.map(move |header| {
            ConfigFault::error(
                code,
                format!("the header {:?} has a name or a value that HTTP does not allow", header.name),
            )
        })
    }

    /// The headers for the wire; those that are secret only `with_secrets`.
    ///
    /// # Errors
    /// `Config` for one that HTTP does not allow.
    pub(crate) fn map(&self, with_secrets: bool) -> Result<HeaderMap> {
        let mut map = HeaderMap::new();
        map.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        map.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let mut own = HeaderMap::new();
        for header in self.0.iter().filter(|header| with_secrets || !header.is_secret) {
            let (name, value) = header.parts().ok_or_else(|| Error::config("a header is not allowed by HTTP"))?;
            own.append(name, value);
        }
        // A user's own replaces the client's.
        map.extend(own);
        Ok(map)
    }
}

impl Header {
    fn parts(&self) -> Option<(HeaderName, HeaderValue)> {
        let mut value = HeaderValue::from_str(self.value.expose()).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(self.name.as_bytes()).ok()?, value))
    }
}
