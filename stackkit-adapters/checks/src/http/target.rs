//! Where a request goes.

use std::fmt;

use hyper::header::{HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, StatusCode};
use stackkit_core::Endpoint;
use url::{Position, Url};

use crate::net::Address;

/// A URL that can be asked. `Debug` shows its origin alone: paths and queries may carry secrets.
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) is_tls: bool,
    pub(crate) address: Address,
}

impl Target {
    /// # Errors
    /// What is wrong with the URL, in words that do not quote it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        Url::parse(text).map_err(|_quotes_it| "the URL can't be parsed").and_then(Self::from_url)
    }

    pub(crate) fn from_url(url: Url) -> Result<Self, &'static str> {
        let is_tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err("the URL's scheme is neither http nor https"),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL holds a user or a password: give them as a secret header");
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err("the URL has no host");
        };
        let address = Address::new(host, port);
        if address.port == 0 {
            return Err("the URL's port is 0");
        }
        Ok(Self { is_tls, address, url })
    }

    /// What stands in the request line.
    pub(crate) fn path(&self) -> &str {
        &self.url[Position::BeforePath..Position::AfterQuery]
    }

    /// What stands in the header `Host`.
    pub(crate) fn host(&self) -> &str {
        &self.url[Position::BeforeHost..Position::AfterPort]
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.url.scheme(), &self.address.host, self.address.port)
    }

    /// Whether both are one server, as far as secrets go: same scheme, host and port.
    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        self.url.origin() == other.url.origin()
    }

    /// Whether the server is on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = &self.address.host;
        host.parse::<std::net::IpAddr>().map_or_else(|_name| host == "localhost", |ip| ip.is_loopback())
    }

    /// Where an answer redirects to, if that may be followed: a request that only reads, to HTTP or HTTPS, never from HTTPS to
    /// plain HTTP.
    pub(crate) fn redirected(&self, method: &Method, status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        if !is_redirect || !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let location = headers.get(LOCATION).map(HeaderValue::to_str)?.ok()?;
        let next = Self::from_url(self.url.join(location).ok()?).ok()?;
        (next.is_tls || !self.is_tls).then_some(next)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.endpoint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(from: &str, method: &Method, status: u16, location: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        Target::parse(from).unwrap().redirected(method, status, &headers).map(|target| target.url.to_string())
    }

    #[test]
    fn only_safe_redirects_are_followed() {
        let get = |from, location| redirected(from, &Method::GET, 302, location);
        assert_eq!(get("http://a/x", "/y?z").as_deref(), Some("http://a/y?z"));
        assert_eq!(get("http://a/x", "https://a/x").as_deref(), Some("https://a/x"));
        assert_eq!(get("https://a/x", "http://a/x"), None, "from HTTPS to plain HTTP");
        for location in ["file:///etc/passwd", "http://u:p@b/", "", "javascript:1"] {
            assert_eq!(get("http://a/x", location).filter(|to| to != "http://a/x"), None, "{location}");
        }
        assert_eq!(redirected("http://a/", &Method::POST, 307, "/b"), None);
        assert_eq!(redirected("http://a/", &Method::GET, 304, "/b"), None);
    }

    #[test]
    fn a_target_knows_what_to_ask_for() {
        let target = Target::parse("https://[::1]:8443/health?full=1#x").unwrap();
        assert_eq!(
            (target.path(), target.host(), target.address.host.as_str()),
            ("/health?full=1", "[::1]:8443", "::1")
        );
        assert_eq!(format!("{target:?}"), "Target(https://[::1]:8443)");
        assert!(target.is_loopback() && target.is_same_origin(&Target::parse("https://[::1]:8443/").unwrap()));
        assert!(!target.is_same_origin(&Target::parse("https://[::1]/").unwrap()));
        for bad in ["", "ftp://a", "http://", "http://u@a", "http://:p@a", "http://a:0", "http://a:99999"] {
            assert!(Target::parse(bad).is_err(), "{bad} was taken");
        }
    }
}
