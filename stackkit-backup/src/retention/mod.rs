//! Retention: which backups are kept, and how the others go.

mod plan;
mod planner;
mod policy;

pub use plan::{RetentionAction, RetentionDecision, RetentionPlan, RetentionReason, RetentionTotals};
pub use planner::{Announcement, BackupSummary, Inventory, SummaryState};
pub use policy::{Period, Retention};
