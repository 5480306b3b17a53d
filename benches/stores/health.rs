//! `/health` under load from another process, against a handler that returns the same bytes without looking at anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use stackkit::{Monitor, Stack, Volume};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::rounds::{Contender, Rounds, Row};
use crate::{Result, data, run};

/// One thread of load for the two cores, and enough connections that the server always has work.
const LOAD: &str = "wrk -t1 -c16 -d3s --latency";

/// How long the monitor may take for its first look at a folder.
const READY: Duration = Duration::from_secs(10);

/// Plays the rounds.
///
/// # Errors
/// If `wrk` is missing, or an answer is not 200.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    if !run::is_installed("wrk") {
        return Err("wrk is not installed; `cargo xtask servers wrk` installs it".into());
    }
    let serve = |what: &'static str| move || run::ours("health", what, [what]);
    let ours = Contender::new("/health", serve("health"));
    let peer = Contender::new("axum, the same bytes, constant", serve("constant"));
    rounds.play(ours, vec![peer])
}

/// Serves, and measures itself with a load generator in a process of its own.
pub(crate) async fn child(args: &[String]) -> Result<BTreeMap<String, f64>> {
    let folder = data::scratch("health")?;
    let mut stack = Stack::builder("bench");
    for id in ["uploads", "invoices", "exports"] {
        stack = stack.service(Volume::new(id, &folder));
    }
    let stack = stack.build()?;
    let monitor = Monitor::start(&stack);
    monitor.wait_ready(READY).await?;
    let ours = stackkit::http::router(&monitor);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = match args {
        [what] if what == "health" => ours,
        [what] if what == "constant" => constant(ours).await?,
        _ => return Err("health takes `health` or `constant`".into()),
    };
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let load = tokio::task::spawn_blocking(move || {
        run::read(&format!("{LOAD} http://{address}/health"), &[]).map_err(|error| error.to_string())
    });
    let report = load.await??;
    server.abort();
    parse(&report)
}

/// A router that answers `/health` with what `ours` answers at this moment, for ever.
async fn constant(ours: Router) -> Result<Router> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    let server = tokio::spawn(async move { axum::serve(listener, ours).await });
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    server.abort();
    let answer = String::from_utf8(answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no body")?;
    let body: Arc<str> = body.into();
    let json = [(axum::http::header::CONTENT_TYPE, "application/json")];
    Ok(Router::new().route("/health", get(async move || (json, body.to_string()))))
}

/// What `wrk` measured, in seconds: two percentiles of the latency, and the mean time per request over all connections.
fn parse(report: &str) -> Result<BTreeMap<String, f64>> {
    if report.contains("Non-2xx") || report.contains("Socket errors") {
        return Err(format!("not every answer was good:\n{report}").into());
    }
    let after = |name: &str| report.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let latency = |name: &str| after(name).and_then(seconds).ok_or_else(|| format!("wrk told no {name}"));
    let rate: f64 = after("Requests/sec:").ok_or("wrk told no rate")?.parse()?;
    let cases = [("latency-p50", latency("50%")?), ("latency-p99", latency("99%")?), ("time-per-request", 1.0 / rate)];
    Ok(cases.map(|(case, seconds)| (case.to_owned(), seconds)).into())
}

/// Reads `93.00us`, `1.20ms`, `2.00s`.
fn seconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let (number, scale) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    number.parse::<f64>().ok().map(|number| number * scale)
}
