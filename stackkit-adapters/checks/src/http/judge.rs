//! What an answer means.

use std::collections::BTreeSet;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;
use stackkit_core::health::{Axis, Finding, Severity};
use stackkit_core::{ConfigFault, Error, ErrorKind, Observation, Phase, Result};

use crate::http::client::{Answer, BODY_BYTES_MAX};

/// What a body must be like.
#[derive(Clone)]
pub(crate) enum BodyCondition {
    Contains(Vec<u8>),
    Json { pointer: String, value: Value },
}

/// What an answer must be like.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) statuses: BTreeSet<u16>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) bodies: Vec<BodyCondition>,
}

impl Wanted {
    /// Adds what is wrong with the answer. Nothing of its text is quoted.
    ///
    /// # Errors
    /// `Unauthenticated` for a 401 and `PermissionDenied` for a 403 that is not among the accepted: what the credentials hide
    /// could not be observed.
    pub(crate) fn judge(&self, answer: &Answer, observation: Observation) -> Result<Observation> {
        let status = answer.status.as_u16();
        let observation = observation.info("status_code", status.to_string());
        if !self.statuses.contains(&status) {
            return match status {
                401 => Err(refused(ErrorKind::Unauthenticated, "the server does not accept the credentials", status)),
                403 => Err(refused(ErrorKind::PermissionDenied, "the credentials lack a right", status)),
                _ => Ok(observation.finding(unexpected_status(status))),
            };
        }
        let headers = self.headers.iter().filter(|(name, value)| !has_header(answer, name, value));
        let headers = headers.map(|(name, _)| {
            critical("http.header.mismatch", format!("the header {name} is missing or has another value"))
                .with_hint("look at what answers there")
        });
        let bodies = self.bodies.iter().filter_map(|condition| condition.unmet(answer));
        Ok(headers.chain(bodies).fold(observation, Observation::finding))
    }
}

impl BodyCondition {
    /// A pointer that can point at nothing: RFC 6901, section 3.
    pub(crate) fn fault(&self) -> Option<ConfigFault> {
        let Self::Json { pointer, .. } = self else { return None };
        let bad = !pointer.is_empty() && !pointer.starts_with('/');
        bad.then(|| ConfigFault::error("http.json_pointer", "a JSON pointer is empty or begins with a slash"))
    }

    fn unmet(&self, answer: &Answer) -> Option<Finding> {
        let words = match self {
            Self::Contains(text) if contains(&answer.body, text) => return None,
            _ if answer.is_cut => return Some(too_large()),
            Self::Contains(_) => "the body does not hold the expected text".to_owned(),
            Self::Json { pointer, value } => match serde_json::from_slice::<Value>(&answer.body) {
                Ok(body) if body.pointer(pointer) == Some(value) => return None,
                Ok(body) if body.pointer(pointer).is_none() => format!("the body has nothing at {pointer}"),
                Ok(_) => format!("the body has another value at {pointer}"),
                Err(_quotes_it) => "the body is not JSON".to_owned(),
            },
        };
        Some(critical("http.body.mismatch", words).with_hint("look at what the service says there"))
    }
}

fn has_header(answer: &Answer, name: &str, value: &str) -> bool {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return false };
    answer.headers.get_all(name).iter().map(HeaderValue::as_bytes).any(|found| found == value.as_bytes())
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

fn refused(kind: ErrorKind, message: &str, status: u16) -> Error {
    Error::new(kind, message).with_phase(Phase::Auth).with_code(status.to_string())
}

fn unexpected_status(status: u16) -> Finding {
    let hint = match status {
        300..=399 => "follow redirects, ask for what they lead to, or accept this status",
        400..=499 => "look at the path and the method that are asked for",
        _ => "look at the service's log",
    };
    critical("http.status.unexpected", format!("the server answers with status {status}")).with_hint(hint)
}

fn too_large() -> Finding {
    critical("http.body.too_large", format!("the body is longer than {BODY_BYTES_MAX} bytes and could not be judged"))
        .with_hint("ask for a smaller document")
}

fn critical(code: &'static str, message: String) -> Finding {
    Finding::new(code, Axis::Ready, Severity::Critical, message)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::{HeaderMap, StatusCode};
    use serde_json::json;

    use super::*;

    fn wanted() -> Wanted {
        Wanted { statuses: (200..=299).collect(), headers: Vec::new(), bodies: Vec::new() }
    }

    fn codes(wanted: &Wanted, status: u16, body: &'static str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.insert("x-role", HeaderValue::from_static("primary"));
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers, body: Bytes::from_static(body.as_bytes()), is_cut: false };
        let seen = wanted.judge(&answer, Observation::new()).unwrap();
        seen.findings.into_iter().map(|finding| finding.code.into_owned()).collect()
    }

    #[test]
    fn conditions_on_headers_and_bodies() {
        let none: Vec<String> = Vec::new();
        let header = |value: &str| Wanted { headers: vec![("X-Role".to_owned(), value.to_owned())], ..wanted() };
        assert_eq!(codes(&header("primary"), 200, ""), none);
        assert_eq!(codes(&header("replica"), 200, ""), ["http.header.mismatch"]);
        let text = |text: &str| Wanted { bodies: vec![BodyCondition::Contains(text.into())], ..wanted() };
        assert_eq!(codes(&text("ok"), 200, "all ok"), none);
        assert_eq!(codes(&text("ok"), 200, "all bad"), ["http.body.mismatch"]);
        let at = |value| Wanted { bodies: vec![BodyCondition::Json { pointer: "/a/0".into(), value }], ..wanted() };
        assert_eq!(codes(&at(json!("x")), 200, r#"{"a": ["x"]}"#), none);
        for body in [r#"{"a": ["y"]}"#, "{}", "no json"] {
            assert_eq!(codes(&at(json!("x")), 200, body), ["http.body.mismatch"], "{body}");
        }
        assert_eq!(codes(&text("ok"), 503, "not so"), ["http.status.unexpected"], "one finding for one cause");
    }
}
