//! One connection that speaks HTTP/1.1, and one exchange on it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use stackkit_core::{Clock, Error, Phase, Result, tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::CheckError;
use crate::http::der;
use crate::http::target::Target;
use crate::net::within;

/// The most of a body that is read: health documents have kilobytes, and a page of a megabyte is no health check.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// After this a warm connection is given up: a certificate that was renewed, and a name that moved, are seen then.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Whom to trust; loaded at the first use.
#[derive(Default)]
pub(crate) struct Trust {
    ca_file: Option<PathBuf>,
    loaded: Mutex<Option<Arc<ClientConfig>>>,
}

impl Trust {
    /// The authorities of a PEM file, or the system's.
    pub(crate) fn new(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, loaded: Mutex::default() }
    }

    /// Loads anew the next time: the file may have been mended.
    pub(crate) fn forget(&self) {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Reads files in a thread for blocking work.
    async fn config(&self) -> Result<Arc<ClientConfig>> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(loaded) = loaded {
            return Ok(loaded);
        }
        let ca_file = self.ca_file.clone();
        let config = tokio::task::spawn_blocking(move || tls::client_config(ca_file.as_deref())).await;
        let config = config.map_err(|error| Error::from(CheckError::Looker(Some(io::Error::other(error)))))??;
        let mut config = ClientConfig::clone(&config);
        // A resumed session shows the certificate of the first one, and nobody looks whether it is still valid.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(config.clone());
        Ok(config)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

/// An answer, as far as it was read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// At most [`BODY_BYTES_MAX`].
    pub(crate) body: Bytes,
    /// Whether there was more.
    pub(crate) is_cut: bool,
}

type Driver = http1::Connection<TokioIo<Box<dyn Io>>, Full<Bytes>>;

/// One connection. It works while it is driven, so it needs no task of its own; dropping it closes it.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` when the connection has ended.
    driver: Option<Driver>,
    opened_at: Instant,
    /// When the server's certificate ends; `None` inside if that can't be read.
    pub(crate) certificate_ends: Option<Option<Timestamp>>,
}

impl Connection {
    /// Opens a connection: name, address, TLS, each with what is left until `deadline`.
    ///
    /// Cancel safe: dropping the future closes what was opened.
    pub(crate) async fn open(target: &Target, trust: &Trust, deadline: Instant, clock: &Clock) -> Result<Self> {
        let stream = target.address.connect(deadline, clock).await?;
        // A request is one small write; waiting for more would only delay it. Where it can't be set, it is delayed.
        stream.set_nodelay(true).ok();
        let mut certificate_ends = None;
        let io: Box<dyn Io> = match target.is_tls {
            false => Box::new(stream),
            true => {
                let config = within(deadline, Phase::Tls, trust.config()).await?;
                let config = config.map_err(|error| error.with_phase(Phase::Tls))?;
                let stream = handshake(target, config, stream, deadline).await?;
                let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                certificate_ends = Some(leaf.and_then(|leaf| der::not_after(leaf)));
                Box::new(stream)
            }
        };
        let shaken = http1::handshake(TokioIo::new(io)).await;
        let (sender, driver) = shaken.map_err(|error| CheckError::Exchange(Phase::Query, error))?;
        Ok(Self { sender, driver: Some(driver), opened_at: clock.instant(), certificate_ends })
    }

    /// Whether another request may be sent on it. A server that hung up meanwhile is noticed.
    pub(crate) async fn is_usable(&mut self, deadline: Instant, clock: &Clock) -> bool {
        if clock.instant().saturating_duration_since(self.opened_at) > CONNECTION_AGE_MAX {
            return false;
        }
        let ready = drive(&mut self.driver, self.sender.ready());
        matches!(within(deadline, Phase::Query, ready).await, Ok(Ok(()))) && self.driver.is_some()
    }

    /// Sends a request and reads its answer, the body up to [`BODY_BYTES_MAX`].
    ///
    /// Not cancel safe for the connection: whoever drops the future must drop it too.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Answer, CheckError> {
        let sent = drive(&mut self.driver, self.sender.send_request(request));
        let sent = within(deadline, Phase::Query, sent).await?;
        let (head, body) = sent.map_err(|error| failed(Phase::Query, error))?.into_parts();
        let reading = drive(&mut self.driver, read_body(body));
        let (body, is_cut) = within(deadline, Phase::Decode, reading).await??;
        Ok(Answer { status: head.status, headers: head.headers, body, is_cut })
    }

    /// Sends a request and reads the status of its answer alone; then the connection is of no more use.
    pub(crate) async fn status_of(
        &mut self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<StatusCode, CheckError> {
        let sent = drive(&mut self.driver, self.sender.send_request(request));
        let sent = within(deadline, Phase::Query, sent).await?;
        sent.map(|answer| answer.status()).map_err(|error| failed(Phase::Query, error))
    }

    /// Whether it may be kept after that answer.
    pub(crate) async fn is_clean_after(&mut self, answer: &Answer) -> bool {
        // One look: `Connection: close` ends it here.
        drive(&mut self.driver, std::future::ready(())).await;
        !answer.is_cut && self.driver.is_some() && !self.sender.is_closed()
    }
}

/// Does `work` while the connection moves bytes.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // Dropped at its end, so that whoever waits for an answer is told; how it ended, too.
        if driver.as_mut().is_some_and(|driver| Pin::new(driver).poll(cx).is_ready()) {
            *driver = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

async fn read_body(mut body: Incoming) -> Result<(Bytes, bool), CheckError> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(Phase::Decode, error))?;
        let Ok(data) = frame.into_data() else { continue };
        let room = BODY_BYTES_MAX.saturating_sub(read.len());
        read.extend_from_slice(data.get(..data.len().min(room)).unwrap_or_default());
        if data.len() > room {
            return Ok((read.freeze(), true));
        }
    }
    Ok((read.freeze(), false))
}

fn failed(phase: Phase, error: hyper::Error) -> CheckError {
    if error.is_parse() { CheckError::Protocol(error) } else { CheckError::Exchange(phase, error) }
}

async fn handshake(
    target: &Target,
    config: Arc<ClientConfig>,
    stream: TcpStream,
    deadline: Instant,
) -> Result<TlsStream<TcpStream>, CheckError> {
    let name = ServerName::try_from(target.address.host.clone());
    let name = name.map_err(|error| CheckError::Tls(io::Error::other(error)))?;
    let shaken = within(deadline, Phase::Tls, TlsConnector::from(config).connect(name, stream)).await?;
    shaken.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => CheckError::Certificate(reason.clone()),
        _ => CheckError::Tls(error),
    })
}
