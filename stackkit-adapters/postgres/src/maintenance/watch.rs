//! How far a statement is, seen by a second session.

use std::time::Duration;

use serde::Serialize;
use stackkit_core::Result;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::SimpleQueryRow;

use crate::client::{Session, number, text};
use crate::maintenance::task::MaintenanceAction;

/// How often the second session looks: often enough for a line that moves, seldom enough to cost nothing.
pub const MAINTENANCE_PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How far one step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MaintenanceProgress {
    /// Which step, from 1 on.
    pub step: usize,
    /// How many steps there are.
    pub steps: usize,
    /// The statement.
    pub command: String,
    /// `starting`, the server's own word for what it does (`scanning heap`), or `ended`.
    pub phase: String,
    /// How much of the phase is done, in [`unit`](Self::unit).
    pub done: u64,
    /// How much there is; 0 if that is not known.
    pub total: u64,
    /// `blocks`, `tuples` or `lockers` (transactions that are waited for).
    pub unit: String,
}

/// Phase, done and total in blocks, done and total in tuples, done and total in lockers.
fn view(action: MaintenanceAction) -> &'static str {
    match action {
        MaintenanceAction::Vacuum | MaintenanceAction::VacuumAnalyze | MaintenanceAction::VacuumFreeze => {
            "SELECT phase, heap_blks_scanned, heap_blks_total, 0, 0, 0, 0 FROM pg_stat_progress_vacuum"
        }
        MaintenanceAction::VacuumFull => {
            "SELECT phase, heap_blks_scanned, heap_blks_total, heap_tuples_written, 0, 0, 0 FROM pg_stat_progress_cluster"
        }
        MaintenanceAction::Analyze => {
            "SELECT phase, sample_blks_scanned, sample_blks_total, 0, 0, 0, 0 FROM pg_stat_progress_analyze"
        }
        _ => {
            "SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total, lockers_done, lockers_total \
             FROM pg_stat_progress_create_index"
        }
    }
}

/// The views that show a statement: `VACUUM (ANALYZE)` goes from one to the other.
fn views(action: MaintenanceAction, pid: u64, major: Option<u32>) -> String {
    let mut views = vec![view(action)];
    // The view of ANALYZE came with version 13.
    if action == MaintenanceAction::VacuumAnalyze && major >= Some(13) {
        views.push(view(MaintenanceAction::Analyze));
    }
    views.into_iter().map(|view| format!("{view} WHERE pid = {pid}")).collect::<Vec<_>>().join(" UNION ALL ")
}

/// Looks until it is dropped, and shows what changed. Where the view is not there it ends, and nothing is shown.
pub(crate) async fn watch(
    watcher: &Session,
    (action, pid): (MaintenanceAction, u64),
    mut shown: impl FnMut(&str, (u64, u64), &'static str),
) -> Result<()> {
    if action == MaintenanceAction::Analyze && watcher.major < Some(13) {
        return Ok(());
    }
    let sql = views(action, pid, watcher.major);
    let mut ticks = interval(MAINTENANCE_PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        ticks.tick().await;
        for row in watcher.rows(&sql).await? {
            let (amount, unit) = amount(&row)?;
            let now = Some((text(&row, 0)?.to_owned(), amount));
            if now != last {
                shown(text(&row, 0)?, amount, unit);
                last = now;
            }
        }
    }
}

/// What the phase counts.
fn amount(row: &SimpleQueryRow) -> Result<((u64, u64), &'static str)> {
    for (at, unit) in [(5, "lockers"), (3, "tuples")] {
        if number(row, at + 1)? > 0 && number(row, 2)? == 0 {
            return Ok(((number(row, at)?, number(row, at + 1)?), unit));
        }
    }
    Ok(((number(row, 1)?, number(row, 2)?), "blocks"))
}
