//! The routes, and the one decision they share: whether a request gets details.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use stackkit_core::health::Snapshot;
use stackkit_core::{Monitor, Report};

use crate::{json, text};

/// A probe's answer is true for this moment only; a proxy must not serve it again.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Whether a request may see more than statuses: endpoints, failures, measurements, findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Details {
    /// A request that says `?verbose` sees them; any other does not.
    #[default]
    OnRequest,
    /// No request sees them; `?verbose` is ignored. For routers that strangers can reach.
    Never,
}

/// How the routes behave.
///
/// ```
/// use stackkit_http::{Details, RouterOptions};
/// let options = RouterOptions::new().with_details(Details::Never);
/// assert_eq!(options.details, Details::Never);
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct RouterOptions {
    /// Who sees details; [`Details::OnRequest`] unless set.
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

/// The routes `/livez`, `/readyz` and `/health` with the default options: see [`router_with`].
pub fn router(monitor: &Monitor) -> Router {
    router_with(monitor, RouterOptions::default())
}

/// The routes `/livez`, `/readyz` and `/health` over the monitor's snapshot.
///
/// No request does I/O on a datastore. The router does not keep the monitor running: once the monitor is dropped,
/// its last report grows stale and `/readyz` answers 503.
///
/// To merge it into a router that has a state of its own, give that one its state first
/// (`app.with_state(state).merge(router)`).
pub fn router_with(monitor: &Monitor, options: RouterOptions) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(health))
        .with_state(Views { snapshot: monitor.snapshot(), details: options.details })
}

#[derive(Clone)]
struct Views {
    snapshot: Snapshot,
    details: Details,
}

impl Views {
    fn report(&self) -> Arc<Report> {
        self.snapshot.report()
    }

    fn is_verbose(&self, query: Option<&str>) -> bool {
        self.details == Details::OnRequest && query.is_some_and(asks_for_details)
    }
}

/// Whether the query has `verbose`, as Kubernetes reads it, or `verbose=` anything but `0` and `false`.
fn asks_for_details(query: &str) -> bool {
    let value = query.split('&').find_map(|pair| match pair.split_once('=') {
        Some(("verbose", value)) => Some(value),
        None if pair == "verbose" => Some(""),
        _ => None,
    });
    value.is_some_and(|value| !matches!(value, "0" | "false"))
}

/// Alive is all that can be said without asking anybody: a datastore's failure must not restart this process.
async fn livez() -> Response {
    answer(StatusCode::OK, TEXT, text::LIVE)
}

async fn readyz(State(views): State<Views>, RawQuery(query): RawQuery) -> Response {
    let report = views.report();
    let body = match views.is_verbose(query.as_deref()) {
        true => text::verbose(&report),
        false => text::brief(report.ready).to_owned(),
    };
    answer(status(&report), TEXT, body)
}

async fn health(State(views): State<Views>, RawQuery(query): RawQuery) -> Response {
    let report = views.report();
    let body = match views.is_verbose(query.as_deref()) {
        true => json::full(&report),
        false => json::brief(&report),
    };
    match body {
        Ok(body) => answer(status(&report), JSON, body),
        // A report is plain data with string keys, so this is a bug; a prober must not read it as healthy.
        Err(_bug) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the report can't be written as JSON\n"),
    }
}

fn status(report: &Report) -> StatusCode {
    if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn answer(status: StatusCode, content_type: HeaderValue, body: impl IntoResponse) -> Response {
    (status, [(CONTENT_TYPE, content_type), (CACHE_CONTROL, NO_STORE)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbose_is_a_flag_that_can_be_denied() {
        for yes in ["verbose", "verbose=", "verbose=1", "verbose=true", "a=b&verbose", "verbose&exclude=x"] {
            assert!(asks_for_details(yes), "{yes}");
        }
        for no in ["", "verbose=0", "verbose=false", "verbosex", "x=verbose", "a&b=verbose"] {
            assert!(!asks_for_details(no), "{no}");
        }
    }
}
