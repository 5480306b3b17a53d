//! The only module that starts processes and reads the clock.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::output::Result;

/// Variables that `cargo run` sets for this process. An inner cargo that inherits them sees another environment than one
/// started by hand, and build scripts that watch them (ring's does) would run again.
const SET_BY_CARGO_RUN: [&str; 5] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];

/// A command line, run in the workspace's root.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
}

impl Run {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "chores run tools in the foreground, without the library's runner"
        )]
        let mut command = Command::new(program);
        command.current_dir(root());
        Self { command }
    }

    /// The cargo that started this process.
    pub(crate) fn cargo() -> Self {
        let mut run = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| SET_BY_CARGO_RUN.iter().any(|set| name.to_string_lossy().starts_with(set)))
        {
            run.command.env_remove(name);
        }
        run
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in another directory than the workspace's root.
    pub(crate) fn directory(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// The command as a person would type it.
    pub(crate) fn shown(&self) -> String {
        let program = Path::new(self.command.get_program());
        let mut shown = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        for arg in self.command.get_args() {
            let _ = write!(shown, " {}", arg.to_string_lossy());
        }
        shown
    }

    /// Runs to the end with this process's standard streams.
    ///
    /// # Errors
    /// If it cannot be started or does not succeed.
    pub(crate) fn run(mut self) -> Result {
        let status =
            self.command.stdin(Stdio::null()).status().map_err(|error| format!("{}: {error}", self.shown()))?;
        if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", self.shown()).into()) }
    }

    /// Runs to the end and returns its standard output; standard error passes through.
    ///
    /// # Errors
    /// If it cannot be started, does not succeed, or prints something that is not UTF-8.
    pub(crate) fn read(mut self) -> Result<String> {
        let shown = self.shown();
        self.command.stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = self.command.output().map_err(|error| format!("{shown}: {error}"))?;
        if !output.status.success() {
            return Err(format!("`{shown}` ended with {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// The workspace's root, wherever the chore was started.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Runs `work` and measures its wall time.
#[expect(clippy::disallowed_methods, reason = "the wall time of a step is shown to a person, nothing depends on it")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
