//! Health: what a probe sees, what it means, and the engine that polls in the background.
//!
//! Poll in the background, serve from a snapshot: a request reads one `Arc<Report>` and does no I/O.

mod blame;
mod board;
mod changes;
mod check;
mod counts;
mod fold;
mod history;
mod intervals;
mod metric;
mod monitor;
mod observation;
mod order;
mod plan;
mod poll;
mod prober;
mod recorder;
mod report;
mod rule;
mod runner;
mod sink;
mod snapshot;
mod stability;
mod state;
mod thresholds;
mod wait;

pub use changes::{Changes, Transition};
pub use check::{Growth, HealthCheck, ProbeContext, Tier};
pub use counts::{Durations, PROBE_SECONDS_BOUNDS, ProbeCounts};
pub use fold::{LIVE, READY, STARTUP};
pub(crate) use fold::{Moment, Shape};
pub use history::{Availability, HISTORY_CHANGES_MAX, HISTORY_MINUTES, History, Minute, StatusChange};
pub use intervals::Intervals;
pub use metric::Metric;
pub use monitor::{Monitor, MonitorOptions};
pub use observation::{Axis, Finding, Measurement, MeasurementKind, MeasurementValue, Observation, Severity, unit_of};
pub(crate) use prober::Prober;
pub use report::{Axes, GroupReport, ProbeFailure, Report, ServiceReport, Status, TierReport};
pub use rule::{Rule, Side};
pub use sink::{ChannelSink, CommandSink, Event, LogSink, SINK_TIMEOUT, Sink};
pub use snapshot::Snapshot;
pub use thresholds::{Limit, Thresholds, Verdict};
