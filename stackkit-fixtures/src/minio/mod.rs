//! A private MinIO: a real S3 server.

mod health;
mod request;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use stackkit_core::{Result, Secret};
use tokio::sync::OnceCell;

use crate::minio::health::MinioHealth;
use crate::minio::request::{Credentials, Request};
use crate::server::{
    Launch, PORT_TRIES, PrivateDir, QuickEnd, ServerProcess, Signal, built, find_server, free_port, port_was_taken,
};

/// Where packages put the server when its directory is not in `PATH`.
const WELL_KNOWN: &[&str] = &["/usr/local/bin", "/opt/homebrew/bin"];
/// The only region of a server that was told none.
const REGION: &str = "us-east-1";
/// The body that turns versioning on, in the namespace that S3 demands.
const VERSIONING: &str = r#"<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>"#;

/// The server of this process. A static is never dropped: the watchdog ends it when the process goes.
static SHARED: OnceCell<MinioServer> = OnceCell::const_new();

/// Counts the buckets of this process, so that their names differ.
static BUCKETS: AtomicU64 = AtomicU64::new(0);

/// A MinIO that all tests of this process share; it starts when first asked for, in about a second.
/// [`MinioServer::bucket`] makes what a test needs of its own.
///
/// # Errors
/// `ToolMissing` if `minio` is not installed: which, where it was looked for, what installs it. `ToolFailed` with the
/// server's last words if it ends while it starts; `Timeout`.
///
/// # Cancel safety
/// Dropping the future ends a server that was not ready.
pub async fn minio() -> Result<&'static MinioServer> {
    SHARED.get_or_try_init(minio_server).await
}

/// Whether a MinIO can be started here, without starting it: for tests that say why they are left out.
///
/// # Errors
/// `ToolMissing` as [`minio`].
pub fn find_minio() -> Result<PathBuf> {
    find_server("minio", "STACKKIT_MINIO_BIN", &built("minio"), WELL_KNOWN)
}

/// Starts a private MinIO that nobody else uses: for a test that stops it.
///
/// # Errors
/// As [`minio`].
///
/// # Cancel safety
/// Dropping the future ends the server.
pub async fn minio_server() -> Result<MinioServer> {
    let program = find_minio()?;
    // As the user of this process: a binary in a home directory is nobody else's to run.
    let dir = PrivateDir::create(None, QuickEnd::KILL)?;
    let random = |length: usize| (0..length).map(|_| fastrand::alphanumeric()).collect::<String>();
    let credentials = Credentials { access_key: format!("fixture{}", random(8)), secret_key: random(32).into() };
    let mut server = MinioServer { server: None, port: None, credentials, program, dir };
    server.start().await?;
    Ok(server)
}

/// What a bucket can do beyond holding objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BucketKind {
    /// An overwritten or deleted object is gone.
    #[default]
    Plain,
    /// Older versions of an object stay.
    Versioned,
    /// Versioned, and a version can be locked until a time (Object Lock).
    Locking,
}

/// A private MinIO server, gone with this value and with the process.
///
/// ```no_run
/// # async fn test() -> stackkit_core::Result<()> {
/// let minio = stackkit_fixtures::minio().await?;
/// let bucket = minio.bucket().await?;
/// println!("s3://{bucket}/prefix at {}", minio.endpoint());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MinioServer {
    // First: the server ends before its directory goes.
    server: Option<ServerProcess>,
    port: Option<u16>,
    credentials: Credentials,
    program: PathBuf,
    dir: PrivateDir,
}

impl MinioServer {
    /// Where it listens: `http://127.0.0.1:PORT`; without TLS, so clients must be allowed to.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The region to sign for.
    #[must_use]
    pub fn region(&self) -> &'static str {
        REGION
    }

    /// The access key of the server's owner; random.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.credentials.access_key
    }

    /// The secret key that belongs to it; random.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        self.credentials.secret_key.expose()
    }

    /// The process id of the server; `None` while it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().and_then(ServerProcess::id)
    }

    /// Makes a fresh, empty bucket and gives its name.
    ///
    /// # Errors
    /// As [`MinioServer::bucket_of`].
    ///
    /// # Cancel safety
    /// An empty bucket may be left.
    pub async fn bucket(&self) -> Result<String> {
        self.bucket_of(BucketKind::Plain).await
    }

    /// Makes a fresh, empty bucket of that kind and gives its name.
    ///
    /// # Errors
    /// `Unreachable` while the server is stopped; `ToolFailed` with the answer of the server as the cause.
    ///
    /// # Cancel safety
    /// An empty bucket may be left.
    pub async fn bucket_of(&self, kind: BucketKind) -> Result<String> {
        let name = format!("fixture-{:06}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        let lock: &[(&str, &str)] = match kind {
            BucketKind::Locking => &[("x-amz-bucket-object-lock-enabled", "true")],
            _ => &[],
        };
        let path = format!("/{name}");
        let request = Request { method: "PUT", path: &path, query: "", headers: lock, body: "" };
        self.send(&request).await?;
        if kind == BucketKind::Versioned {
            let query = "versioning=";
            self.send(&Request { query, headers: &[], body: VERSIONING, ..request }).await?;
        }
        Ok(name)
    }

    /// Stops the server; its data stays on disk for [`MinioServer::start`].
    ///
    /// # Errors
    /// `Timeout` if it had to be killed.
    ///
    /// # Cancel safety
    /// Dropping the future kills the server.
    pub async fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(server) => server.stop(Signal::TERM).await,
            None => Ok(()),
        }
    }

    /// Starts the server again after [`MinioServer::stop`]: same port, same keys, same data. Does nothing if it runs.
    ///
    /// # Errors
    /// As [`minio`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the server.
    pub async fn start(&mut self) -> Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let mut tries_left = if self.port.is_some() { 1 } else { PORT_TRIES };
        loop {
            let port = self.port.map_or_else(free_port, Ok)?;
            self.port = Some(port);
            tries_left -= 1;
            match self.launch(port).await {
                Ok(server) => {
                    self.server = Some(server);
                    return Ok(());
                }
                Err(error) if tries_left > 0 && port_was_taken(&error) => self.port = None,
                Err(error) => return Err(error),
            }
        }
    }

    async fn launch(&self, port: u16) -> Result<ServerProcess> {
        let text = |value: &str| Secret::from(value.to_owned());
        let home = self.dir.path().display().to_string();
        let launch = Launch {
            program: self.program.clone(),
            args: vec![
                "server".to_owned(),
                "--quiet".to_owned(),
                "--address".to_owned(),
                format!("{}:{port}", Ipv4Addr::LOCALHOST),
                self.dir.path().join("data").display().to_string(),
            ],
            environment: vec![
                ("MINIO_ROOT_USER", text(&self.credentials.access_key)),
                ("MINIO_ROOT_PASSWORD", self.credentials.secret_key.clone()),
                ("MINIO_REGION", text(REGION)),
                ("MINIO_BROWSER", text("off")),
                ("MINIO_UPDATE", text("off")),
                // Memory as a drive is fine for a test.
                ("MINIO_CI_CD", text("1")),
                ("HOME", text(&home)),
            ],
            secrets: vec![self.credentials.secret_key.clone()],
            quick_end: Signal::KILL,
        };
        ServerProcess::start(&launch, &self.dir, &MinioHealth::new(port)?).await
    }

    async fn send(&self, request: &Request<'_>) -> Result<()> {
        request.send(&self.address(), REGION, &self.credentials).await
    }

    fn address(&self) -> String {
        // Port 0 refuses connections, as a server that is not there does.
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port.unwrap_or(0))
    }
}
