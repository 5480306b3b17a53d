//! `health` and `wait`.

use serde::Serialize;
use stackkit::{Error, ErrorKind, Monitor, Report, Stack};

use crate::cli::WaitArgs;
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

/// Waits until the stack, or a part of it, is ready.
pub(crate) async fn wait(stack: &Stack, args: &WaitArgs, out: &Output) -> Outcome {
    if let Some(unknown) = args.only.iter().find(|id| stack.service(id.as_str()).is_none()) {
        return Err(Failure::usage(Error::config("the stack has no such service").with_context("only", unknown)));
    }
    let monitor = Monitor::start(stack);
    let waited = match args.only.as_slice() {
        [] => monitor.wait_ready(args.timeout).await,
        only => monitor.wait_ready_of(only.iter().map(|id| id.as_str()), args.timeout).await,
    };
    match waited {
        Ok(report) => print(&report, out).map(|()| Exit::Done),
        Err(error) if error.kind() == ErrorKind::Config => Err(Failure::usage(error)),
        Err(error) => Err(Failure { exit: Exit::No, error }),
    }
}
