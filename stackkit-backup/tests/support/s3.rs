//! Servers that speak S3, and the way to them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use stackkit_fixtures::MinioServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// The bucket of [`FileServer`].
pub(crate) const BUCKET: &str = "shelves";

const KEY: &str = "testkey";
const SECRET: &str = "the-secret-of-the-test";

/// A file of credentials.
pub(crate) struct Keys(tempfile::NamedTempFile);

impl Keys {
    pub(crate) fn new(key: &str, secret: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"))
            .unwrap();
        Self(file)
    }

    pub(crate) fn of(minio: &MinioServer) -> Self {
        Self::new(minio.access_key(), minio.secret_key())
    }

    /// The URL of a repository. Requests may take ten seconds.
    pub(crate) fn url(&self, endpoint: &str, bucket: &str) -> String {
        self.url_with_timeout(endpoint, bucket, 10)
    }

    pub(crate) fn url_with_timeout(&self, endpoint: &str, bucket: &str, seconds: u64) -> String {
        let file = self.0.path().display();
        format!("s3://{bucket}/some/prefix?endpoint={endpoint}&credentials_file={file}&timeout={seconds}")
    }
}

/// Another implementation of S3, in this process, on files.
pub(crate) struct FileServer {
    endpoint: String,
    pub(crate) directory: tempfile::TempDir,
    _accepting: AbortOnDropHandle<()>,
}

impl FileServer {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let accepting = AbortOnDropHandle::new(tokio::spawn(serve(listener, service)));
        Self { endpoint, directory, _accepting: accepting }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::new(KEY, SECRET)
    }

    /// The directory behind the repository of [`Keys::url`].
    pub(crate) fn repository(&self) -> std::path::PathBuf {
        Path::new(self.directory.path()).join(BUCKET).join("some/prefix")
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service.clone());
        connections.spawn(connection);
    }
}

/// A proxy that forwards so many bytes to the server, and then nothing, on no connection.
pub(crate) struct StallingProxy {
    pub(crate) endpoint: String,
    left: Arc<AtomicU64>,
    _accepting: AbortOnDropHandle<()>,
}

impl StallingProxy {
    /// Forwards all for the time being.
    pub(crate) async fn to(endpoint: &str) -> Self {
        let server = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let accepting = AbortOnDropHandle::new(tokio::spawn(forward(listener, server, Arc::clone(&left))));
        Self { endpoint, left, _accepting: accepting }
    }

    /// Forwards that many bytes more.
    pub(crate) fn stall_after(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn has_stalled(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

async fn forward(listener: TcpListener, server: String, left: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(&server).await.unwrap();
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        connections.spawn(copy(from_client, to_server, Arc::clone(&left)));
        connections.spawn(copy(from_server, to_client, Arc::new(AtomicU64::new(u64::MAX))));
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, left: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let before =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(read as u64)));
        if before.unwrap() < read as u64 {
            left.store(0, Ordering::SeqCst);
            // The connection stays open, and nothing comes.
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
