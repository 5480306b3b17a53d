//! A program whose exit code says how a service is.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use stackkit_core::health::{Axis, Finding, Metric, Severity, Tier};
use stackkit_core::process::Tool;
use stackkit_core::{
    ConfigFault, Endpoint, Error, ErrorKind, HealthCheck, Observation, Phase, ProbeContext, Result, Secret, Service,
    ServiceId, async_trait,
};

use crate::error::CheckError;
use crate::name::{Name, answer_by, ms_since};
use crate::net::within;

const RUNTIME: Metric = Metric::gauge("runtime_ms", "the program's start and end", "How long the program ran");
const METRICS_REMOTE: &[Metric] = &[RUNTIME.on(Tier::Ping)];
const METRICS_LOCAL: &[Metric] = &[RUNTIME.on(Tier::Process)];

/// What an exit code means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Codes {
    /// These are healthy, all others are not.
    Healthy(Vec<i32>),
    /// 0 healthy, 1 warning, 2 critical, others unknown.
    Nagios,
}

/// Runs a program; its exit code says how the service is.
///
/// The program is run directly, not by a shell, with no standard input. At the probe's deadline it is killed with its whole
/// process group. Nothing of what it writes is shown anywhere: only its exit code is.
///
/// ```
/// use stackkit_checks::ExecCheck;
/// use stackkit_core::Service;
/// let queue = ExecCheck::new("queue", "/usr/lib/nagios/plugins/check_mailq").args(["-w", "50", "-c", "200"]).with_nagios_codes();
/// assert!(queue.faults().is_empty());
/// ```
#[derive(Debug)]
pub struct ExecCheck {
    name: Name,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    secrets: Vec<(OsString, Secret)>,
    directory: Option<PathBuf>,
    codes: Codes,
    is_local: bool,
}

impl ExecCheck {
    /// The program at the absolute path `program`, called `id` in its stack. Does no I/O.
    ///
    /// What is wrong is told by [`Service::faults`].
    pub fn new(id: impl AsRef<str>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: Name::new(id.as_ref(), "exec", "exec.id"),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            secrets: Vec::new(),
            directory: None,
            codes: Codes::Healthy(vec![0]),
            is_local: false,
        }
    }

    /// Adds arguments. Never a secret: every user of the machine can read them.
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
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets an environment variable to a secret.
    #[must_use]
    pub fn with_secret_env(mut self, name: impl Into<OsString>, secret: impl Into<Secret>) -> Self {
        self.secrets.push((name.into(), secret.into()));
        self
    }

    /// Sets the working directory; this process's own unless set.
    #[must_use]
    pub fn with_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets the exit codes that are healthy, each 0 to 255; 0 alone unless set. Every other one is the finding `exec.failed`.
    #[must_use]
    pub fn with_exit_codes(mut self, codes: impl IntoIterator<Item = i32>) -> Self {
        self.codes = Codes::Healthy(codes.into_iter().collect());
        self
    }

    /// Takes exit codes as the plugins of Nagios mean them (monitoring-plugins.org, "Plugin Return Codes"): 0 healthy, 1 the
    /// warning `exec.warning`, 2 the finding `exec.critical`; 3 and all others could not tell, which is an error.
    #[must_use]
    pub fn with_nagios_codes(mut self) -> Self {
        self.codes = Codes::Nagios;
        self
    }

    /// Says that the program asks no other machine: it is probed on the tier process, and may be in the group `live`.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.is_local = true;
        self
    }

    fn tool(&self) -> Tool {
        let mut tool = Tool::new(&self.program).args(&self.args);
        for (name, value) in &self.env {
            tool = tool.env(name, value);
        }
        for (name, secret) in &self.secrets {
            tool = tool.secret_env(name, secret);
        }
        match &self.directory {
            Some(directory) => tool.directory(directory),
            None => tool,
        }
    }

    /// What the end of the program means.
    fn judge(&self, status: ExitStatus, observation: Observation) -> Result<Observation> {
        let Some(code) = status.code() else {
            let signal = status.signal().unwrap_or_default();
            return Ok(observation.finding(bad("exec.failed", &format!("the program was ended by signal {signal}"))));
        };
        let observation = observation.info("exit_code", code.to_string());
        let words = format!("the program ended with exit code {code}");
        match (&self.codes, code) {
            (Codes::Healthy(codes), code) if codes.contains(&code) => Ok(observation),
            (Codes::Healthy(_), _) => Ok(observation.finding(bad("exec.failed", &words))),
            (Codes::Nagios, 0) => Ok(observation),
            (Codes::Nagios, 1) => {
                let warning = Finding::new("exec.warning", Axis::Ready, Severity::Warning, words);
                Ok(observation.finding(warning.with_hint("run the program by hand and read what it says")))
            }
            (Codes::Nagios, 2) => Ok(observation.finding(bad("exec.critical", &words))),
            // `Io` and not `ToolFailed`: what a plugin can't tell now it may tell the next time.
            (Codes::Nagios, _) => {
                Err(Error::new(ErrorKind::Io, "the program could not tell").with_code(code.to_string()))
            }
        }
    }
}

fn bad(code: &'static str, message: &str) -> Finding {
    Finding::new(code, Axis::Ready, Severity::Critical, message)
        .with_hint("run the program by hand and read what it says")
}

impl Service for ExecCheck {
    fn id(&self) -> &ServiceId {
        &self.name.id
    }

    fn kind(&self) -> &'static str {
        "exec"
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::local("exec", self.program.to_string_lossy())
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let relative = (!self.program.is_absolute())
            .then(|| ConfigFault::error("exec.program.relative", "the program's path is not absolute"));
        let codes = match &self.codes {
            Codes::Healthy(codes) => codes.as_slice(),
            Codes::Nagios => &[0],
        };
        let possible = !codes.is_empty() && codes.iter().all(|code| (0..=255).contains(code));
        let codes = (!possible)
            .then(|| ConfigFault::error("exec.codes", "the healthy exit codes are not one or more of 0 to 255"));
        self.name.faults(relative.into_iter().chain(codes))
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for ExecCheck {
    /// Runs the program once.
    ///
    /// # Errors
    /// `ToolMissing`, `NotFound` and `PermissionDenied` if it can't be started; `Timeout` if it does not end in time; `Io`
    /// for a Nagios code that says *unknown*.
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        let named = |error: Error| error.with_operation("probe");
        let start = cx.clock().instant();
        let mut child = self.tool().spawn().map_err(named)?;
        let ended = within(answer_by(cx), Phase::Query, child.wait_status()).await;
        let status = ended.map_err(|elapsed: CheckError| named(elapsed.into()))?.map_err(named)?;
        self.judge(status, Observation::new().gauge("runtime_ms", ms_since(cx, start))).map_err(named)
    }

    fn tiers(&self) -> &'static [Tier] {
        if self.is_local { &[Tier::Process] } else { &[Tier::Ping] }
    }

    fn metrics(&self) -> &'static [Metric] {
        if self.is_local { METRICS_LOCAL } else { METRICS_REMOTE }
    }
}
