//! The `pg_dump` that tells the table of contents: here, or where a [`ToolRunner`](crate::ToolRunner) runs it.

use std::sync::Arc;
use std::time::Duration;

use stackkit_core::process::Child;
use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::APPLICATION_NAME;
use crate::config::PostgresConfig;
use crate::runner::{ToolCall, ToolRunner, ToolStart};
use crate::tools::{self, VendorTool, Version};

/// The tool.
const NAME: &str = "pg_dump";

/// How long a tool that runs elsewhere may take to tell its version: the client has to reach the container first.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that is taken for a version.
const VERSION_BYTES_MAX: u64 = 4096;

/// A `pg_dump` that is not older than the server.
#[derive(Debug)]
pub(super) struct Dumper {
    pub(super) version: Version,
    how: How,
}

#[derive(Debug)]
enum How {
    Here(VendorTool),
    Elsewhere(Arc<dyn ToolRunner>),
}

impl Dumper {
    /// Finds the tool.
    ///
    /// # Errors
    /// `ToolMissing` if there is none, or it is older than the server.
    pub(super) async fn find(config: &PostgresConfig, need: Version) -> Result<Self> {
        let Some(runner) = &config.tool_runner else {
            let tool = tools::find(NAME, config, need).await?;
            return Ok(Self { version: tool.version, how: How::Here(tool) });
        };
        let version = version(runner.as_ref()).await?;
        if version.series() < need.series() {
            let error = Error::new(ErrorKind::ToolMissing, "the pg_dump that the runner runs is older than the server");
            return Err(error.with_context("found", version).with_context("needed", need.series_name()));
        }
        Ok(Self { version, how: How::Elsewhere(runner.clone()) })
    }

    /// Starts it on `database` with these arguments.
    pub(super) async fn start(&self, config: &PostgresConfig, database: &str, args: Vec<String>) -> Result<Child> {
        match &self.how {
            How::Here(tool) => tool.command(config, database)?.args(args).stdout_piped().spawn(),
            How::Elsewhere(runner) => {
                let call = ToolCall::new(NAME)
                    .with_args(args)
                    .with_env("PGUSER", &config.user)
                    .with_env("PGDATABASE", database)
                    .with_env("PGAPPNAME", APPLICATION_NAME)
                    .with_env("LC_ALL", "C")
                    .with_password(config.password.clone());
                spawn(runner.start(&call)?).await
            }
        }
    }
}

/// Starts a process, and gives it the line that it waits for.
async fn spawn(start: ToolStart) -> Result<Child> {
    let ToolStart { tool, input } = start;
    let tool = if input.is_some() { tool.stdin_piped() } else { tool };
    let mut child = tool.stdout_piped().spawn()?;
    if let (Some(line), Some(mut stdin)) = (input, child.take_stdin()) {
        let wrote = async {
            stdin.write_all(line.expose().as_bytes()).await?;
            stdin.write_all(b"\n").await?;
            stdin.shutdown().await
        };
        wrote.await.map_err(|error| Error::io("talk to a tool", error))?;
    }
    Ok(child)
}

async fn version(runner: &dyn ToolRunner) -> Result<Version> {
    let read = async {
        let mut child = spawn(runner.start(&ToolCall::new(NAME).with_args(["--version"]))?).await?;
        let mut text = Vec::new();
        if let Some(stdout) = child.take_stdout() {
            let read = stdout.take(VERSION_BYTES_MAX).read_to_end(&mut text).await;
            read.map_err(|error| Error::io("read a tool's version", error))?;
        }
        child.wait().await?;
        Version::of_tool(&String::from_utf8_lossy(&text))
            .ok_or_else(|| Error::new(ErrorKind::ToolMissing, "what the runner runs tells no version of pg_dump"))
    };
    let late = |_elapsed| Error::new(ErrorKind::Timeout, "the runner did not run pg_dump in time");
    tokio::time::timeout(VERSION_TIMEOUT, read).await.map_err(late)?
}
