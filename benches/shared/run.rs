//! The only module that starts processes and reads the clock.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::rounds::Sample;

/// What a child of ours prints.
#[derive(Debug, Deserialize, Serialize)]
struct ChildReport {
    /// Seconds by case; empty if the life of the whole process is what counts.
    cases: BTreeMap<String, f64>,
    rss_kib: f64,
}

/// Runs ours in a process of its own. Where the child measured nothing itself, `case` is its wall time from start to end.
///
/// # Errors
/// If it fails or reports nothing.
pub(crate) fn ours<A: AsRef<OsStr>>(child: &str, case: &str, args: impl IntoIterator<Item = A>) -> Result<Sample> {
    let mut command = command(std::env::current_exe()?);
    command.args(["--child", child, "--"]).args(args).stdin(Stdio::null()).stderr(Stdio::inherit());
    let (output, wall) = timed(|| command.output());
    let output = output?;
    if !output.status.success() {
        return Err(format!("our {child} ended with {}", output.status).into());
    }
    let report: ChildReport = serde_json::from_slice(&output.stdout)?;
    let mut cases = report.cases;
    if cases.is_empty() {
        cases.insert(case.to_owned(), wall.as_secs_f64());
    }
    Ok(Sample { cases, rss_mib: Some(report.rss_kib / 1024.0), cost: None })
}

/// Runs a peer's command line by the shell; `case` is its wall time. It sees `env` as variables.
///
/// # Errors
/// If it fails.
pub(crate) fn peer(case: &str, line: &str, env: &[(&str, &Path)]) -> Result<Sample> {
    let mut command = shell(line, env);
    let (status, wall) = timed(|| command.status());
    let status = status?;
    if !status.success() {
        return Err(format!("`{line}` ended with {status}").into());
    }
    Ok(Sample { cases: BTreeMap::from([(case.to_owned(), wall.as_secs_f64())]), ..Sample::default() })
}

/// Runs a command line by the shell and returns its standard output.
///
/// # Errors
/// If it fails.
pub(crate) fn read(line: &str, env: &[(&str, &Path)]) -> Result<String> {
    let output = shell(line, env).stdout(Stdio::piped()).output()?;
    if !output.status.success() {
        return Err(format!("`{line}` ended with {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether a program is on `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    shell(&format!("command -v {program}"), &[]).status().is_ok_and(|status| status.success())
}

fn shell(line: &str, env: &[(&str, &Path)]) -> Command {
    let mut command = command("/bin/sh");
    command.args(["-euc", line]).envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

#[expect(clippy::disallowed_methods, reason = "a bench runs the peers in the foreground, as a person would")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs `work` and measures its wall time.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = now();
    let result = work();
    (result, start.elapsed())
}

#[expect(clippy::disallowed_methods, reason = "a bench measures the wall time of the real clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Ends a child of ours: prints what it measured and this process's peak memory.
///
/// # Errors
/// If the kernel does not tell the peak memory.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
pub(crate) fn report(cases: &BTreeMap<String, f64>) -> Result {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let rss_kib = peak.trim().trim_end_matches("kB").trim().parse()?;
    println!("{}", serde_json::to_string(&ChildReport { cases: cases.clone(), rss_kib })?);
    Ok(())
}
