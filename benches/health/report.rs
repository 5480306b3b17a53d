//! Reading the report, against reading a pointer of the same size behind a lock.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use stackkit::{Monitor, Report};

use crate::rounds::{Contender, Rounds, Row};
use crate::{Result, noop, run};

/// Reads in one run; the run's result is their mean. The count of each thread.
const READS: u32 = 2_000_000;
/// The threads that read at once: one, and as many as small machines have cores.
const THREADS: [usize; 2] = [1, 2];
/// The size of a large stack.
const SERVICES: usize = 50;

/// Plays the rounds.
///
/// # Errors
/// If a child fails.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    let read = |how: &'static str| move || run::ours("report", how, [how]);
    rounds.play(Contender::new("report()", read("report")), vec![Contender::new("RwLock<Arc<_>>", read("lock"))])
}

/// Reads again and again and tells the mean.
pub(crate) async fn child(args: &[String]) -> Result<BTreeMap<String, f64>> {
    let monitor = Monitor::start(&noop::stack(SERVICES, Duration::from_secs(15), false)?);
    let report = monitor.wait_ready(Duration::from_secs(10)).await?;
    let lock = RwLock::new(report);
    let read: &(dyn Fn() -> Option<Arc<Report>> + Sync) = match args {
        [how] if how == "report" => &|| Some(monitor.report()),
        [how] if how == "lock" => &|| lock.read().ok().map(|report| report.clone()),
        _ => return Err("report takes `report` or `lock`".into()),
    };
    let mean = |threads: usize| (format!("{threads}-threads"), mean_of(threads, read));
    Ok(THREADS.map(mean).into())
}

fn mean_of(threads: usize, read: &(dyn Fn() -> Option<Arc<Report>> + Sync)) -> f64 {
    let ((), wall) = run::timed(|| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..READS).for_each(|_| drop(black_box(read()))));
            }
        });
    });
    wall.as_secs_f64() / f64::from(READS)
}
