//! What a measurement costs the client and the server, as the kernel counts it.

use std::fs;

use crate::Result;
use crate::rounds::{Cost, Sample};

/// Units of the times in `/proc/PID/stat`: `USER_HZ`, which is 100 on every Linux that a bench meets.
const TICKS_PER_SECOND: f64 = 100.0;

const MIB: f64 = 1_048_576.0;

/// The fields of `/proc/PID/stat` behind the program's name, counted from 0: proc(5).
const PARENT: usize = 1;
const USER: usize = 11;
const CHILDREN_SYSTEM: usize = 14;

/// Runs `measure` and says what it cost: its children here, and every process of the server.
///
/// # Errors
/// What `measure` fails with, or if the kernel does not tell.
pub(crate) fn metered(postmaster: u32, measure: impl FnOnce() -> Result<Sample>) -> Result<Sample> {
    let before = now(postmaster)?;
    let mut sample = measure()?;
    let after = now(postmaster)?;
    sample.cost = Some(Cost {
        client_cpu_s: after.client_cpu_s - before.client_cpu_s,
        server_cpu_s: after.server_cpu_s - before.server_cpu_s,
        client_read_mib: after.client_read_mib - before.client_read_mib,
    });
    Ok(sample)
}

fn now(postmaster: u32) -> Result<Cost> {
    let io = fs::read_to_string("/proc/self/io")?;
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).ok_or("no rchar in /proc/self/io")?;
    Ok(Cost {
        // This process itself only waits, and the kernel adds what each child has used when it has ended.
        client_cpu_s: stat("self")?.cpu_s(),
        server_cpu_s: server_cpu_s(postmaster)?,
        client_read_mib: read.trim().parse::<f64>()? / MIB,
    })
}

/// The postmaster, its children, and those that have ended.
fn server_cpu_s(postmaster: u32) -> Result<f64> {
    let mut seconds = stat(&postmaster.to_string())?.cpu_s();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(|first: char| first.is_ascii_digit())) else {
            continue;
        };
        // It may have ended by now.
        let Ok(process) = stat(name) else { continue };
        if process.parent == postmaster {
            seconds += process.cpu_s();
        }
    }
    Ok(seconds)
}

struct Stat {
    parent: u32,
    ticks: f64,
}

impl Stat {
    fn cpu_s(&self) -> f64 {
        self.ticks / TICKS_PER_SECOND
    }
}

/// A process and those of its children that it has waited for.
fn stat(process: &str) -> Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may hold blanks and parentheses.
    let (_, fields) = text.rsplit_once(") ").ok_or("an unknown form of /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let times = fields.get(USER..=CHILDREN_SYSTEM).ok_or("a short /proc/PID/stat")?;
    let mut ticks = 0.0;
    for time in times {
        ticks += time.parse::<f64>()?;
    }
    Ok(Stat { parent: fields[PARENT].parse()?, ticks })
}
