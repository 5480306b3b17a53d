//! Answers: their headers, and when one is not sent again.

use axum::body::Body as HttpBody;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::bodies::Body;

/// A probe's answer is true for this moment only; a proxy must not serve it again.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// A view may be kept, and is asked for by its tag before it is shown again.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");
/// As [`REVALIDATE`], by the one who asked alone: details are not for a proxy that others use.
const REVALIDATE_PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The answer of a probe.
pub(crate) fn probe(passing: bool, body: impl Into<HttpBody>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = ready(passing);
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// 404, in a word.
pub(crate) fn not_found(what: &'static str) -> Response {
    let mut response = probe(false, what);
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Has a browser ask for the token (RFC 7617).
pub(crate) fn log_in() -> Response {
    const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"stackkit\", charset=\"UTF-8\"");
    let mut response = probe(false, "the password is the token, the user may be anyone\n");
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    response
}

/// 200 or 503.
pub(crate) fn ready(passing: bool) -> StatusCode {
    if passing { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// How a view is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    /// The headers of the request on which the form hangs.
    pub(crate) vary: &'static str,
    /// Whether details are in it.
    pub(crate) private: bool,
}

/// The answer of a view; 304 where the request's tag is that of the body, and the answer were 200: what a 503 says must not be
/// taken from a cache.
pub(crate) fn view(request: &HeaderMap, body: Option<Body>, sent: Sent) -> Response {
    // A prober must not read it as healthy.
    let Some(body) = body else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the report can't be written\n").into_response();
    };
    let is_known = sent.status == StatusCode::OK && knows(request, &body.etag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Response::new(HttpBody::from(body.bytes)),
    };
    if !is_known {
        *response.status_mut() = sent.status;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(sent.content_type));
    headers.insert(CACHE_CONTROL, if sent.private { REVALIDATE_PRIVATE } else { REVALIDATE });
    headers.insert(ETAG, body.etag);
    if !sent.vary.is_empty() {
        headers.insert(VARY, HeaderValue::from_static(sent.vary));
    }
    response
}

/// Whether one of the request's tags is this one; a weak tag counts, as RFC 9110 (13.1.2) has it.
fn knows(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let lines = request.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
}
