//! Reads `/proc`: formats by proc(5).

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use stackkit_core::{Error, ErrorKind, Result};

use crate::name::number;

/// The most that is read of a process file: a number and a line feed fit many times.
const PID_FILE_BYTES_MAX: usize = 64;

/// What a number stands for.
#[derive(Debug)]
pub(crate) enum Found {
    Alive(Vitals),
    Zombie,
    Gone,
}

/// What a living process uses.
#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) program: String,
    pub(crate) threads: u64,
    pub(crate) cpu_seconds: f64,
    /// `None` for a kernel thread.
    pub(crate) memory_resident_bytes: Option<u64>,
    pub(crate) uptime_seconds: Option<f64>,
    /// When it was started, in clock ticks since the machine was: together with its number it names a process for good.
    pub(crate) started_ticks: u64,
}

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    program: &'a str,
    state: &'a str,
    cpu_ticks: u64,
    threads: u64,
    started_ticks: u64,
}

/// Parses `/proc/PID/stat`. The program's name stands in parentheses and may hold any byte, a parenthesis too.
fn parse_stat(text: &str) -> Option<Stat<'_>> {
    let (program, rest) = text.split_once('(')?.1.rsplit_once(')')?;
    // The first of the rest is field 3 of proc(5).
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
    let count = |number| field(number)?.parse::<u64>().ok();
    Some(Stat {
        program,
        state: field(3)?,
        cpu_ticks: count(14)?.saturating_add(count(15)?),
        threads: count(20)?,
        started_ticks: count(22)?,
    })
}

/// The value of a line `name:   123 kB` in bytes.
fn parse_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit of open files: `None` inside for `unlimited`.
fn parse_files_max(limits: &str) -> Option<Option<u64>> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?;
    if soft == "unlimited" { Some(None) } else { soft.parse().ok().map(Some) }
}

/// The number in a process file; `None` if there is no file or no number in it.
pub(crate) fn pid_of_file(path: &Path) -> Result<Option<u32>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read the process file", error).with_context("path", path.display())),
    };
    let text = text.get(..text.len().min(PID_FILE_BYTES_MAX)).unwrap_or_default();
    Ok(std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).filter(|pid| *pid > 0))
}

/// Looks at the process of that number.
pub(crate) fn read(pid: u32) -> Result<Found> {
    let text = match read_file(pid, "stat") {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(Found::Gone),
        Err(error) => return Err(error),
    };
    let stat = parse_stat(&text).ok_or_else(|| Error::unexpected("/proc/PID/stat is not of its format"))?;
    // X and x are dead for good; they are hardly ever seen.
    match stat.state {
        "Z" => return Ok(Found::Zombie),
        "X" | "x" => return Ok(Found::Gone),
        _ => {}
    }
    let second = number(rustix::param::clock_ticks_per_second());
    let up = fs::read_to_string("/proc/uptime").ok();
    let up = up.and_then(|text| text.split_ascii_whitespace().next()?.parse::<f64>().ok());
    Ok(Found::Alive(Vitals {
        program: stat.program.to_owned(),
        threads: stat.threads,
        cpu_seconds: number(stat.cpu_ticks) / second,
        memory_resident_bytes: read_file(pid, "status").ok().and_then(|status| parse_kib(&status, "VmRSS")),
        uptime_seconds: up.map(|up| (up - number(stat.started_ticks) / second).max(0.0)),
        started_ticks: stat.started_ticks,
    }))
}

/// How many files it has open, and how many it may; `None` for no limit.
pub(crate) fn open_files(pid: u32) -> Result<(u64, Option<u64>)> {
    let failed = |error| Error::io("count open files", error);
    let mut count: u64 = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).map_err(failed)? {
        entry.map_err(failed)?;
        count += 1;
    }
    // The directory itself is open while this process counts its own.
    let own = u64::from(pid == std::process::id());
    let limits = read_file(pid, "limits")?;
    let max = parse_files_max(&limits).ok_or_else(|| Error::unexpected("/proc/PID/limits is not of its format"))?;
    Ok((count.saturating_sub(own), max))
}

/// Whether an error of reading `/proc` says that the process ended meanwhile.
pub(crate) fn is_gone(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    error.kind() == ErrorKind::NotFound || source.and_then(Errno::from_io_error) == Some(Errno::SRCH)
}

fn read_file(pid: u32, name: &str) -> Result<String> {
    let bytes = fs::read(format!("/proc/{pid}/{name}")).map_err(|error| Error::io("read /proc", error))?;
    // A program's name may be no UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_hold_parentheses() {
        let text = "42 (a) R (b) S 1 42 42 0 -1 4194560 1 2 3 4 70 30 5 6 20 0 9 0 1234 5 6 7";
        let stat = parse_stat(text).unwrap();
        let wanted = Stat { program: "a) R (b", state: "S", cpu_ticks: 100, threads: 9, started_ticks: 1234 };
        assert_eq!(stat, wanted);
        assert_eq!(parse_stat("42 (cut"), None);
        assert_eq!(parse_stat("42 (cut) S 1"), None);
    }

    #[test]
    fn status_and_limits_are_read() {
        assert_eq!(parse_kib("VmPeak:\t 9 kB\nVmRSS:\t    12 kB\n", "VmRSS"), Some(12 * 1024));
        assert_eq!(parse_kib("Threads:\t1\n", "VmRSS"), None);
        let limits = |soft| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files   {soft}   4096   files\n");
        assert_eq!(parse_files_max(&limits("1024")), Some(Some(1024)));
        assert_eq!(parse_files_max(&limits("unlimited")), Some(None));
        assert_eq!(parse_files_max(""), None);
    }
}
