//! `/status/events`: tells open status pages of each publication.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use stackkit_core::health::Snapshot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::bodies::Cache;
use crate::options::Access;
use crate::status::SILENCE_MAX;

/// How many pages of one router are told at a time. Each costs a task and a socket; whoever comes after is asked to reload.
pub const STATUS_EVENTS_CLIENTS_MAX: usize = 64;
/// The least time between two events: people read no faster, and a stack of hundreds publishes often.
const EVENT_PAUSE: Duration = Duration::from_secs(1);
/// What a page hears at least that often, or it says that the connection is lost.
const PING: Bytes = Bytes::from_static(b"event: ping\ndata: .\n\n");
const PING_EVERY: Duration = Duration::from_secs(SILENCE_MAX.as_secs() / 3);
/// In how many seconds a client that found no room should ask again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("15");

/// A text as one server-sent event.
pub(crate) fn message(text: &str) -> Bytes {
    let lines = text.split(['\n', '\r']).map(|line| format!("data: {line}\n"));
    lines.chain(["\n".to_owned()]).collect::<String>().into()
}

/// One page that is open.
struct Client {
    cache: Arc<Cache>,
    snapshot: Snapshot,
    access: Access,
    /// The number of the report that was sent last, once one was.
    told: Option<u64>,
    /// Its place among [`STATUS_EVENTS_CLIENTS_MAX`].
    _place: OwnedSemaphorePermit,
}

impl Client {
    /// The next piece of the stream; `None` when the monitor is gone.
    async fn next(&mut self) -> Option<Bytes> {
        // The page may be older than what it is told of from now on.
        if self.told.is_none() {
            return Some(self.event());
        }
        sleep(EVENT_PAUSE).await;
        match timeout(PING_EVERY - EVENT_PAUSE, self.snapshot.changed()).await {
            Ok(true) => Some(self.event()),
            Ok(false) => None,
            // A report grows stale without being published.
            Err(_elapsed) if self.told != Some(self.cache.bodies().rendering) => Some(self.event()),
            Err(_elapsed) => Some(PING),
        }
    }

    fn event(&mut self) -> Bytes {
        let bodies = self.cache.bodies();
        self.told = Some(bodies.rendering);
        self.cache.event(&bodies, self.access)
    }
}

/// A stream of events that ends with the monitor.
pub(crate) fn stream(cache: Arc<Cache>, places: Arc<Semaphore>, access: Access) -> Response {
    let Ok(place) = places.try_acquire_owned() else {
        let retry = [(axum::http::header::RETRY_AFTER, RETRY_AFTER_SECONDS)];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, "too many pages are open\n").into_response();
    };
    let snapshot = cache.snapshot();
    let client = Client { cache, snapshot, access, told: None, _place: place };
    let pieces = stream::unfold(client, async |mut client: Client| {
        let piece = client.next().await?;
        Some((Ok::<_, Infallible>(piece), client))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
