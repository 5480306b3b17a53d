//! Transitions as HTTP requests.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::Value;
use stackkit_core::health::{Event, SINK_TIMEOUT, Sink};
use stackkit_core::{Clock, Error, ErrorKind, Phase, Result, Secret, async_trait};
use tokio::time::{Instant, sleep};

use crate::http::client::{Connection, Trust};
use crate::http::headers::Headers;
use crate::http::target::Target;
use crate::http::template::Template;

/// How often one event is posted at most, unless [`WebhookSink::with_attempts`] says otherwise: with the waits below it
/// outlasts a receiver that restarts.
const ATTEMPTS_MAX: u32 = 4;
/// The wait before the second attempt unless said otherwise; it doubles with each.
const WAIT_FIRST: Duration = Duration::from_millis(500);
/// Waits do not grow further: an event of a minute ago helps nobody.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The part of the sink's time that is kept for ending by itself, with an error that says why.
const ANSWER_SHARE: u32 = 20;

/// Posts each transition as JSON to a URL.
///
/// The document unless a template says otherwise; fields may be added, none changes its meaning under the same schema:
///
/// ```json
/// {"schema": "stackkit.event/1", "stack": "shop", "service": "db", "kind": "postgresql", "from": "healthy",
///  "to": "unhealthy", "at": "2026-11-21T06:15:30Z", "flapping": false, "ready": false,
///  "message": "shop: db turned from healthy to unhealthy: nothing accepts connections there",
///  "failure": {"kind": "unreachable", "phase": "connect", "message": "nothing accepts connections there"}}
/// ```
///
/// A 2xx is done. A receiver that can't be reached, is too slow, or says 408, 429 or 5xx is asked again, up to four times, with
/// growing waits, within the sink's timeout; so it may get an event twice. Any other status is final. Redirects are not
/// followed. The whole URL is a secret, as are all headers: none is shown or logged.
///
/// ```
/// use stackkit_checks::WebhookSink;
/// use stackkit_core::health::MonitorOptions;
/// let chat = WebhookSink::slack("https://hooks.slack.com/services/T000/B000/XXXX")?;
/// let pager = WebhookSink::new("https://pager.example/events")?
///     .with_bearer("t0ken")?
///     .with_template(r#"{"title": "{{service}} is {{to}}", "text": "{{message}}"}"#)?;
/// let options = MonitorOptions::new().with_sink(chat).with_sink(pager);
/// # Ok::<(), stackkit_core::Error>(())
/// ```
pub struct WebhookSink {
    url: Secret,
    headers: Headers,
    template: Template,
    trust: Trust,
    clock: Clock,
    limit: Duration,
    attempts_max: u32,
    wait_first: Duration,
}

/// How an attempt ended without success.
struct Refusal {
    error: Error,
    is_final: bool,
}

impl WebhookSink {
    /// Posts to an `http` or `https` URL. Does no I/O.
    ///
    /// # Errors
    /// `Config` if the URL can't be asked.
    pub fn new(url: impl Into<Secret>) -> Result<Self> {
        let url = url.into();
        Target::parse(url.expose()).map_err(|wrong| Error::config(wrong).with_operation("make a webhook"))?;
        Ok(Self {
            url,
            headers: Headers::default(),
            template: Template::Event,
            trust: Trust::default(),
            clock: Clock::system(),
            limit: SINK_TIMEOUT,
            attempts_max: ATTEMPTS_MAX,
            wait_first: WAIT_FIRST,
        })
    }

    /// Posts `{"text": …}`, as Slack, Mattermost and Rocket.Chat take it.
    ///
    /// # Errors
    /// As [`WebhookSink::new`].
    pub fn slack(url: impl Into<Secret>) -> Result<Self> {
        Ok(Self { template: Template::Slack, ..Self::new(url)? })
    }

    /// Posts this JSON, with `{{stack}}`, `{{service}}`, `{{from}}`, `{{to}}`, `{{at}}` and `{{message}}` in its texts replaced.
    /// What they stand for is escaped as JSON wants it.
    ///
    /// # Errors
    /// `Config` if it is not JSON, or names another placeholder.
    pub fn with_template(self, template: &str) -> Result<Self> {
        Ok(Self { template: Template::parse(template)?, ..self })
    }

    /// Posts what this function makes of an event.
    #[must_use]
    pub fn with_template_fn(mut self, template: impl Fn(&Event) -> Value + Send + Sync + 'static) -> Self {
        self.template = Template::Function(Box::new(template));
        self
    }

    /// Sends a header; its value is a secret.
    ///
    /// # Errors
    /// `Config` if HTTP does not allow the name or the value.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Result<Self> {
        self.headers.add(name.into(), value.into(), true);
        let fault = self.headers.faults("webhook.header").next();
        fault.map_or(Ok(self), |fault| Err(Error::config(fault.message)))
    }

    /// Sends `Authorization: Bearer …`.
    ///
    /// # Errors
    /// As [`WebhookSink::with_header`].
    pub fn with_bearer(self, token: impl Into<Secret>) -> Result<Self> {
        self.with_header(AUTHORIZATION.as_str(), format!("Bearer {}", token.into().expose()))
    }

    /// Trusts the authorities in this PEM file alone; the system's unless set.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust = Trust::new(Some(path.into()));
        self
    }

    /// Sets how long one event may take with all its attempts; 30 s unless set.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets how often one event is posted at most, 0 counting as 1, and the wait before the second attempt, which doubles with
    /// each; 4 times and 0.5 s unless set.
    #[must_use]
    pub fn with_attempts(mut self, max: u32, wait_first: Duration) -> Self {
        (self.attempts_max, self.wait_first) = (max.max(1), wait_first);
        self
    }

    /// Posts until it is taken, refused for good, or too late.
    async fn deliver(&self, body: &Bytes, deadline: Instant) -> Result<()> {
        let mut wait = self.wait_first;
        let mut left = self.attempts_max;
        loop {
            left = left.saturating_sub(1);
            let now = self.clock.instant();
            // A receiver that hangs must not use up the time of all attempts.
            let until = now + deadline.saturating_duration_since(now) / left.saturating_add(1);
            let Err(refusal) = self.post(body.clone(), until).await else { return Ok(()) };
            if refusal.is_final {
                return Err(refusal.error);
            }
            // Half of it at least: receivers that were away get no herd.
            let wait_now = wait.mul_f64(0.5 + fastrand::f64() / 2.0).min(WAIT_MAX);
            if left == 0 || self.clock.instant() + wait_now >= deadline {
                return Err(refusal.error.with_retries_exhausted());
            }
            sleep(wait_now).await;
            wait = wait.saturating_mul(2).min(WAIT_MAX);
        }
    }

    async fn post(&self, body: Bytes, deadline: Instant) -> Result<(), Refusal> {
        let failed = |error: Error| Refusal { is_final: !error.retryable(), error };
        let target = Target::parse(self.url.expose()).map_err(|wrong| failed(Error::config(wrong)))?;
        let request = self.request(&target, body).map_err(failed)?;
        let opened = Connection::open(&target, &self.trust, deadline, &self.clock).await;
        let mut connection = opened.map_err(failed)?;
        let status = connection.status_of(request, deadline).await.map_err(|error| failed(error.into()))?;
        judge(status)
    }

    fn request(&self, target: &Target, body: Bytes) -> Result<Request<Full<Bytes>>> {
        // The causes would quote the URL.
        let bad = || Error::config("the request is none that HTTP allows");
        let host = HeaderValue::from_str(target.host()).map_err(|_quotes_it| bad())?;
        let request = Request::post(target.path()).body(Full::new(body)).map_err(|_quotes_it| bad())?;
        let (mut parts, body) = request.into_parts();
        parts.headers = self.headers.map(true)?;
        parts.headers.entry(HOST).or_insert(host);
        parts.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        Ok(Request::from_parts(parts, body))
    }
}

/// What a status means for an event.
fn judge(status: StatusCode) -> Result<(), Refusal> {
    let (kind, message) = match status.as_u16() {
        200..=299 => return Ok(()),
        408 | 429 | 500..=599 => (ErrorKind::Busy, "the receiver can't take the event now"),
        401 => (ErrorKind::Unauthenticated, "the receiver does not accept the credentials"),
        403 => (ErrorKind::PermissionDenied, "the receiver denies access"),
        404 | 410 => (ErrorKind::NotFound, "the receiver knows no such webhook"),
        _ => (ErrorKind::Config, "the receiver refuses the event"),
    };
    let error = Error::new(kind, message).with_code(status.as_str()).with_phase(Phase::Query);
    Err(Refusal { is_final: !error.retryable(), error })
}

impl fmt::Debug for WebhookSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSink")
            .field("url", &self.url)
            .field("template", &self.template)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for WebhookSink {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn timeout(&self) -> Duration {
        self.limit
    }

    /// Posts one event.
    ///
    /// # Errors
    /// `Unreachable`, `Timeout` and `Busy` when the last attempt has failed; at once `Config`, `Unauthenticated`,
    /// `PermissionDenied` and `NotFound`.
    ///
    /// # Cancel safety
    /// Cancel safe; the receiver may have got the event all the same.
    async fn publish(&self, event: &Event) -> Result<()> {
        let deadline = self.clock.deadline(self.limit.saturating_sub(self.limit / ANSWER_SHARE));
        let body = self.template.render(event)?.to_string().into();
        self.deliver(&body, deadline).await.map_err(|error| error.with_operation("post an event"))
    }
}
