//! A port that accepts connections.

use bytes::Bytes;
use stackkit_core::health::{Axis, Finding, Metric, Severity, Tier};
use stackkit_core::{
    ConfigFault, Endpoint, Error, HealthCheck, Observation, Phase, ProbeContext, Result, Service, ServiceId,
    async_trait,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::error::CheckError;
use crate::name::{Name, answer_by, ms_since};
use crate::net::{Address, within};

/// The longest banner prefix in bytes: a greeting's first line (SMTP, SSH and FTP allow 255 to 512 bytes) fits.
const BANNER_BYTES_MAX: usize = 1024;
/// How much of what the server says beyond that is read before closing: closing on unread bytes resets the connection, which
/// servers log as an error. A greeting fits.
const UNREAD_BYTES_MAX: usize = 16 << 10;

const METRICS: &[Metric] = &[
    Metric::gauge("connect_ms", "connect(2)", "Time until the name was resolved and the connection open")
        .on(Tier::Ping),
    Metric::gauge("banner_ms", "the first bytes received", "Time from the open connection to the whole banner")
        .on(Tier::Ping),
];

/// Whether a port accepts connections, and greets as it should. Each probe opens a connection and closes it.
///
/// ```
/// use stackkit_checks::TcpCheck;
/// use stackkit_core::Service;
/// let mail = TcpCheck::new("mail", "mail.internal", 25).with_banner("220 ");
/// assert_eq!(mail.endpoint().to_string(), "tcp://mail.internal:25");
/// assert!(mail.faults().is_empty());
/// ```
#[derive(Debug)]
pub struct TcpCheck {
    name: Name,
    address: Address,
    send: Bytes,
    banner: Bytes,
}

impl TcpCheck {
    /// The port `port` of `host`, called `id` in its stack. Does no I/O.
    ///
    /// What is wrong is told by [`Service::faults`].
    pub fn new(id: impl AsRef<str>, host: impl AsRef<str>, port: u16) -> Self {
        let name = Name::new(id.as_ref(), "tcp", "tcp.id");
        Self { name, address: Address::new(host.as_ref(), port), send: Bytes::new(), banner: Bytes::new() }
    }

    /// The port that a `tcp://host:port` URL names, called `tcp` until [`with_id`](Self::with_id).
    ///
    /// ```
    /// use stackkit_checks::TcpCheck;
    /// use stackkit_core::Service;
    /// assert_eq!(TcpCheck::from_url("tcp://[::1]:4222")?.endpoint().to_string(), "tcp://[::1]:4222");
    /// # Ok::<(), stackkit_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` for another scheme, a missing host or port, or a path.
    pub fn from_url(url: &str) -> Result<Self> {
        let place = url.strip_prefix("tcp://").and_then(|rest| rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':'));
        let place = place.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = place
            .filter(|(host, _): &(&str, u16)| !host.is_empty() && !host.contains(['/', '@', '?', '#']))
            .ok_or_else(|| Error::config("the URL is not of the form tcp://host:port"))?;
        Ok(Self::new("tcp", host, port))
    }

    /// Gives the check a name in its stack.
    #[must_use]
    pub fn with_id(mut self, id: impl AsRef<str>) -> Self {
        self.name = Name::new(id.as_ref(), "tcp", "tcp.id");
        self
    }

    /// Sends these bytes once the connection is open; nothing unless set. They are not shown anywhere.
    #[must_use]
    pub fn with_send(mut self, bytes: impl Into<Bytes>) -> Self {
        self.send = bytes.into();
        self
    }

    /// Expects that what the server says begins with these bytes, at most 1024; it need not say anything unless set.
    #[must_use]
    pub fn with_banner(mut self, prefix: impl Into<Bytes>) -> Self {
        self.banner = prefix.into();
        self
    }

    async fn look(&self, cx: &ProbeContext, deadline: Instant) -> Result<Observation, CheckError> {
        let start = cx.clock().instant();
        let mut stream = self.address.connect(deadline, cx.clock()).await?;
        let observation = Observation::new().gauge("connect_ms", ms_since(cx, start));
        let start = cx.clock().instant();
        let io = |error| CheckError::Io(Phase::Query, error);
        if !self.send.is_empty() {
            within(deadline, Phase::Query, stream.write_all(&self.send)).await?.map_err(io)?;
        }
        let observation = match self.banner.is_empty() {
            true => observation,
            false => match within(deadline, Phase::Query, self.greets(&mut stream)).await?? {
                true => observation.gauge("banner_ms", ms_since(cx, start)),
                false => observation.unavailable("banner_ms", "another banner").finding(mismatch()),
            },
        };
        close(stream, deadline).await;
        Ok(observation)
    }

    /// Whether the server says the banner; stops at the first other byte.
    async fn greets(&self, stream: &mut TcpStream) -> Result<bool, CheckError> {
        let mut seen = vec![0; self.banner.len()];
        let mut count = 0;
        while count < seen.len() {
            let room = seen.get_mut(count..).unwrap_or_default();
            let read = stream.read(room).await.map_err(|error| CheckError::Io(Phase::Query, error))?;
            if read == 0 {
                return Err(CheckError::Closed(Phase::Query));
            }
            count += read;
            if seen.get(..count) != self.banner.get(..count) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Says goodbye, having read what is there. That the peer was faster is no fault of the service.
async fn close(mut stream: TcpStream, deadline: Instant) {
    within(deadline, Phase::Query, stream.shutdown()).await.ok();
    stream.try_read(&mut vec![0; UNREAD_BYTES_MAX]).ok();
}

fn mismatch() -> Finding {
    let message = "the server greets with something else than the expected banner";
    Finding::new("tcp.banner.mismatch", Axis::Ready, Severity::Critical, message)
        .with_hint("look at which service listens on this port")
}

impl Service for TcpCheck {
    fn id(&self) -> &ServiceId {
        &self.name.id
    }

    fn kind(&self) -> &'static str {
        "tcp"
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("tcp", &self.address.host, self.address.port)
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let host = (self.address.host.is_empty()).then(|| ConfigFault::error("tcp.host", "the host is empty"));
        let port = (self.address.port == 0).then(|| ConfigFault::error("tcp.port", "port 0 can't be connected to"));
        let banner = (self.banner.len() > BANNER_BYTES_MAX)
            .then(|| ConfigFault::error("tcp.banner", format!("the banner is longer than {BANNER_BYTES_MAX} bytes")));
        self.name.faults([host, port, banner].into_iter().flatten())
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for TcpCheck {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        self.look(cx, answer_by(cx)).await.map_err(|error| {
            Error::from(error)
                .with_operation("probe")
                .with_context("host", &self.address.host)
                .with_context("port", self.address.port)
        })
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }
}
