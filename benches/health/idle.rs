//! Ten thousand checks at rest: the processor's time and the memory that the engine itself takes.

use std::collections::BTreeMap;
use std::time::Duration;

use stackkit::Monitor;

use crate::rounds::{Contender, Rounds, Row, say};
use crate::{Result, noop, run};

const CHECKS: &str = "10000";
/// The default of the vitals.
const INTERVAL: Duration = Duration::from_secs(15);
/// Two intervals: each check is probed twice.
const MEASURED: Duration = Duration::from_secs(30);
/// How long the first probes of all may take.
const READY: Duration = Duration::from_secs(30);
/// `USER_HZ`, the unit of `/proc/self/stat`: 100 on all that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Plays the rounds; the seconds are those of a processor in each second.
///
/// # Errors
/// If a child fails.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    let rest = |count: &'static str| move || run::ours("idle", "cpu-per-second", [count]);
    // It takes half a minute each, and a median of two processes' rest is as good as that of five.
    let rounds = Rounds { bench: rounds.bench, runs: rounds.runs.min(2) };
    rounds.play(Contender::new("10 000 checks", rest(CHECKS)), vec![Contender::new("one check", rest("1"))])
}

/// Rests for a while and tells what it cost.
pub(crate) async fn child(args: &[String]) -> Result<BTreeMap<String, f64>> {
    let [count] = args else { return Err("idle takes the number of checks".into()) };
    let count: u32 = count.parse()?;
    let before = memory_kib()?;
    let stack = noop::stack(usize::try_from(count)?, INTERVAL, false)?;
    let monitor = Monitor::start(&stack);
    monitor.wait_ready(READY).await?;
    // Past the first interval probes are spread over the time.
    tokio::time::sleep(INTERVAL).await;
    let (start, cpu) = (run::now(), cpu_seconds()?);
    tokio::time::sleep(MEASURED).await;
    let share = (cpu_seconds()? - cpu) / start.elapsed().as_secs_f64();
    let bytes = (memory_kib()? - before) * 1024.0 / f64::from(count);
    let probes: u64 = monitor.report().services.iter().map(|service| service.attempts_count).sum();
    say(&format!("idle: {count} checks: {:.2} % of a core, {bytes:.0} bytes a check, {probes} probes", share * 100.0));
    Ok(BTreeMap::from([("cpu-per-second".to_owned(), share)]))
}

fn memory_kib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(resident.trim().trim_end_matches("kB").trim().parse()?)
}

/// The time that processors spent on this process, in user and kernel mode: fields 14 and 15 of proc(5).
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}
