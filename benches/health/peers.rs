//! Fifty checks behind an endpoint, one of them hanging, against the crates that do this too.
//!
//! The peers are a program of their own, in a workspace of its own: `benches/peers`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use stackkit::Monitor;
use tokio::net::TcpListener;

use crate::rounds::{Contender, Rounds, Row, Sample, say};
use crate::{Result, noop, readyz, run, wrk};

const CHECKS: usize = 50;
/// A client's patience; an endpoint that has not answered by then counts with this.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a peer's program is called.
const PROGRAM: &str = "stackkit-bench-peers";

/// Plays the rounds.
///
/// # Errors
/// If the peers do not build, `wrk` is missing, or a process fails.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    wrk::find()?;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/Cargo.toml");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers");
    say("building the peers");
    run::read(&format!("cargo build --quiet --release --manifest-path '{manifest}' --target-dir '{folder}'"), &[])?;
    let program = format!("{folder}/release/{PROGRAM}");
    let peer = |name: &'static str| {
        let program = program.clone();
        Contender::new(name, move || theirs(&program, name))
    };
    let ours = Contender::new("stackkit", || run::ours("peers", "", [""; 0]));
    rounds.play(ours, vec![peer("axum-health"), peer("health")])
}

/// Ours, in a process of its own.
pub(crate) async fn child(_args: &[String]) -> Result<BTreeMap<String, f64>> {
    let interval = Duration::from_secs(5);
    let well = Monitor::start(&noop::stack(CHECKS, interval, false)?);
    well.wait_ready(Duration::from_secs(10)).await?;
    let mut cases = readyz::loaded(stackkit::http::router(&well)).await?;
    let hanging = Monitor::start(&noop::stack(CHECKS, interval, true)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let router = stackkit::http::router(&hanging);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let answer = tokio::task::spawn_blocking(move || answer(port).map_err(|error| error.to_string())).await??;
    server.abort();
    cases.extend(named("stackkit", answer));
    Ok(cases)
}

/// One of the peers: serves well, then with a check that hangs.
fn theirs(program: &str, name: &str) -> Result<Sample> {
    let well = Served::start(program, &[name])?;
    let mut cases = wrk::load(&format!("http://127.0.0.1:{}/readyz", well.port))?;
    let hanging = Served::start(program, &[name, "hangs"])?;
    cases.extend(named(name, answer(hanging.port)?));
    Ok(Sample { cases, ..Sample::default() })
}

/// A peer's process, which ends with the value.
struct Served {
    process: Child,
    port: u16,
}

impl Served {
    fn start(program: &str, args: &[&str]) -> Result<Self> {
        let mut process = run::command(program).args(args).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self { process, port: line.trim().parse()? })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that ended by itself is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How long the endpoint took to answer, and its status; [`PATIENCE`] and none if it did not.
fn answer(port: u16) -> Result<(Duration, Option<String>)> {
    let start = run::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut bytes = [0; 12];
    let status = stream.read_exact(&mut bytes).ok().map(|()| String::from_utf8_lossy(&bytes[9..]).into_owned());
    Ok((start.elapsed(), status))
}

fn named(name: &str, (took, status): (Duration, Option<String>)) -> [(String, f64); 1] {
    let said = status.unwrap_or_else(|| "nothing".to_owned());
    say(&format!("peers: with one check that hangs {name} answers {said} after {took:?}"));
    [("one-hangs-answer".to_owned(), took.as_secs_f64())]
}
