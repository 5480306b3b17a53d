//! Health: what a probe sees, what it means, and the engine that polls in the background.
//!
//! Poll in the background, serve from a snapshot: a request reads one `Arc<Report>` and does no I/O.

mod changes;
mod check;
mod monitor;
mod observation;
mod prober;
mod report;
mod thresholds;

pub use changes::{Changes, Transition};
pub use check::{HealthCheck, ProbeContext, Tier};
pub use monitor::{Monitor, Snapshot};
pub use observation::{Axis, Finding, Measurement, MeasurementKind, MeasurementValue, Observation, Severity};
pub(crate) use prober::Prober;
pub use report::{ProbeFailure, Report, ServiceReport, Status};
pub use thresholds::{Limit, Thresholds};
