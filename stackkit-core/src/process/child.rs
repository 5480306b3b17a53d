//! A running child and its end.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, ErrorKind, Result};
use crate::process::stderr::{Tail, ToolStderr};
use crate::secret::Secret;

/// How long the rest of standard error is waited for after the child's end: a grandchild that left the group may hold
/// the pipe open.
const STDERR_WAIT: Duration = Duration::from_secs(1);
/// How often a killed child is looked for before it is left to the runtime's reaper.
const REAP_TRIES: u32 = 500;
/// The pause between two looks: death by SIGKILL takes well under a millisecond on an idle machine.
const REAP_PAUSE: Duration = Duration::from_millis(1);

/// A running child. Dropping it kills its whole process group and reaps it.
pub struct Child {
    name: String,
    child: tokio::process::Child,
    group: Option<Pid>,
    tail: Tail,
    drain: Option<AbortOnDropHandle<()>>,
    secrets: Vec<Secret>,
}

impl Child {
    pub(crate) fn new(
        name: String,
        child: tokio::process::Child,
        tail: Tail,
        drain: Option<AbortOnDropHandle<()>>,
        secrets: Vec<Secret>,
    ) -> Self {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { name, child, group, tail, drain, secrets }
    }

    /// The program's file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, which is also the id of its group; `None` after its end was seen.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The pipe to its standard input, once, if [`Tool::stdin_piped`](super::Tool::stdin_piped) was said.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The pipe from its standard output, once, if [`Tool::stdout_piped`](super::Tool::stdout_piped) was said.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// What it wrote to standard error so far, at most the last 4 KiB, secrets stripped.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        self.tail.text(&self.secrets)
    }

    /// Sends a signal to the whole group, for a gentle end.
    ///
    /// # Errors
    /// `NotFound` if it ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let gone = || Error::new(ErrorKind::NotFound, "the child ended already").with_context("tool", &self.name);
        let group = self.group.filter(|_| self.child.id().is_some()).ok_or_else(gone)?;
        kill_process_group(group, signal).map_err(|error| gone().with_source(std::io::Error::from(error)))
    }

    /// Whether it has ended, without waiting. Once it has, the rest of its group is killed.
    ///
    /// # Errors
    /// `Io` if the system can't tell.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().map_err(|error| Error::io("wait for a tool", error))?;
        if status.is_some() {
            self.kill_group();
        }
        Ok(status)
    }

    /// Waits for its end and gives what it wrote to standard error (the last 4 KiB), which may hold warnings. Then the
    /// rest of its group is killed.
    ///
    /// # Errors
    /// `ToolFailed` unless it exited with 0: exit status or signal as context, standard error as the cause.
    ///
    /// # Cancel safety
    /// Cancel safe; the child goes on until it is dropped.
    pub async fn wait(&mut self) -> Result<String> {
        let status = self.wait_status().await?;
        if let Some(drain) = &mut self.drain {
            let _ = timeout(STDERR_WAIT, drain).await;
            self.drain = None;
        }
        let stderr = self.stderr_tail();
        if status.success() {
            return Ok(stderr);
        }
        let error = Error::new(ErrorKind::ToolFailed, format!("{} failed", self.name));
        Err(error.with_context("status", status_word(status)).with_source(ToolStderr(stderr)))
    }

    /// Waits for its end, whatever its status. Then the rest of its group is killed.
    ///
    /// # Errors
    /// `Io` if the system can't tell.
    ///
    /// # Cancel safety
    /// Cancel safe; the child goes on until it is dropped.
    pub async fn wait_status(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await.map_err(|error| Error::io("wait for a tool", error))?;
        self.kill_group();
        Ok(status)
    }

    /// Once only, and right at the child's end: later the number may belong to somebody else's group.
    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            // The group may be gone already, or hold grandchildren that outlived the child: both are fine.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn kill_and_reap(&mut self) {
        self.kill_group();
        for _ in 0..REAP_TRIES {
            match self.child.try_wait() {
                Ok(None) => std::thread::park_timeout(REAP_PAUSE),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        tracing::error!(tool = self.name, "a killed child can't be reaped");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_and_reap();
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("name", &self.name).field("id", &self.id()).finish_non_exhaustive()
    }
}

fn status_word(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}
