//! The arguments of `serve` and `wait`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use stackkit::ServiceId;

use super::value;

/// Who sees endpoints, failures and measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DetailsArg {
    /// Everybody who reaches the address
    Open,
    /// Nobody
    Hidden,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Who sees endpoints, failures and measurements on that address
    #[arg(long, value_enum, default_value = "hidden", conflicts_with = "details_token_file")]
    pub(crate) details: DetailsArg,
    /// A file with a token; requests with `Authorization: Bearer TOKEN` see the details, and a browser at `/status?login`
    #[arg(long, value_name = "FILE")]
    pub(crate) details_token_file: Option<PathBuf>,
    /// Another address, which shows every detail: one that only operators reach
    #[arg(long, value_name = "ADDR")]
    pub(crate) operator_listen: Option<SocketAddr>,
    /// Another address for the health service of gRPC
    #[arg(long, value_name = "ADDR")]
    pub(crate) grpc_listen: Option<SocketAddr>,
    /// A file with the URL that each transition is posted to as JSON; such a URL is often a secret
    #[arg(long, value_name = "FILE")]
    pub(crate) webhook_url_file: Option<PathBuf>,
    /// A program to run at each transition, with STACKKIT_SERVICE, STACKKIT_FROM, STACKKIT_TO, … in its environment
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) on_change: Option<PathBuf>,
    /// How long to go on after SIGTERM or SIGINT with /readyz saying no: longer than whoever asks it takes to notice
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = value::duration)]
    pub(crate) drain: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// How long at most: 500ms, 60s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = value::duration)]
    pub(crate) timeout: Duration,
    /// Wait for this service, and what it needs, alone; may be given again
    #[arg(long, value_name = "ID")]
    pub(crate) only: Vec<ServiceId>,
}
