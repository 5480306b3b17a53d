//! The loop that probes one service, each tier at its own interval.

use std::sync::Arc;

use tokio::time::sleep;

use crate::health::Prober;
use crate::health::board::Board;
use crate::health::plan::Plan;

/// Probes one service until the task is aborted.
pub(crate) async fn poll(board: Arc<Board>, position: usize) {
    let Some(prober) = board.probers.get(position).cloned() else { return };
    let mut plan = Plan::new(&prober);
    loop {
        let tier = plan.due(board.clock.instant());
        let mut report = prober.probe(tier).await;
        let now = board.clock.instant();
        let failing_before = plan.failing_count();
        let wait = plan.next(tier, &report, now);
        let believed_until = board.clock.deadline(plan.believed_for(wait, now));
        prober.believe(believed_until);
        report.stale_at = Some(believed_until);
        board.put(position, report);
        match (failing_before, plan.failing_count()) {
            // The first failures; later ones would only make what is well work more.
            (_, failing) if failing > 0 && failing <= prober.entry().intervals.fall.max(1) => {
                look_at_causes(&board, position);
            }
            (failing, 0) if failing > 0 => look_at_dependents(&board, position),
            _ => {}
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = prober.nudge.notified() => plan.look_now(board.clock.instant()),
        }
    }
}

/// Asks for a probe of what a failing service needs and what seems to be well, so that the cause is seen at once.
fn look_at_causes(board: &Board, position: usize) {
    let causes = board.shape.needs.all_of(position);
    nudge(board, &causes, |cause| cause.seems_well());
}

/// Asks for a probe of what fails and needs a service that is well again.
fn look_at_dependents(board: &Board, position: usize) {
    nudge(board, board.shape.needs.dependents_of(position), |dependent| !dependent.seems_well());
}

fn nudge(board: &Board, positions: &[usize], wanted: impl Fn(&Prober) -> bool) {
    let probers = positions.iter().filter_map(|position| board.probers.get(*position));
    probers.filter(|prober| wanted(prober)).for_each(|prober| prober.nudge.notify_one());
}
