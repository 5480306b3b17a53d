//! How a child process is described and started.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, ErrorKind, Result};
use crate::process::child::Child;
use crate::process::stderr::Tail;
use crate::process::user::User;
use crate::secret::Secret;

/// The most that [`Tool::output`] takes from standard output: it is for versions and lists, not for data.
pub const OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A program with its arguments and environment, ready to be started.
///
/// Secrets go in by [`Tool::secret_env`] only: arguments can be read by every user of the machine.
pub struct Tool {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    env_removed: Vec<OsString>,
    secrets: Vec<(OsString, Secret)>,
    directory: Option<PathBuf>,
    user: Option<User>,
    stdin_piped: bool,
    stdout: Output,
    stderr: Option<File>,
}

enum Output {
    Null,
    Piped,
    File(File),
}

impl Tool {
    /// The program at `path`, without arguments; standard input and output are closed unless asked for.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            program: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            env_removed: Vec::new(),
            secrets: Vec::new(),
            directory: None,
            user: None,
            stdin_piped: false,
            stdout: Output::Null,
            stderr: None,
        }
    }

    /// Adds an argument. Never a secret.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments. Never a secret.
    #[must_use]
    pub fn args<I, T>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = T>,
        T: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable that is not a secret.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Keeps a variable of this process from the child. What is set here for the child is set all the same.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.env_removed.push(name.as_ref().to_owned());
        self
    }

    /// Sets an environment variable to a secret; the secret is stripped from what the child writes to standard error.
    #[must_use]
    pub fn secret_env(mut self, name: impl AsRef<OsStr>, secret: &Secret) -> Self {
        self.secrets.push((name.as_ref().to_owned(), secret.clone()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Runs as another user; only root can.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// Opens a pipe to standard input: [`Child::take_stdin`].
    #[must_use]
    pub fn stdin_piped(mut self) -> Self {
        self.stdin_piped = true;
        self
    }

    /// Opens a pipe from standard output: [`Child::take_stdout`].
    #[must_use]
    pub fn stdout_piped(mut self) -> Self {
        self.stdout = Output::Piped;
        self
    }

    /// Sends standard output to a file.
    #[must_use]
    pub fn stdout_to(mut self, file: File) -> Self {
        self.stdout = Output::File(file);
        self
    }

    /// Sends standard error to a file instead of keeping its tail.
    #[must_use]
    pub fn stderr_to(mut self, file: File) -> Self {
        self.stderr = Some(file);
        self
    }

    /// Starts the child in a process group of its own.
    ///
    /// # Errors
    /// `ToolMissing` if the program does not exist; `NotFound` if the working directory does not; `PermissionDenied`;
    /// `Io`.
    ///
    /// # Panics
    /// Outside a Tokio runtime, as every function that spawns.
    pub fn spawn(self) -> Result<Child> {
        let name = self.name();
        let stderr_piped = self.stderr.is_none();
        #[expect(clippy::disallowed_methods, reason = "this is the process runner that all others must use")]
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args);
        for removed in &self.env_removed {
            command.env_remove(removed);
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        for (key, secret) in &self.secrets {
            command.env(key, secret.expose());
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command.stdin(if self.stdin_piped { Stdio::piped() } else { Stdio::null() });
        command.stdout(match self.stdout {
            Output::Null => Stdio::null(),
            Output::Piped => Stdio::piped(),
            Output::File(file) => file.into(),
        });
        command.stderr(self.stderr.map_or_else(Stdio::piped, Into::into));
        command.process_group(0).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|error| spawn_error(error, &self.program, self.directory.as_deref()))?;
        let tail = Tail::default();
        let drain = child.stderr.take().filter(|_| stderr_piped);
        let drain = drain.map(|stderr| AbortOnDropHandle::new(tokio::spawn(tail.clone().drain(stderr))));
        let secrets = self.secrets.into_iter().map(|(_, secret)| secret).collect();
        Ok(Child::new(name, child, tail, drain, secrets))
    }

    /// Runs to the end and gives what it wrote to standard output, at most [`OUTPUT_BYTES_MAX`].
    ///
    /// # Errors
    /// As [`Tool::spawn`]; `ToolFailed` with exit status and standard error, or at once if it writes more than
    /// [`OUTPUT_BYTES_MAX`]; `Timeout` after `limit`.
    ///
    /// # Cancel safety
    /// Dropping the future kills the child.
    pub async fn output(self, limit: Duration) -> Result<Vec<u8>> {
        let mut child = self.stdout_piped().spawn()?;
        let mut output = Vec::new();
        let name = child.name().to_owned();
        let run = async {
            if let Some(stdout) = child.take_stdout() {
                let read = stdout.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut output).await;
                let read = read.map_err(|error| Error::io("read a tool's output", error))?;
                if u64::try_from(read).is_ok_and(|read| read > OUTPUT_BYTES_MAX) {
                    return Err(too_much(&name));
                }
            }
            child.wait().await
        };
        match timeout(limit, run).await {
            Ok(outcome) => outcome.map(|_stderr| output),
            Err(_elapsed) => {
                Err(Error::new(ErrorKind::Timeout, "the tool did not end in time").with_context("tool", name))
            }
        }
    }

    fn name(&self) -> String {
        self.program
            .file_name()
            .map_or_else(|| self.program.display().to_string(), |n| n.to_string_lossy().into_owned())
    }
}

fn too_much(tool: &str) -> Error {
    Error::new(ErrorKind::ToolFailed, "the tool wrote more than fits")
        .with_context("tool", tool)
        .with_context("bytes_max", OUTPUT_BYTES_MAX)
}

/// The system says the same of a program and of a working directory that do not exist.
fn spawn_error(error: std::io::Error, program: &Path, directory: Option<&Path>) -> Error {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let error = Error::io("start a tool", error).with_context("program", program.display());
    match directory.filter(|directory| !directory.is_dir()) {
        Some(directory) => error.with_context("directory", directory.display()),
        None if missing => error.with_kind(ErrorKind::ToolMissing),
        None => error,
    }
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets: Vec<&OsString> = self.secrets.iter().map(|(name, _)| name).collect();
        f.debug_struct("Tool")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("secret_env", &secrets)
            .finish_non_exhaustive()
    }
}
