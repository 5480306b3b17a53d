//! A server's process: started, watched while it starts, and ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use stackkit_core::process::{Child, STDERR_TAIL_BYTES, Tool, ToolStderr};
use stackkit_core::{Clock, Error, ErrorKind, HealthCheck, Result, Secret};

use crate::server::dir::PrivateDir;
use crate::server::ready::ready;

pub(crate) use rustix::process::Signal;

/// How long a server may take to answer: seconds on a busy machine, and never longer than a person waits.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long a server may take to end by itself before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long the drop of a handle waits for a server to end its own children.
const QUICK_END_DEADLINE: Duration = Duration::from_secs(5);
/// The first pause between two looks at a server that starts or ends; a private Redis answers after 7 ms.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// The longest such pause.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Starts a server with its process id in the file `pid`: written before the server exists, so the watchdog finds
/// whatever runs. If the watchdog moved the directory away, writing fails and nothing is started.
const LAUNCHER: &str = r#"echo $$ >"$0/pid" && exec "$@""#;

/// A program that works in `dir` as its owner, and that the directory's watchdog ends with it.
pub(crate) fn tool_in(dir: &PrivateDir, program: &Path) -> Tool {
    let tool = Tool::new("/bin/sh").args(["-c", LAUNCHER]).arg(dir.path()).arg(program);
    let tool = tool.env("TZ", "UTC").env("LC_ALL", "C").directory(dir.path());
    match dir.owner() {
        Some(user) => tool.user(user),
        None => tool,
    }
}

/// What to start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Variables beside those that every server gets.
    pub(crate) environment: Vec<(&'static str, Secret)>,
    /// Stripped from the log's tail in errors.
    pub(crate) secrets: Vec<Secret>,
    /// Ends it within milliseconds; its data is thrown away.
    pub(crate) quick_end: Signal,
}

/// A running server. Dropping it ends it, at once and without a runtime.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    pid_file: PathBuf,
    quick_end: Signal,
}

impl ServerProcess {
    /// Starts a server in `dir` and waits until its production health check calls it ready.
    ///
    /// # Errors
    /// `ToolMissing`; `ToolFailed` as soon as the server ends, with the tail of its log as the cause; `Timeout`, with
    /// the last failed probe as the cause; at once what the probe says if waiting can't mend it.
    pub(crate) async fn start(launch: &Launch, dir: &PrivateDir, service: &dyn HealthCheck) -> Result<Self> {
        let log_path = dir.path().join("log");
        let tool = tool_in(dir, &launch.program).args(&launch.args);
        let tool = launch.environment.iter().fold(tool, |tool, (name, value)| tool.secret_env(name, value));
        let child = tool.stdout_to(dir.open(&log_path)?).stderr_to(dir.open(&log_path)?).spawn()?;
        let mut server = Self { child, pid_file: dir.path().join("pid"), quick_end: launch.quick_end };
        match server.wait_ready(service).await {
            Ok(()) => Ok(server),
            Err(error) => Err(error.in_log(launch, &log_path)),
        }
    }

    /// The process id; `None` after its end was seen.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    async fn wait_ready(&mut self, service: &dyn HealthCheck) -> Result<(), StartError> {
        let clock = Clock::system();
        let deadline = clock.instant() + START_DEADLINE;
        let mut pause = LOOK_PAUSE;
        loop {
            if let Some(status) = self.child.try_wait().map_err(StartError::Other)? {
                return Err(StartError::Ended(status));
            }
            let answer = tokio::time::timeout_at(deadline, ready(service)).await;
            let error = match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if !may_mend(&error) => return Err(StartError::Other(error)),
                Ok(Err(error)) => error,
                Err(_elapsed) => Error::new(ErrorKind::Timeout, "no answer"),
            };
            if clock.instant() + pause >= deadline {
                return Err(StartError::Deadline(error));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LOOK_PAUSE_MAX);
        }
    }

    /// Ends it with `signal` and waits, so that it can write its data.
    ///
    /// # Errors
    /// `Timeout` if it had to be killed.
    pub(crate) async fn stop(mut self, signal: Signal) -> Result<()> {
        // An error says that it ended already.
        let _ = self.child.signal(signal);
        let ended = tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await;
        ended.map(drop).map_err(|_elapsed| Error::new(ErrorKind::Timeout, "the server did not end in time"))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // PostgreSQL's processes lead groups of their own, so the server must end them itself.
        if self.child.signal(self.quick_end).is_ok() {
            let clock = Clock::system();
            let deadline = clock.instant() + QUICK_END_DEADLINE;
            while matches!(self.child.try_wait(), Ok(None)) && clock.instant() < deadline {
                std::thread::park_timeout(LOOK_PAUSE / 4);
            }
        }
        // Its number may soon belong to another process.
        let _ = fs::remove_file(&self.pid_file);
    }
}

/// A server that is starting answers in many ways; only a fault of the configuration is final.
fn may_mend(error: &Error) -> bool {
    error.mends_by_waiting() || error.kind() == ErrorKind::NotFound
}

enum StartError {
    Ended(ExitStatus),
    Deadline(Error),
    Other(Error),
}

impl StartError {
    fn in_log(self, launch: &Launch, log: &Path) -> Error {
        let name = launch.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self {
            Self::Ended(status) => {
                let tail = ToolStderr(log_tail(log, &launch.secrets));
                Error::new(ErrorKind::ToolFailed, format!("{name} ended while it was starting"))
                    .with_operation("start a server")
                    .with_context("status", status)
                    .with_source(tail)
            }
            Self::Deadline(last) => Error::new(ErrorKind::Timeout, format!("{name} was not ready in time"))
                .with_operation("start a server")
                .with_context("limit_s", START_DEADLINE.as_secs())
                .with_source(last),
            Self::Other(error) => error.with_operation("start a server"),
        }
    }
}

/// The end of a server's log, with `secrets` stripped.
fn log_tail(log: &Path, secrets: &[Secret]) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let tail = bytes.get(bytes.len().saturating_sub(STDERR_TAIL_BYTES)..).unwrap_or_default();
    secrets.iter().fold(String::from_utf8_lossy(tail).into_owned(), |text, secret| secret.redact(&text))
}
