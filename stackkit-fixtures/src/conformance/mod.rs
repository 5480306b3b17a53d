//! The conformance suite: every sentence of the contracts in `stackkit-core`, as a named scenario that each adapter
//! runs against a real store.
//!
//! An adapter's `tests/conformance.rs` (with `harness = false`):
//! ```no_run
//! use stackkit_fixtures::conformance::{self, targets};
//!
//! fn main() -> std::process::ExitCode {
//!     conformance::main(targets::memory(), Vec::new())
//! }
//! ```
//! Scenarios are chosen by what the [`Target`] says that it can do; the adapter adds trials of its own with
//! [`trial`]. The command line is that of any Rust test: a name filters, `--list` lists, `--nocapture` does nothing.
//!
//! For a store of your own, implement [`Target`] (how to make an empty store) and [`Instance`] (how to fill, wipe and
//! hash it by other means than the adapter's).

mod context;
mod outcome;
mod runner;
mod scenarios;
mod sink;
mod source;
mod target;
pub mod targets;

pub use context::{Dumped, dump, probe, restore};
pub use outcome::{Failure, Outcome, check, refused, same};
pub use runner::{SCENARIO_DEADLINE, main, scenario, trial, trials};
pub use sink::{MemorySink, SINK_BYTES_MAX, SinkFault};
pub use source::{MemoryBackup, SourceFault};
pub use target::{Capability, Fault, Instance, Seed, Target};
