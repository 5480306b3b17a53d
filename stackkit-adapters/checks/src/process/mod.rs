//! A process of this machine, by `/proc`.

mod proc;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use stackkit_core::health::{Axis, Finding, Metric, Rule, Severity, Tier};
use stackkit_core::{
    ConfigFault, Endpoint, Error, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Service, ServiceId,
    async_trait,
};

use crate::look::Looker;
use crate::name::{Name, number};
use crate::process::proc::{Found, Vitals};

/// From this share of the allowed open files on, somebody should look.
const FILES_RATIO_WARNING: f64 = 0.8;
/// From this share on, the next burst of connections fails.
const FILES_RATIO_CRITICAL: f64 = 0.95;
/// The longest name that the kernel keeps of a program: `TASK_COMM_LEN` without its zero byte, proc(5).
const PROGRAM_BYTES_MAX: usize = 15;
/// What is needed to see the open files of another user's process, proc(5).
const FILES_GRANT: &str = "run as the same user, or with CAP_SYS_PTRACE";

const METRICS: &[Metric] = &[
    Metric::gauge("memory_resident_bytes", "/proc/PID/status: VmRSS", "Memory in use").on(Tier::Process),
    Metric::gauge("threads_count", "/proc/PID/stat: num_threads", "Threads").on(Tier::Process),
    Metric::counter("cpu_seconds", "/proc/PID/stat: utime + stime", "Processor time used since the start")
        .on(Tier::Process),
    Metric::gauge("uptime_seconds", "/proc/PID/stat: starttime", "Time since the start").on(Tier::Process),
    Metric::gauge("open_files_count", "/proc/PID/fd", "Open file descriptors").on(Tier::Process).needs(FILES_GRANT),
    Metric::gauge("open_files_max_count", "/proc/PID/limits: Max open files", "File descriptors that it may open")
        .on(Tier::Process)
        .needs(FILES_GRANT),
    Metric::gauge("open_files_used_ratio", "/proc/PID/fd, /proc/PID/limits", "Share of its file descriptors in use")
        .on(Tier::Process)
        .needs(FILES_GRANT),
];

/// Which process is meant.
#[derive(Debug, Clone)]
enum Target {
    /// This one.
    This,
    /// A number, and when the process that had it at the first look was started: the number may be given to another one.
    Pid(u32, Arc<OnceLock<u64>>),
    /// The number that stands in a file.
    File(PathBuf),
}

/// Whether a process lives, and what it uses: memory, threads, processor time, open files.
///
/// A process that is gone is the critical finding `process.gone`; one that ended and was not waited for (a zombie) is gone
/// too: `process.zombie`. Linux only.
///
/// ```
/// use stackkit_checks::ProcessCheck;
/// use stackkit_core::Service;
/// let own = ProcessCheck::this("self");
/// let web = ProcessCheck::of_pid_file("web", "/run/nginx.pid").with_program("nginx");
/// assert!(own.faults().is_empty() && web.faults().is_empty());
/// ```
#[derive(Debug)]
pub struct ProcessCheck {
    name: Name,
    target: Target,
    program: Option<String>,
    looker: Looker,
}

impl ProcessCheck {
    /// The process that calls this.
    pub fn this(id: impl AsRef<str>) -> Self {
        Self::of(id.as_ref(), Target::This)
    }

    /// The process of the number `pid`. When it ends and the number is given to another process, that one does not count.
    pub fn of_pid(id: impl AsRef<str>, pid: u32) -> Self {
        Self::of(id.as_ref(), Target::Pid(pid, Arc::default()))
    }

    /// The process whose number stands in the file at `path`, read anew for each probe. Does no I/O. A file that was left
    /// behind may name somebody else's process: see [`with_program`](Self::with_program).
    pub fn of_pid_file(id: impl AsRef<str>, path: impl Into<PathBuf>) -> Self {
        Self::of(id.as_ref(), Target::File(path.into()))
    }

    fn of(id: &str, target: Target) -> Self {
        Self { name: Name::new(id, "process", "process.id"), target, program: None, looker: Looker::default() }
    }

    /// Expects that the process runs the program of that name (`/proc/PID/comm`; the kernel keeps 15 bytes of it).
    #[must_use]
    pub fn with_program(mut self, program: impl Into<String>) -> Self {
        self.program = Some(program.into());
        self
    }
}

/// Looks once; on a thread of its own.
fn look(target: &Target, program: Option<&str>) -> Result<Observation> {
    let (pid, first_start) = match target {
        Target::This => (std::process::id(), None),
        Target::Pid(pid, first_start) => (*pid, Some(first_start)),
        Target::File(path) => match proc::pid_of_file(path)? {
            Some(pid) => (pid, None),
            None => {
                let message = "there is no process number where the process writes it";
                return Ok(Observation::new().finding(gone("process.pid_file", message)));
            }
        },
    };
    let vitals = match proc::read(pid)? {
        Found::Gone => return Ok(Observation::new().finding(gone("process.gone", "the process does not run"))),
        Found::Zombie => {
            let message = "the process has ended, and nobody has waited for it";
            return Ok(Observation::new().finding(gone("process.zombie", message)));
        }
        Found::Alive(vitals) => vitals,
    };
    let another = first_start.is_some_and(|first| *first.get_or_init(|| vitals.started_ticks) != vitals.started_ticks)
        || program.is_some_and(|program| vitals.program != program);
    if another {
        let message = "the process does not run: another one has its number";
        return Ok(Observation::new().finding(gone("process.gone", message)));
    }
    observe(pid, &vitals)
}

fn observe(pid: u32, vitals: &Vitals) -> Result<Observation> {
    let mut observation = Observation::new()
        .gauge("threads_count", number(vitals.threads))
        .counter("cpu_seconds", vitals.cpu_seconds)
        .info("pid", pid.to_string());
    observation = match vitals.memory_resident_bytes {
        Some(bytes) => observation.gauge("memory_resident_bytes", number(bytes)),
        None => observation.unavailable("memory_resident_bytes", "the kernel does not tell"),
    };
    observation = match vitals.uptime_seconds {
        Some(seconds) => observation.gauge("uptime_seconds", seconds),
        None => observation.unavailable("uptime_seconds", "the kernel does not tell"),
    };
    with_files(observation, proc::open_files(pid))
}

/// Adds how many files a process has open, and how many it may have, or why that can't be read.
fn with_files(observation: Observation, files: Result<(u64, Option<u64>)>) -> Result<Observation> {
    match files {
        Ok((count, max)) => {
            let max_or_none = max.map_or(f64::INFINITY, number);
            let observation = observation.gauge("open_files_count", number(count));
            Ok(match max {
                Some(max) => observation
                    .gauge("open_files_max_count", number(max))
                    .gauge("open_files_used_ratio", number(count) / max_or_none),
                None => observation.unavailable("open_files_used_ratio", "there is no limit"),
            })
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Ok(["open_files_count", "open_files_max_count", "open_files_used_ratio"]
                .into_iter()
                .fold(observation, |observation, name| observation.not_permitted(name, FILES_GRANT)))
        }
        Err(error) if proc::is_gone(&error) => {
            Ok(Observation::new().finding(gone("process.gone", "the process does not run")))
        }
        Err(error) => Err(error),
    }
}

fn gone(code: &'static str, message: &str) -> Finding {
    Finding::new(code, Axis::Ready, Severity::Critical, message).with_hint("start it, and look why it ended")
}

impl Service for ProcessCheck {
    fn id(&self) -> &ServiceId {
        &self.name.id
    }

    fn kind(&self) -> &'static str {
        "process"
    }

    fn endpoint(&self) -> Endpoint {
        match &self.target {
            Target::This => Endpoint::local("process", "self"),
            Target::Pid(pid, _) => Endpoint::local("process", pid.to_string()),
            Target::File(path) => Endpoint::local("file", path.to_string_lossy()),
        }
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let target = match &self.target {
            Target::Pid(0, _) => Some(ConfigFault::error("process.pid", "no process has the number 0")),
            Target::File(path) if !path.is_absolute() => {
                Some(ConfigFault::error("process.pid_file.relative", "the path of the process file is not absolute"))
            }
            Target::This | Target::Pid(..) | Target::File(_) => None,
        };
        let long = self.program.as_ref().is_some_and(|program| program.len() > PROGRAM_BYTES_MAX);
        let program = long.then(|| {
            let words = format!("the kernel keeps {PROGRAM_BYTES_MAX} bytes of a program's name: give these");
            ConfigFault::error("process.program", words)
        });
        self.name.faults(target.into_iter().chain(program))
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for ProcessCheck {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        let (target, program) = (self.target.clone(), self.program.clone());
        let looked = self.looker.look(cx, move || look(&target, program.as_deref())).await;
        looked.map_err(|error: Error| error.with_operation("probe"))
    }

    fn tiers(&self) -> &'static [Tier] {
        &[Tier::Process]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        vec![
            Rule::above("open_files_used_ratio", "process.files.near_max")
                .warning(FILES_RATIO_WARNING)
                .critical(FILES_RATIO_CRITICAL)
                .saying("most of the file descriptors are in use", "raise the limit of open files, or look for a leak"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_may_not_be_seen_name_the_right_that_is_missing() {
        let refused = || Err(Error::io("count open files", std::io::ErrorKind::PermissionDenied.into()));
        let seen = with_files(Observation::new(), refused()).unwrap();
        assert_eq!(seen.measurements.len(), 3);
        for measurement in seen.measurements {
            let reason = stackkit_core::health::MeasurementValue::Unavailable(format!("permission: {FILES_GRANT}"));
            assert_eq!(measurement.value, reason, "{}", measurement.name);
        }
        let gone =
            with_files(Observation::new(), Err(Error::io("count open files", std::io::ErrorKind::NotFound.into())));
        assert_eq!(gone.unwrap().findings[0].code, "process.gone");
    }
}
