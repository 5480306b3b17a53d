//! `/readyz` under load from another process, against a handler that returns the same bytes without looking at anything.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;
use stackkit::Monitor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::rounds::{Contender, Rounds, Row};
use crate::{Result, noop, run, wrk};

/// How long the monitor may take for its first look.
const READY: Duration = Duration::from_secs(10);
/// A stack of usual size; it is probed while the endpoint is under load.
const SERVICES: usize = 10;

/// Plays the rounds.
///
/// # Errors
/// If `wrk` is missing, or an answer is not 200.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    wrk::find()?;
    let serve = |what: &'static str| move || run::ours("readyz", what, [what]);
    let ours = Contender::new("/readyz", serve("readyz"));
    let peer = Contender::new("axum, the same bytes, constant", serve("constant"));
    rounds.play(ours, vec![peer])
}

/// Serves, and measures itself with a load generator in a process of its own.
pub(crate) async fn child(args: &[String]) -> Result<BTreeMap<String, f64>> {
    let monitor = Monitor::start(&noop::stack(SERVICES, Duration::from_secs(5), false)?);
    monitor.wait_ready(READY).await?;
    let ours = stackkit::http::router(&monitor);
    match args {
        [what] if what == "readyz" => loaded(ours).await,
        [what] if what == "constant" => loaded(constant(ours).await?).await,
        _ => Err("readyz takes `readyz` or `constant`".into()),
    }
}

/// Serves on a task of the runtime's one worker, and loads it.
pub(crate) async fn loaded(router: Router) -> Result<BTreeMap<String, f64>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let load = tokio::task::spawn_blocking(move || {
        wrk::load(&format!("http://{address}/readyz")).map_err(|error| error.to_string())
    });
    let measured = load.await??;
    server.abort();
    Ok(measured)
}

/// A router that answers `/readyz` with what `ours` answers at this moment, for ever.
async fn constant(ours: Router) -> Result<Router> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    let server = tokio::spawn(async move { axum::serve(listener, ours).await });
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    server.abort();
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no body")?;
    let header = |name: &str| -> Result<&'static str> {
        let value = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(value.ok_or_else(|| format!("the answer has no {name}"))?.to_owned().leak())
    };
    let headers = [(CONTENT_TYPE, header("content-type")?), (CACHE_CONTROL, header("cache-control")?)];
    let body: &'static str = body.to_owned().leak();
    Ok(Router::new().route("/readyz", get(async move || (headers, body))))
}
