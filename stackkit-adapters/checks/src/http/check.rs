//! The check of a web service.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request};
use serde_json::Value;
use stackkit_core::health::{Metric, Rule, Tier};
use stackkit_core::{
    ConfigFault, Endpoint, Error, HealthCheck, Observation, ProbeContext, Result, Secret, Service, ServiceId,
    async_trait,
};

use crate::error::CheckError;
use crate::http::client::{Answer, Connection, Trust};
use crate::http::headers::Headers;
use crate::http::judge::{BodyCondition, Wanted};
use crate::http::target::Target;
use crate::name::{Name, answer_by, ms_since, number};

/// 14 days: renewals by ACME are due 30 days before the end, so two weeks of failed ones are behind then, and as many are left.
const EXPIRY_SECONDS_WARNING: f64 = 14.0 * 24.0 * 3600.0;

const EXPIRY: &str = "tls_certificate_expiry_seconds";

const METRICS: &[Metric] = &[
    Metric::gauge("response_ms", "the request's start and the body's end", "Time until the whole answer was there")
        .on(Tier::Ping),
    Metric::gauge("response_bytes", "the body, at most 1 MiB of it", "Size of the answer's body").on(Tier::Ping),
    Metric::gauge(EXPIRY, "notAfter of the server's certificate", "Time until the server's certificate ends")
        .on(Tier::Ping),
];

/// Whether a web service answers as it should.
///
/// One request a probe, on one warm connection: it is taken out for a probe, put back when the answer was read to its end, and
/// opened anew after ten minutes. A kept connection that the server has closed is no failure: a request that only reads is
/// sent again on a new one.
///
/// - A status that is not accepted, a header or a body that is not as wanted are *observed facts*: critical findings about
///   readiness (`http.status.unexpected`, `http.header.mismatch`, `http.body.mismatch`, `http.body.too_large`). A 503 is such.
/// - `401` and `403` are errors (`Unauthenticated`, `PermissionDenied`), unless they are accepted.
/// - No answer is an error with its phase: `dns`, `connect`, `tls`, `query` (no status yet), `decode` (the body).
/// - A certificate that ends within 14 days is the risk `http.certificate.expires`; one that has ended is a `Config` error of the
///   phase `tls` with the code `certificate.expired`.
///
/// Redirects are not followed unless [`with_redirects`](Self::with_redirects) is said. Proxies in the environment do not
/// count. Bodies are read up to 1 MiB; neither they nor any header's value are shown anywhere.
///
/// ```
/// use stackkit_checks::HttpCheck;
/// use stackkit_core::Service;
/// let shop = HttpCheck::new("shop", "https://shop.example/health")
///     .with_bearer("t0ken")
///     .with_json("/status", "ok");
/// assert_eq!(shop.endpoint().to_string(), "https://shop.example:443");
/// assert!(shop.faults().is_empty());
/// assert_eq!(HttpCheck::new("shop", "ftp://shop.example").faults()[0].code, "http.url");
/// ```
pub struct HttpCheck {
    name: Name,
    target: Result<Target, &'static str>,
    method: String,
    headers: Headers,
    body: Bytes,
    wanted: Wanted,
    redirects_max: u32,
    trust: Trust,
    warm: Mutex<Option<Connection>>,
}

impl HttpCheck {
    /// The service at an `http` or `https` URL, called `id` in its stack. Does no I/O.
    ///
    /// What is wrong is told by [`Service::faults`].
    pub fn new(id: impl AsRef<str>, url: impl AsRef<str>) -> Self {
        Self {
            name: Name::new(id.as_ref(), "http", "http.id"),
            target: Target::parse(url.as_ref()),
            method: "GET".to_owned(),
            headers: Headers::default(),
            body: Bytes::new(),
            wanted: Wanted { statuses: (200..=299).collect(), headers: Vec::new(), bodies: Vec::new() },
            redirects_max: 0,
            trust: Trust::default(),
            warm: Mutex::default(),
        }
    }

    /// As [`HttpCheck::new`], called `http` until [`with_id`](Self::with_id).
    ///
    /// # Errors
    /// `Config` if the URL can't be asked: another scheme, no host, a password in it.
    pub fn from_url(url: &str) -> Result<Self> {
        let check = Self::new("http", url);
        match &check.target {
            Ok(_) => Ok(check),
            Err(wrong) => Err(Error::config(*wrong)),
        }
    }

    /// Gives the check a name in its stack.
    #[must_use]
    pub fn with_id(mut self, id: impl AsRef<str>) -> Self {
        self.name = Name::new(id.as_ref(), "http", "http.id");
        self
    }

    /// Sets the method; `GET` unless set. Anything but `GET` and `HEAD` should change nothing on the server all the same.
    #[must_use]
    pub fn with_method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self
    }

    /// Sets the accepted statuses, each 100 to 599: a range or a list; `200..=299` unless set.
    #[must_use]
    pub fn with_statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.wanted.statuses = BTreeSet::from_iter(statuses);
        self
    }

    /// Expects that the answer has a header of exactly that value. May be said several times.
    #[must_use]
    pub fn with_expected_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.wanted.headers.push((name.into(), value.into()));
        self
    }

    /// Expects that the body holds this text. May be said several times.
    #[must_use]
    pub fn with_body_containing(mut self, text: impl Into<String>) -> Self {
        self.wanted.bodies.push(BodyCondition::Contains(text.into().into_bytes()));
        self
    }

    /// Expects that the body is JSON and has this value at this pointer (RFC 6901): `/status`, `/checks/0/ok`. May be said
    /// several times.
    #[must_use]
    pub fn with_json(mut self, pointer: impl Into<String>, value: impl Into<Value>) -> Self {
        self.wanted.bodies.push(BodyCondition::Json { pointer: pointer.into(), value: value.into() });
        self
    }

    /// Sends a header. Its value is not shown, but it follows redirects to other hosts: what must not is a
    /// [secret](Self::with_secret_header).
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.add(name.into(), Secret::new(value), false);
        self
    }

    /// Sends a header with a secret value, to this server alone: not after a redirect to another scheme, host or port.
    #[must_use]
    pub fn with_secret_header(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.headers.add(name.into(), value.into(), true);
        self
    }

    /// Sends `Authorization: Bearer …`, as a secret header.
    #[must_use]
    pub fn with_bearer(self, token: impl Into<Secret>) -> Self {
        let value = Secret::new(format!("Bearer {}", token.into().expose()));
        self.with_secret_header(AUTHORIZATION.as_str(), value)
    }

    /// Sends this body; none unless set. Its type is a header: `with_header("content-type", "application/json")`.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Follows up to `max` redirects of a `GET` or `HEAD`; 0 unless set. One from HTTPS to plain HTTP is never followed: it is
    /// judged by its own status, as every one that is not followed is. Each host that it leads to gets a connection of its own.
    #[must_use]
    pub fn with_redirects(mut self, max: u32) -> Self {
        self.redirects_max = max;
        self
    }

    /// Trusts the authorities in this PEM file alone; the system's unless set.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust = Trust::new(Some(path.into()));
        self
    }

    fn method(&self) -> Option<Method> {
        Method::from_bytes(self.method.as_bytes()).ok()
    }

    async fn look(&self, cx: &ProbeContext) -> Result<Observation> {
        let start = cx.clock().instant();
        let own = self.target.as_ref().map_err(|wrong| Error::config(*wrong))?;
        let method = self.method().ok_or_else(|| Error::config("the method is none that HTTP allows"))?;
        let (mut answer, ends) = self.ask(own, &method, cx).await?;
        let mut hop: Option<Target> = None;
        for _ in 0..self.redirects_max {
            let from = hop.as_ref().unwrap_or(own);
            let Some(next) = from.redirected(&method, answer.status, &answer.headers) else { break };
            answer = self.ask(&next, &method, cx).await?.0;
            hop = Some(next);
        }
        let mut observation = Observation::new().gauge("response_ms", ms_since(cx, start));
        observation = match answer.is_cut {
            true => observation.unavailable("response_bytes", "more than 1 MiB"),
            false => observation.gauge("response_bytes", number(u64::try_from(answer.body.len()).unwrap_or(u64::MAX))),
        };
        observation = match ends {
            None => observation,
            Some(None) => observation.unavailable(EXPIRY, "the certificate can't be read"),
            Some(Some(ends)) => observation.gauge(EXPIRY, ends.duration_since(cx.clock().now()).as_secs_f64()),
        };
        self.wanted.judge(&answer, observation)
    }

    /// One request to one server, on the warm connection if that is the server's; and when the server's certificate ends.
    async fn ask(&self, target: &Target, method: &Method, cx: &ProbeContext) -> Result<(Answer, Ends)> {
        let deadline = answer_by(cx);
        let is_own = self.target.as_ref().is_ok_and(|own| own.is_same_origin(target));
        // What changes something must not be sent twice, so it gets no connection that may be dead.
        if is_own
            && method.is_idempotent()
            && let Some(mut connection) = self.take_warm()
            && connection.is_usable(deadline, cx.clock()).await
        {
            match connection.exchange(self.request(target, method, is_own)?, deadline).await {
                // The server hung up while the request was on its way.
                Err(CheckError::Exchange(stackkit_core::Phase::Query, _)) => {}
                answered => return self.answered(connection, answered, is_own).await,
            }
        }
        let opened = Connection::open(target, &self.trust, deadline, cx.clock()).await;
        let mut connection = opened.map_err(|error| self.with_place(error, target))?;
        let answered = connection.exchange(self.request(target, method, is_own)?, deadline).await;
        self.answered(connection, answered, is_own).await.map_err(|error| self.with_place(error, target))
    }

    /// Keeps the connection if it is clean.
    async fn answered(
        &self,
        mut connection: Connection,
        answered: Result<Answer, CheckError>,
        is_own: bool,
    ) -> Result<(Answer, Ends)> {
        let answer = answered?;
        let ends = connection.certificate_ends;
        if is_own && connection.is_clean_after(&answer).await {
            *self.warm.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        Ok((answer, ends))
    }

    fn take_warm(&self) -> Option<Connection> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn request(&self, target: &Target, method: &Method, with_secrets: bool) -> Result<Request<Full<Bytes>>> {
        let bad = |error: hyper::http::Error| Error::config("the request is none that HTTP allows").with_source(error);
        let host = HeaderValue::from_str(target.host()).map_err(|error| bad(error.into()))?;
        let request = Request::builder().method(method).uri(target.path()).body(Full::new(self.body.clone()));
        let mut request = request.map_err(bad)?;
        *request.headers_mut() = self.headers.map(with_secrets)?;
        request.headers_mut().entry(HOST).or_insert(host);
        Ok(request)
    }

    /// Says which server it was; a certificate's files may be mended until the next probe.
    fn with_place(&self, error: Error, target: &Target) -> Error {
        if error.phase() == Some(stackkit_core::Phase::Tls) {
            self.trust.forget();
        }
        error.with_context("host", &target.address.host).with_context("port", target.address.port)
    }
}

/// When a certificate ends: `None` without TLS, `None` inside if it can't be read.
type Ends = Option<Option<jiff::Timestamp>>;

impl fmt::Debug for HttpCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCheck")
            .field("id", &self.name.id)
            .field("target", &self.target)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Service for HttpCheck {
    fn id(&self) -> &ServiceId {
        &self.name.id
    }

    fn kind(&self) -> &'static str {
        "http"
    }

    fn endpoint(&self) -> Endpoint {
        self.target.as_ref().map_or_else(|_wrong| Endpoint::local("http", ""), Target::endpoint)
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let url = self.target.as_ref().err().map(|wrong| ConfigFault::error("http.url", *wrong));
        let method = self.method().is_none().then(|| {
            ConfigFault::error("http.method", format!("the method {:?} is none that HTTP allows", self.method))
        });
        let statuses = &self.wanted.statuses;
        let statuses = (statuses.is_empty() || !statuses.iter().all(|status| (100..=599).contains(status)))
            .then(|| ConfigFault::error("http.statuses", "the accepted statuses are not one or more of 100 to 599"));
        let expected = self.wanted.headers.iter().filter(|(name, _)| HeaderName::from_bytes(name.as_bytes()).is_err());
        let expected = expected
            .map(|(name, _)| ConfigFault::error("http.expected_header", format!("{name:?} is no header's name")));
        let pointers = self.wanted.bodies.iter().filter_map(BodyCondition::fault);
        let plain = self.target.as_ref().is_ok_and(|target| !target.is_tls && !target.is_loopback());
        let plain = (plain && self.headers.have_secrets())
            .then(|| ConfigFault::warning("http.secret.plain", "a secret header is sent without TLS: use https"));
        let own = url.into_iter().chain(method).chain(statuses).chain(expected).chain(pointers).chain(plain);
        self.name.faults(own.chain(self.headers.faults("http.header")))
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for HttpCheck {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        self.look(cx).await.map_err(|error| error.with_operation("probe"))
    }

    async fn reset(&self) {
        self.take_warm();
        self.trust.forget();
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        vec![Rule::below(EXPIRY, "http.certificate.expires").warning(EXPIRY_SECONDS_WARNING).critical(0.0).saying(
            "the server's certificate ends soon, or has ended",
            "renew it, and look why it was not renewed by itself",
        )]
    }
}
