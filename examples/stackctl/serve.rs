//! `serve`: the views of a stack on an address of their own.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use stackkit::checks::WebhookSink;
use stackkit::health::{CommandSink, Event, MonitorOptions, Sink};
use stackkit::http::{Details, RouterOptions, grpc_service, operator_router, router_with};
use stackkit::{Error, Monitor, Result, Secret, Stack, async_trait};
use tokio::net::TcpListener;

use crate::cli::{DetailsArg, ServeArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::signals::signals;

/// Serves until a signal comes, then says for a while that the stack is not ready. The next signal ends it at once.
pub(crate) async fn serve(stack: &Stack, args: &ServeArgs, out: &Output) -> Outcome {
    let stop = signals(1)?;
    let options = RouterOptions::new().with_details(details(args).map_err(Failure::usage)?);
    let public = Listening::on(args.listen).await?;
    let operators = Listening::perhaps_on(args.operator_listen).await?;
    let grpc = Listening::perhaps_on(args.grpc_listen).await?;
    let monitor = Monitor::start_with(stack, sinks(args, out).map_err(Failure::usage)?);
    let (inside, calls) = (operators.as_ref().map(Listening::url), grpc.as_ref().map(Listening::url));
    let told = json!({ "event": "serving", "url": public.url(), "operator_url": inside, "grpc_url": calls });
    let also = inside.map(|url| format!(", for operators {url}")).unwrap_or_default();
    let calls = calls.map(|url| format!(", gRPC {url}")).unwrap_or_default();
    out.result(format_args!("serving {}{also}{calls}", public.url()), &told).map_err(Failure::usage)?;
    let open = Listening::serve_perhaps(operators, operator_router(&monitor));
    let answered = Listening::serve_perhaps(grpc, axum::Router::new().fallback_service(grpc_service(&monitor)));
    let drained = async {
        stop.await;
        monitor.begin_drain();
        if !args.drain.is_zero() {
            out.note(format_args!("draining for {} s; the next signal ends it", args.drain.as_secs_f64()));
            tokio::time::sleep(args.drain).await;
        }
    };
    // Open status pages would hold a graceful end up for ever; what else is asked is answered in microseconds.
    tokio::select! {
        () = drained => Ok(Exit::Done),
        ended = public.serve(router_with(&monitor, options)) => ended,
        ended = open => ended,
        ended = answered => ended,
    }
}

/// An address that connections are accepted on.
struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    async fn on(address: SocketAddr) -> Outcome<Self> {
        let failed = |error| Failure::usage(Error::io("listen", error).with_context("address", address));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    async fn perhaps_on(address: Option<SocketAddr>) -> Outcome<Option<Self>> {
        match address {
            Some(address) => Self::on(address).await.map(Some),
            None => Ok(None),
        }
    }

    /// Never ends without an address.
    async fn serve_perhaps(listening: Option<Self>, router: axum::Router) -> Outcome {
        match listening {
            Some(listening) => listening.serve(router).await,
            None => std::future::pending().await,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn serve(self, router: axum::Router) -> Outcome {
        let served = axum::serve(self.listener, router).await;
        served.map_err(|error| Failure::usage(Error::io("serve", error).with_context("address", self.address)))?;
        Ok(Exit::Done)
    }
}

fn details(args: &ServeArgs) -> Result<Details> {
    match (&args.details_token_file, args.details) {
        (Some(file), _) => secret_of(file).map(Details::Token),
        (None, DetailsArg::Open) => Ok(Details::Open),
        (None, DetailsArg::Hidden) => Ok(Details::Hidden),
    }
}

/// The first line of a file. A secret in an argument could be read by every user of the machine.
fn secret_of(file: &Path) -> Result<Secret> {
    let named = |error: Error| error.with_context("path", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| named(Error::io("read the file", error)))?;
    match text.lines().next().map(str::trim).filter(|secret| !secret.is_empty()) {
        Some(secret) => Ok(Secret::new(secret)),
        None => Err(named(Error::config("the file's first line is empty"))),
    }
}

fn sinks(args: &ServeArgs, out: &Output) -> Result<MonitorOptions> {
    let mut options = MonitorOptions::new().with_sink(Terminal(out.clone()));
    if let Some(program) = &args.on_change {
        options = options.with_sink(Told { sink: CommandSink::new(program, [""; 0]), out: out.clone() });
    }
    if let Some(file) = &args.webhook_url_file {
        options = options.with_sink(Told { sink: WebhookSink::new(secret_of(file)?)?, out: out.clone() });
    }
    Ok(options)
}

/// Tells transitions on standard error.
#[derive(Debug)]
struct Terminal(Output);

#[async_trait]
impl Sink for Terminal {
    fn name(&self) -> &'static str {
        "standard error"
    }

    async fn publish(&self, event: &Event) -> Result<()> {
        let transition = serde_json::to_value(event)
            .map_err(|error| Error::unexpected("a transition has no JSON form").with_source(error))?;
        self.0.transition(format_args!("{} {event}", event.transition.at), transition);
        Ok(())
    }
}

/// Tells the failures of a sink, which the monitor only logs.
#[derive(Debug)]
struct Told<S> {
    sink: S,
    out: Output,
}

#[async_trait]
impl<S: Sink> Sink for Told<S> {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn timeout(&self) -> std::time::Duration {
        self.sink.timeout()
    }

    async fn publish(&self, event: &Event) -> Result<()> {
        let published = self.sink.publish(event).await;
        if let Err(error) = &published {
            self.out.warning(&format!("a transition could not be told by {}: {}", self.name(), error.chain()));
        }
        published
    }
}
