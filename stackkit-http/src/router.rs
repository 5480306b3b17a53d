//! The routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use stackkit_core::health::{LIVE, READY, STARTUP};
use stackkit_core::{Monitor, Report};
use tokio::sync::Semaphore;

use crate::bodies::{Cache, endpoint};
use crate::events::{self, STATUS_EVENTS_CLIENTS_MAX};
use crate::health::Form;
use crate::metrics::TextFormat;
use crate::options::{Details, RouterOptions};
use crate::query::{ProbeQuery, accepted, asks_to_log_in};
use crate::respond::{self, Sent};
use crate::status;
use crate::text::{self, Told};

/// The routes over the monitor's snapshot, with the default options: see [`router_with`].
pub fn router(monitor: &Monitor) -> Router {
    router_with(monitor, RouterOptions::default())
}

/// The same routes with every detail, for a listener that only operators reach.
///
/// ```no_run
/// # async fn run(monitor: &stackkit_core::Monitor) -> std::io::Result<()> {
/// let inside = tokio::net::TcpListener::bind("127.0.0.1:9090").await?;
/// axum::serve(inside, stackkit_http::operator_router(monitor)).await
/// # }
/// ```
pub fn operator_router(monitor: &Monitor) -> Router {
    router_with(monitor, RouterOptions::new().with_details(Details::Open))
}

/// The routes over the monitor's snapshot: `/livez`, `/readyz`, `/startupz`, `/groupz/<group>`, `/health`, `/metrics` and
/// `/status`; the crate's page lists them.
///
/// No request does I/O on a datastore, and what a report reads as is rendered once; the page, which shows ages, once a second. The
/// router does not keep the monitor running: once the monitor is dropped, its last report grows stale and `/readyz` answers 503.
///
/// To merge it into a router that has a state of its own, give that one its state first
/// (`app.with_state(state).merge(router)`).
pub fn router_with(monitor: &Monitor, options: RouterOptions) -> Router {
    let views = Views {
        cache: Arc::new(Cache::new(monitor.snapshot(), options.details.asks_who())),
        details: options.details,
        places: Arc::new(Semaphore::new(STATUS_EVENTS_CLIENTS_MAX)),
    };
    let mut router = Router::new()
        .route("/readyz", get(readyz))
        .route("/livez", get(livez))
        .route("/startupz", get(startupz))
        .route("/readyz/{service}", get(ready_member))
        .route("/livez/{service}", get(live_member))
        .route("/startupz/{service}", get(startup_member))
        .route("/groupz/{group}", get(group))
        .route("/groupz/{group}/{service}", get(group_member))
        .route("/health", get(health))
        .route("/health/{service}", get(service))
        .route("/metrics", get(metrics))
        .route("/status", get(page))
        .route("/status/events", get(page_events));
    for form in Form::ALL {
        let handler = async move |State(views): State<Shared>, headers: HeaderMap| views.health(&headers, form, "");
        router = router.route(&format!("/health.{}", form.word()), get(handler));
    }
    router.with_state(Arc::new(views))
}

type Shared = Arc<Views>;

/// What every route needs.
struct Views {
    cache: Arc<Cache>,
    details: Details,
    /// For open status pages.
    places: Arc<Semaphore>,
}

impl Views {
    /// The probe of a group. Without a query it costs two reads and no allocation beside the answer's headers.
    fn probe(&self, name: &str, request: &Request) -> Response {
        let report = self.cache.report();
        let Some(position) = report.groups.iter().position(|group| group.name.as_ref() == name) else {
            return respond::not_found("no such group\n");
        };
        let Some(query) = request.uri().query() else { return brief(&report, position) };
        let Some(group) = report.groups.get(position) else { return respond::not_found("no such group\n") };
        let query = ProbeQuery::read(query);
        let access = self.details.access(request.headers());
        let passing = text::passes_without(&report, group, &query.exclude);
        match (query.verbose, query.exclude.is_empty()) {
            (false, _) => respond::probe(passing, text::brief(passing)),
            (true, true) => {
                let bodies = self.cache.bodies();
                let passing =
                    bodies.report.groups.get(position).is_some_and(|group| text::passes(&bodies.report, group));
                respond::probe(passing, bodies.verbose(position, access).unwrap_or_default())
            }
            (true, false) => {
                let told = Told { endpoint: endpoint(name), group, excluded: &query.exclude, access };
                respond::probe(passing, told.verbose(&report))
            }
        }
    }

    /// The probe of one member of a group.
    fn member(&self, group: &str, service: &str, headers: &HeaderMap) -> Response {
        let report = self.cache.report();
        let member = report.group(group).and_then(|group| group.members.iter().find(|member| **member == *service));
        let Some(service) = member.and_then(|id| report.service(id.as_str())) else {
            return respond::not_found("no such service in this group\n");
        };
        let passing = service.passes(group);
        let mut line = String::new();
        text::line(&mut line, service, group, self.details.access(headers));
        respond::probe(passing, line)
    }

    fn health(&self, headers: &HeaderMap, form: Form, vary: &'static str) -> Response {
        let bodies = self.cache.bodies();
        let access = self.details.access(headers);
        let sent = self.sent(form.content_type(), respond::ready(bodies.report.ready), vary);
        respond::view(headers, self.cache.health(&bodies, form, access), sent)
    }

    /// How a view is sent. `vary` is what its form hangs on beside the credentials.
    fn sent(&self, content_type: &'static str, status: StatusCode, vary: &'static str) -> Sent {
        let vary = match (self.details.asks_who(), vary) {
            (false, vary) => vary,
            (true, "") => "authorization",
            (true, _) => "accept, authorization",
        };
        Sent { status, content_type, vary, private: !matches!(self.details, Details::Hidden) }
    }
}

/// What a probe without a query answers.
fn brief(report: &Report, position: usize) -> Response {
    let passing = report.groups.get(position).is_some_and(|group| text::passes(report, group));
    respond::probe(passing, Bytes::from_static(text::brief(passing).as_bytes()))
}

async fn readyz(State(views): State<Shared>, request: Request) -> Response {
    views.probe(READY, &request)
}

async fn livez(State(views): State<Shared>, request: Request) -> Response {
    views.probe(LIVE, &request)
}

async fn startupz(State(views): State<Shared>, request: Request) -> Response {
    views.probe(STARTUP, &request)
}

async fn group(State(views): State<Shared>, Path(group): Path<String>, request: Request) -> Response {
    views.probe(&group, &request)
}

async fn ready_member(State(views): State<Shared>, Path(service): Path<String>, headers: HeaderMap) -> Response {
    views.member(READY, &service, &headers)
}

async fn live_member(State(views): State<Shared>, Path(service): Path<String>, headers: HeaderMap) -> Response {
    views.member(LIVE, &service, &headers)
}

async fn startup_member(State(views): State<Shared>, Path(service): Path<String>, headers: HeaderMap) -> Response {
    views.member(STARTUP, &service, &headers)
}

async fn group_member(
    State(views): State<Shared>,
    Path((group, service)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    views.member(&group, &service, &headers)
}

async fn health(State(views): State<Shared>, headers: HeaderMap) -> Response {
    let form = Form::ALL.get(accepted(&headers, &Form::ACCEPTED)).copied().unwrap_or(Form::Native);
    views.health(&headers, form, "accept")
}

async fn service(State(views): State<Shared>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let bodies = views.cache.bodies();
    let services = &bodies.report.services;
    let Some(position) = services.iter().position(|service| service.id == *id) else {
        return respond::not_found("no such service\n");
    };
    let is_ready = services.get(position).is_some_and(|service| service.status.is_ready());
    let body = views.cache.service(&bodies, position, views.details.access(&headers));
    respond::view(&headers, body, views.sent(Form::Native.content_type(), respond::ready(is_ready), ""))
}

async fn metrics(State(views): State<Shared>, headers: HeaderMap) -> Response {
    let position = accepted(&headers, &TextFormat::ACCEPTED);
    let format = TextFormat::ALL.get(position).copied().unwrap_or(TextFormat::Prometheus);
    let body = views.cache.metrics(&views.cache.bodies(), format, views.details.access(&headers));
    respond::view(&headers, body, views.sent(format.content_type(), StatusCode::OK, "accept"))
}

async fn page(State(views): State<Shared>, request: Request) -> Response {
    let headers = request.headers();
    let access = views.details.access(headers);
    // A browser sends what it was told from now on to all that is beside the page: its events too.
    if views.details.asks_who() && !access.is_operator() && asks_to_log_in(request.uri().query()) {
        return respond::log_in();
    }
    let body = views.cache.page(&views.cache.bodies(), access);
    let mut response = respond::view(headers, body, views.sent("text/html; charset=utf-8", StatusCode::OK, ""));
    let policy = HeaderValue::from_static(status::CONTENT_SECURITY_POLICY);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

async fn page_events(State(views): State<Shared>, headers: HeaderMap) -> Response {
    events::stream(views.cache.clone(), views.places.clone(), views.details.access(&headers))
}
