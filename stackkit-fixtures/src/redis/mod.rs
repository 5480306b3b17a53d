//! A private Redis.

mod options;
mod resp;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use stackkit_core::Result;
use stackkit_core::process::{find_user, is_root};
use stackkit_redis::Redis;

pub use options::RedisOptions;
pub use resp::RedisReply;
use resp::RespClient;

use crate::server::{
    Launch, PORT_TRIES, PrivateDir, QuickEnd, ServerProcess, Signal, find_server, free_port, percent_encode,
    port_was_taken,
};

/// Where packages put the server when its directory is not in `PATH`.
const WELL_KNOWN: &[&str] = &["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/redis/bin"];
/// The users that a root process runs Redis as.
const USERS: [&str; 2] = ["redis", "nobody"];
/// The name of the socket in the server's directory.
const SOCKET: &str = "redis.sock";

/// Starts a private Redis on a Unix socket, empty, without a password. About 10 ms.
///
/// # Errors
/// `ToolMissing` if `redis-server` is not installed: which, where it was looked for, what installs it. `ToolFailed`
/// with the server's last words if it ends while it starts; `Timeout`.
///
/// # Cancel safety
/// Dropping the future ends the server.
pub async fn redis() -> Result<RedisFixture> {
    redis_with(RedisOptions::new()).await
}

/// Starts a private Redis with options: TCP, TLS, a password, users.
///
/// # Errors
/// As [`redis`].
///
/// # Cancel safety
/// Dropping the future ends the server.
pub async fn redis_with(options: RedisOptions) -> Result<RedisFixture> {
    let program = find_server("redis-server", "STACKKIT_REDIS_BIN", &[], WELL_KNOWN)?;
    let owner = if is_root() { Some(find_user(&USERS)?) } else { None };
    let dir = PrivateDir::create(owner, QuickEnd::KILL)?;
    let mut fixture = RedisFixture { server: None, port: None, tls_port: None, options, program, dir };
    fixture.start().await?;
    Ok(fixture)
}

/// A private Redis server, gone with this value and with the process.
///
/// ```no_run
/// # async fn test() -> stackkit_core::Result<()> {
/// let redis = stackkit_fixtures::redis().await?;
/// redis.command(&["SET", "greeting", "hello"]).await?;
/// assert_eq!(redis.command(&["GET", "greeting"]).await?.text(), "hello");
/// println!("{}", redis.url());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RedisFixture {
    // First: the server ends before its directory goes.
    server: Option<ServerProcess>,
    port: Option<u16>,
    tls_port: Option<u16>,
    options: RedisOptions,
    program: PathBuf,
    dir: PrivateDir,
}

impl RedisFixture {
    /// The URL of the Unix socket: `redis+unix:///…/redis.sock`, with `?pass=…` if the server has a password.
    #[must_use]
    pub fn url(&self) -> String {
        let path = self.socket().display().to_string();
        match &self.options.password {
            Some(password) => format!("redis+unix://{path}?pass={}", percent_encode(password.expose())),
            None => format!("redis+unix://{path}"),
        }
    }

    /// The URL of the TCP port, if one was asked for by [`RedisOptions::with_tcp`].
    #[must_use]
    pub fn tcp_url(&self) -> Option<String> {
        self.port.map(|port| self.network_url("redis", port))
    }

    /// The URL of the TLS port, if one was asked for by [`RedisOptions::with_tls`].
    #[must_use]
    pub fn tls_url(&self) -> Option<String> {
        self.tls_port.map(|port| self.network_url("rediss", port))
    }

    /// The TCP port, if one was asked for.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The path of the Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    /// A handle on it over the Unix socket, called `redis`.
    ///
    /// # Errors
    /// None in practice: the URL is the fixture's own.
    pub fn service(&self) -> Result<Redis> {
        Redis::from_url(&self.url())
    }

    /// The directory of the binary that it runs from; `redis-cli` and `redis-check-rdb` of its version are there.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        self.program.parent().unwrap_or(Path::new("/"))
    }

    /// The process id of the server; `None` while it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().and_then(ServerProcess::id)
    }

    /// Sends one command and gives the reply.
    ///
    /// # Errors
    /// `Unreachable` while the server is stopped; `ToolFailed` with the server's error as the cause, and the first
    /// word of it as the code.
    ///
    /// # Cancel safety
    /// Each call has a connection of its own, which goes with the future.
    pub async fn command<A: AsRef<[u8]>>(&self, command: &[A]) -> Result<RedisReply> {
        self.client().await?.command(command).await
    }

    /// Sends many commands over one connection, without waiting for each reply. For seeding.
    ///
    /// # Errors
    /// As [`RedisFixture::command`]; the first error reply ends it.
    ///
    /// # Cancel safety
    /// Some of the commands may have been carried out.
    pub async fn pipeline<A: AsRef<[u8]>>(&self, commands: impl IntoIterator<Item = Vec<A>>) -> Result<()> {
        self.client().await?.pipeline(commands).await
    }

    /// Stops the server; its data stays on disk for [`RedisFixture::start`].
    ///
    /// # Errors
    /// `Timeout` if it had to be killed.
    ///
    /// # Cancel safety
    /// Dropping the future kills the server; what it had not yet saved is lost.
    pub async fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            // With a save point configured, TERM saves before it ends.
            Some(server) => server.stop(Signal::TERM).await,
            None => Ok(()),
        }
    }

    /// Starts the server again after [`RedisFixture::stop`]: same socket, same ports, same data. Does nothing if it
    /// runs.
    ///
    /// # Errors
    /// As [`redis`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the server.
    pub async fn start(&mut self) -> Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let ports_are_chosen = self.port.is_some() || self.tls_port.is_some();
        let mut tries_left = if ports_are_chosen { 1 } else { PORT_TRIES };
        loop {
            self.choose_ports()?;
            tries_left -= 1;
            match self.launch().await {
                Ok(server) => {
                    self.server = Some(server);
                    return Ok(());
                }
                Err(error) if tries_left > 0 && port_was_taken(&error) => (self.port, self.tls_port) = (None, None),
                Err(error) => return Err(error),
            }
        }
    }

    fn choose_ports(&mut self) -> Result<()> {
        if self.options.tcp && self.port.is_none() {
            self.port = Some(free_port()?);
        }
        if self.options.tls.is_some() && self.tls_port.is_none() {
            self.tls_port = Some(free_port()?);
        }
        Ok(())
    }

    async fn launch(&self) -> Result<ServerProcess> {
        let settings = self.options.settings(&self.dir, self.port, self.tls_port)?;
        let file = self.dir.write("redis.conf", settings.as_bytes())?;
        let launch = Launch {
            program: self.program.clone(),
            args: vec![file.display().to_string()],
            environment: Vec::new(),
            secrets: self.options.secrets(),
            quick_end: Signal::KILL,
        };
        let service = self.service()?;
        ServerProcess::start(&launch, &self.dir, &service).await
    }

    async fn client(&self) -> Result<RespClient> {
        let mut client = RespClient::connect(&self.socket()).await?;
        if let Some(password) = &self.options.password {
            client.command(&["AUTH", password.expose()]).await?;
        }
        Ok(client)
    }

    fn network_url(&self, scheme: &str, port: u16) -> String {
        let host = if scheme == "rediss" { "localhost".to_owned() } else { Ipv4Addr::LOCALHOST.to_string() };
        match &self.options.password {
            Some(password) => format!("{scheme}://:{}@{host}:{port}", percent_encode(password.expose())),
            None => format!("{scheme}://{host}:{port}"),
        }
    }
}
