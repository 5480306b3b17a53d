//! A datastore of your own: what it can do, it says itself.
//!
//! `cargo run --example custom_service` starts a small search server and probes it, up and down.

#![expect(clippy::print_stdout, reason = "a program tells its user what it did")]

use stackkit::health::{Metric, Tier};
use stackkit::{
    Endpoint, Error, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Service, ServiceId, Stack, async_trait,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout_at;

#[derive(Debug)]
struct Search {
    id: ServiceId,
    port: u16,
}

impl Service for Search {
    fn id(&self) -> &ServiceId {
        &self.id
    }
    fn kind(&self) -> &'static str {
        "search"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::new("search", "127.0.0.1", self.port)
    }
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Search {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        let late = |_elapsed| Error::new(ErrorKind::Timeout, "no answer before the deadline");
        let stats = timeout_at(cx.deadline(), self.stats()).await.map_err(late)??;
        Ok(Observation::new().gauge("index_documents_count", stats.documents).info("version", stats.version))
    }

    fn metrics(&self) -> &'static [Metric] {
        const METRICS: &[Metric] =
            &[Metric::gauge("index_documents_count", "the line", "Documents that can be found").on(Tier::Ping)];
        METRICS
    }
}

struct Stats {
    documents: f64,
    version: String,
}

impl Search {
    /// The server answers every connection with one line: its version and how many documents it has.
    async fn stats(&self) -> Result<Stats> {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).await.map_err(|error| Error::unreachable("stats", error))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|error| Error::io("stats", error))?;
        let (version, documents) = answer.trim().split_once(' ').ok_or_else(|| Error::unexpected("half an answer"))?;
        let documents = documents.parse().map_err(|error| Error::unexpected("not a number").with_source(error))?;
        Ok(Stats { documents, version: version.to_owned() })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| Error::io("listen", error))?;
    let port = listener.local_addr().map_err(|error| Error::io("listen", error))?.port();
    let server = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // A client that left early has no use for the answer.
            let _ = client.write_all(b"1.2 42\n").await;
        }
    });

    let stack = Stack::builder("shop").service(Search { id: ServiceId::new("search")?, port }).build()?;
    println!("{}", stack.check_now(&[]).await);
    server.abort();
    // An aborted task ends with an error that says just that.
    let _ = server.await;
    println!("{}", stack.check_now(&[]).await);
    Ok(())
}
