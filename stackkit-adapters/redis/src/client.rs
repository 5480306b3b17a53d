//! The only file that opens connections.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use stackkit_core::{Error, Phase, Secret};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::{Address, RedisConfig};
use crate::error::RedisError;
use crate::resp::{Reply, ServerError, parse, push_command};

/// Bytes asked of the system at once: an `INFO` fits, and a page of `SCAN`.
const READ_BYTES: usize = 64 << 10;
/// Bytes handed to the system at once; the stall deadline is for this many.
const WRITE_BYTES: usize = 256 << 10;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection, authenticated. Dropping it closes it.
pub(crate) struct Connection {
    stream: Box<dyn Io>,
    buffer: BytesMut,
}

impl Connection {
    /// Opens a connection: name, address, TLS, password, each with what is left until `deadline`.
    ///
    /// Cancel safe: dropping the future closes what was opened.
    pub(crate) async fn open(
        config: &RedisConfig,
        tls: Option<Arc<ClientConfig>>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let at = |error: RedisError| located(error.into(), &config.address);
        let stream: Box<dyn Io> = match (&config.address, tls) {
            (Address::Unix(path), _) => {
                let stream = within(deadline, Phase::Connect, UnixStream::connect(path)).await.map_err(at)?;
                Box::new(stream.map_err(RedisError::connect).map_err(at)?)
            }
            (Address::Tcp { host, port }, None) => Box::new(tcp(host, *port, deadline).await.map_err(at)?),
            (Address::Tcp { host, port }, Some(tls)) => {
                let stream = tcp(host, *port, deadline).await.map_err(at)?;
                let invalid = |error| RedisError::Tls(io::Error::other(error));
                let name = ServerName::try_from(host.clone()).map_err(invalid).map_err(at)?;
                let handshake = TlsConnector::from(tls).connect(name, stream);
                let stream = within(deadline, Phase::Tls, handshake).await.map_err(at)?;
                Box::new(stream.map_err(RedisError::tls).map_err(at)?)
            }
        };
        let mut connection = Self { stream, buffer: BytesMut::with_capacity(READ_BYTES) };
        let ended = |error: &RedisError| matches!(error, RedisError::Io(_) | RedisError::Closed);
        let in_auth = |error| if ended(&error) { at(error).with_phase(Phase::Auth) } else { at(error) };
        connection.introduce(config, deadline).await.map_err(in_auth)?;
        Ok(connection)
    }

    /// Presents the password and a name for `CLIENT LIST`, in one round trip.
    async fn introduce(&mut self, config: &RedisConfig, deadline: Instant) -> Result<(), RedisError> {
        let user = config.username.as_deref().map(str::as_bytes);
        let password = config.password.as_ref().map(Secret::expose).map(str::as_bytes);
        let auth: Option<Vec<&[u8]>> = password
            .map(|password| [b"AUTH"].into_iter().map(|word| &word[..]).chain(user).chain([password]).collect());
        let name: &[&[u8]] = &[b"CLIENT", b"SETNAME", b"stackkit"];
        let commands: Vec<&[&[u8]]> = auth.as_deref().into_iter().chain([name]).collect();
        let replies = match self.pipeline(&commands, deadline).await {
            Err(RedisError::Deadline(_)) => return Err(RedisError::Deadline(Phase::Auth)),
            replies => replies?,
        };
        // The name is a courtesy: a user without the right to it may still probe. Its refusal matters only when it
        // shows that the connection as a whole is refused.
        let fatal = |error: &ServerError| !matches!(error.code.as_str(), "NOPERM" | "LOADING" | "BUSY" | "MASTERDOWN");
        for (reply, is_auth) in replies.into_iter().zip([auth.is_some(), false]) {
            match reply {
                Reply::Error(error) if is_auth || (fatal(&error) && !error.text.starts_with("unknown")) => {
                    return Err(RedisError::Server(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends one command and returns its reply, an error reply as an error.
    pub(crate) async fn call(&mut self, command: &[&[u8]], deadline: Instant) -> Result<Reply, RedisError> {
        let mut bytes = Vec::with_capacity(128);
        push_command(&mut bytes, command);
        self.write(&bytes, deadline).await?;
        match self.reply(deadline).await? {
            Reply::Error(error) => Err(RedisError::Server(error)),
            reply => Ok(reply),
        }
    }

    /// Sends commands at once and returns their replies, error replies among them.
    pub(crate) async fn pipeline(
        &mut self,
        commands: &[&[&[u8]]],
        deadline: Instant,
    ) -> Result<Vec<Reply>, RedisError> {
        let mut bytes = Vec::with_capacity(64 * commands.len());
        for command in commands {
            push_command(&mut bytes, command);
        }
        let written = self.write(&bytes, deadline).await;
        let mut replies = Vec::with_capacity(commands.len());
        while replies.len() < commands.len() {
            match self.reply(deadline).await {
                Ok(reply) => replies.push(reply),
                // A server that has no room says so once, whatever it is asked, and closes.
                Err(RedisError::Closed | RedisError::Io(_)) if matches!(replies.last(), Some(Reply::Error(_))) => break,
                Err(error) => return written.and(Err(error)),
            }
        }
        Ok(replies)
    }

    async fn write(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), RedisError> {
        within(deadline, Phase::Query, self.stream.write_all(bytes)).await?.map_err(RedisError::Io)
    }

    /// Sends any number of bytes; `stall` is the longest time without progress.
    pub(crate) async fn send(&mut self, bytes: &[u8], stall: Duration) -> Result<(), RedisError> {
        for piece in bytes.chunks(WRITE_BYTES) {
            stalled(stall, self.stream.write_all(piece)).await?.map_err(RedisError::Io)?;
        }
        stalled(stall, self.stream.flush()).await?.map_err(RedisError::Io)
    }

    /// Waits for the next reply; `stall` is the longest time without progress.
    pub(crate) async fn receive(&mut self, stall: Duration) -> Result<Reply, RedisError> {
        loop {
            if let Some(reply) = self.buffered()? {
                return Ok(reply);
            }
            self.read_more(READ_BYTES, stall).await?;
        }
    }

    async fn reply(&mut self, deadline: Instant) -> Result<Reply, RedisError> {
        loop {
            if let Some(reply) = self.buffered()? {
                return Ok(reply);
            }
            self.buffer.reserve(READ_BYTES);
            let read = within(deadline, Phase::Query, self.stream.read_buf(&mut self.buffer)).await?;
            if read.map_err(RedisError::Io)? == 0 {
                return Err(RedisError::Closed);
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Reply>, RedisError> {
        Ok(parse(&self.buffer).map_err(RedisError::Protocol)?.map(|(reply, length)| {
            drop(self.buffer.split_to(length));
            reply
        }))
    }

    /// Appends what arrives next to the buffer, at most `size` bytes.
    pub(crate) async fn read_more(&mut self, size: usize, stall: Duration) -> Result<(), RedisError> {
        let Self { stream, buffer } = self;
        read_into(stream, buffer, size, stall).await
    }

    /// What arrived and was not taken yet.
    pub(crate) fn unread(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The bare stream, for a body that is no reply; `buffer` takes what arrives.
    pub(crate) async fn read_body(
        &mut self,
        buffer: &mut BytesMut,
        size: usize,
        stall: Duration,
    ) -> Result<(), RedisError> {
        read_into(&mut self.stream, buffer, size, stall).await
    }

    /// Whether nothing arrived that was not asked for and the server did not close: asked before an idle connection is
    /// used again. Does not wait.
    pub(crate) async fn is_clean(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut probe = ReadBuf::new(&mut byte);
        let stream = &mut self.stream;
        let quiet = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut probe).is_pending())).await;
        quiet && self.buffer.is_empty()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("unread_bytes", &self.buffer.len()).finish_non_exhaustive()
    }
}

async fn read_into(
    stream: &mut Box<dyn Io>,
    buffer: &mut BytesMut,
    size: usize,
    stall: Duration,
) -> Result<(), RedisError> {
    buffer.reserve(size);
    match stalled(stall, stream.read_buf(buffer)).await?.map_err(RedisError::Io)? {
        0 => Err(RedisError::Closed),
        _ => Ok(()),
    }
}

async fn tcp(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, RedisError> {
    let addresses = within(deadline, Phase::Dns, lookup_host((host, port))).await?.map_err(RedisError::Resolve)?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match within(deadline, Phase::Connect, TcpStream::connect(address)).await? {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(RedisError::connect)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(RedisError::connect(last))
}

async fn within<T>(deadline: Instant, phase: Phase, work: impl Future<Output = T>) -> Result<T, RedisError> {
    timeout_at(deadline, work).await.map_err(|_elapsed| RedisError::Deadline(phase))
}

async fn stalled<T>(stall: Duration, work: impl Future<Output = T>) -> Result<T, RedisError> {
    timeout(stall, work).await.map_err(|_elapsed| RedisError::Deadline(Phase::Query))
}

/// Says where it happened.
fn located(error: Error, address: &Address) -> Error {
    match address {
        Address::Tcp { host, port } => error.with_context("host", host).with_context("port", port),
        Address::Unix(path) => error.with_context("socket", path.display()),
    }
}
