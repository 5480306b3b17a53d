//! `health`, `wait` and `serve`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use stackkit::{Error, ErrorKind, Monitor, Report, Stack};

use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;

/// A report as `/health` answers whoever may see details.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

fn print(report: &Report, out: &Output) -> Outcome<()> {
    out.result(report, &Document { schema: stackkit::http::HEALTH_SCHEMA, report }).map_err(Failure::usage)
}

/// Probes once.
pub(crate) async fn health(stack: &Stack, out: &Output) -> Outcome {
    let report = stack.check_now(&[]).await;
    print(&report, out)?;
    Ok(if report.ready { Exit::Done } else { Exit::No })
}

/// Waits until the stack is ready.
pub(crate) async fn wait(stack: &Stack, timeout: Duration, out: &Output) -> Outcome {
    let monitor = Monitor::start(stack);
    match monitor.wait_ready(timeout).await {
        Ok(report) => print(&report, out).map(|()| Exit::Done),
        Err(error) if error.kind() == ErrorKind::Config => Err(Failure::usage(error)),
        Err(error) => Err(Failure { exit: Exit::No, error }),
    }
}

/// Serves the router until the process is told to end.
pub(crate) async fn serve(stack: &Stack, listen: SocketAddr, out: &Output) -> Outcome {
    let failed = |error| Failure::usage(Error::io("listen", error).with_context("address", listen));
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let monitor = Monitor::start(stack);
    let url = format!("http://{address}");
    out.result(format_args!("serving {url}"), &json!({ "event": "serving", "url": url })).map_err(Failure::usage)?;
    axum::serve(listener, stackkit::http::router(&monitor)).await.map_err(failed)?;
    Ok(Exit::Done)
}
