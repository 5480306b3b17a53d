//! Signed requests for what the object store's own client has no call for.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use reqwest::{Method, StatusCode};
use stackkit_core::{Clock, Error, ErrorKind, Phase, Result};

use super::reply::{self, Refusal};
use super::{BACKOFF_FIRST, BACKOFF_MAX, RETRIES_MAX};
use crate::error::storage;

/// The largest answer that is read into memory: a page of 1,000 names of 1 KiB each, each with its facts.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// What errors name where no object is concerned.
const THE_BUCKET: &str = "the bucket";

/// A request to the bucket.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) operation: &'static str,
    pub(super) method: Method,
    /// The object's whole key; `None` for the bucket itself.
    pub(super) key: Option<&'a Path>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}

impl<'a> Request<'a> {
    pub(super) fn new(operation: &'static str, method: Method, key: Option<&'a Path>) -> Self {
        Self { operation, method, key, query: Vec::new(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What errors name: the object, or the bucket.
    fn path(&self) -> Path {
        self.key.cloned().unwrap_or_else(|| Path::from(THE_BUCKET))
    }

    fn url(&self, bucket_url: &str) -> String {
        let mut url = bucket_url.to_owned();
        if let Some(key) = self.key {
            url.push('/');
            encode(&mut url, key.as_ref(), b"/");
        }
        for (place, (name, value)) in self.query.iter().enumerate() {
            url.push(if place == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            encode(&mut url, value, b"");
        }
        url
    }
}

/// Appends `text` as the signature wants it: all but letters, digits, `-._~` and what is in `kept` by its bytes.
fn encode(url: &mut String, text: &str, kept: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// The server's own word, as `NoSuchBucket`; empty if it says none.
    pub(super) code: String,
}

impl Refused {
    /// As an error, which names the server's code.
    pub(super) fn error(self, request: &Request<'_>) -> Error {
        let object = request.key.map_or(THE_BUCKET, |key| key.as_ref());
        let (kind, message) = match (self.code.as_str(), self.status) {
            ("NoSuchBucket", _) => (ErrorKind::NotFound, "there is no such bucket; stackkit makes none"),
            ("RequestTimeTooSkewed", _) => (ErrorKind::Unauthenticated, "the clocks here and at the storage differ"),
            (
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "TokenRefreshRequired"
                | "AuthorizationHeaderMalformed"
                | "InvalidSecurity",
                _,
            )
            | (_, StatusCode::UNAUTHORIZED) => {
                (ErrorKind::Unauthenticated, "the repository does not accept the credentials")
            }
            (_, StatusCode::FORBIDDEN) => (ErrorKind::PermissionDenied, "the repository denies access"),
            (_, StatusCode::NOT_FOUND) => (ErrorKind::NotFound, "the repository has no such object"),
            (_, StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED) => {
                (ErrorKind::Unsupported, "the repository's storage can't do this")
            }
            (_, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {
                (ErrorKind::Saturated, "the repository's storage has too much to do")
            }
            _ => (ErrorKind::Io, "the repository's storage failed"),
        };
        let error = Error::new(kind, message).with_operation(request.operation).with_context("object", object);
        let error = error.with_context("status", self.status.as_u16());
        if self.code.is_empty() { error } else { error.with_code(self.code) }
    }
}

/// How often a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Again and again, until the deadline of retries.
    Bounded,
    /// Once, for a caller that wants to know soon.
    Never,
}

/// A client of one bucket. It asks only what may be asked twice.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) http: HttpClient,
    /// It has the credentials.
    pub(super) store: AmazonS3,
    pub(super) region: String,
    /// The bucket's own URL, without a slash at its end.
    pub(super) url: String,
    /// After this no request is made again.
    pub(super) retry_deadline: Duration,
}

impl Client {
    /// Makes a request; the answer's body, or the server's refusal.
    ///
    /// # Errors
    /// The kinds of a network; what the server refuses is no error here.
    pub(super) async fn send(&self, request: &Request<'_>, retry: Retry) -> Result<Result<Bytes, Refused>> {
        let clock = Clock::system();
        let deadline = clock.deadline(self.retry_deadline);
        let mut pause = BACKOFF_FIRST;
        for attempt in 0.. {
            let answer = self.send_once(request).await;
            let again = match &answer {
                Err(Failure::Http(error)) => !matches!(error.kind(), HttpErrorKind::Decode),
                Err(Failure::Other(_)) | Ok(Ok(_)) => false,
                Ok(Err(refused)) => {
                    refused.status.is_server_error() && refused.status != StatusCode::NOT_IMPLEMENTED
                        || refused.status == StatusCode::TOO_MANY_REQUESTS
                }
            };
            if !again || retry == Retry::Never || attempt >= RETRIES_MAX || clock.instant() >= deadline {
                return answer.map_err(|failure| failure.error(request));
            }
            tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
        Err(Error::unexpected("an endless loop ended"))
    }

    /// As [`send`](Self::send), for what the server is not expected to refuse.
    ///
    /// # Errors
    /// Those of a network, and what the server refused.
    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<Bytes> {
        self.send(request, Retry::Bounded).await?.map_err(|refused| refused.error(request))
    }

    async fn send_once(&self, request: &Request<'_>) -> Result<Result<Bytes, Refused>, Failure> {
        let signed = self.signed(request).await.map_err(Failure::Other)?;
        let answer = self.http.execute(signed).await.map_err(Failure::Http)?;
        let status = answer.status();
        let mut stream = answer.into_body().bytes_stream();
        let mut body = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            body.extend_from_slice(&chunk.map_err(Failure::Http)?);
            if body.len() > ANSWER_BYTES_MAX {
                let error = Error::unexpected("the storage's answer is larger than any of S3's")
                    .with_operation(request.operation);
                return Err(Failure::Other(error));
            }
        }
        if status.is_success() {
            return Ok(Ok(body.freeze()));
        }
        // Proxies answer in words of their own; then the status has to do.
        let code = reply::parse::<Refusal>(&body).map(|refusal| refusal.code).unwrap_or_default();
        Ok(Err(Refused { status, code }))
    }

    async fn signed(&self, request: &Request<'_>) -> Result<HttpRequest> {
        let object = request.path();
        let wrong = || Error::unexpected("a request can't be put into words").with_operation(request.operation);
        let mut http = HttpRequest::new(HttpRequestBody::from(request.body.clone()));
        *http.method_mut() = request.method.clone();
        *http.uri_mut() = request.url(&self.url).parse().map_err(|_invalid| wrong())?;
        for (name, value) in &request.headers {
            http.headers_mut().insert(*name, value.parse().map_err(|_invalid| wrong())?);
        }
        let credentials = self.store.credentials().get_credential().await;
        let credentials = credentials.map_err(|e| storage("get the credentials", &object, e))?;
        AwsAuthorizer::new(&credentials, "s3", &self.region)
            .try_authorize(&mut http, None)
            .map_err(|e| storage(request.operation, &object, e))?;
        Ok(http)
    }
}

/// Why there is no answer.
enum Failure {
    Http(HttpError),
    Other(Error),
}

impl Failure {
    fn error(self, request: &Request<'_>) -> Error {
        match self {
            Self::Other(error) => error,
            Self::Http(error) => {
                let source = object_store::Error::Generic { store: "S3", source: Box::new(error) };
                storage(request.operation, &request.path(), source).with_phase(Phase::Connect)
            }
        }
    }
}

/// A body's hash, as S3 wants it in a header.
pub(super) fn sha256(body: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, body))
}

/// Of the whole of one request, unless the URL says another.
pub(super) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);
