//! Retention: which backups are kept, and how the others go.
//!
//! A policy and an inventory make a plan, without I/O; the plan is shown, and then applied in two steps. First a
//! deletion is announced by a tombstone in the backup's folder; when its time of grace has passed, a later prune deletes
//! the backup: its record is written, the manifest goes, then the other objects, then the tombstone. A crash between any
//! two leaves a whole backup or no backup, and garbage that the next prune removes.

mod apply;
mod inventory;
mod lock;
mod plan;
mod planner;
mod policy;
mod purge;
mod report;
mod run;
mod tombstone;

pub(crate) use apply::finish;
pub use plan::{RetentionAction, RetentionDecision, RetentionPlan, RetentionReason, RetentionTotals};
pub use planner::{Announcement, BackupSummary, Inventory, SummaryState};
pub use policy::{Period, Retention};
pub(crate) use purge::{Emptied, Purge};
pub use report::{PruneOutcome, PruneReport, PruneResult};
pub use run::PruneRun;
#[cfg(any(fuzzing, test))]
pub(crate) use tombstone::rewrite_tombstone;
pub(crate) use tombstone::{FoundTombstone, record_of};
