//! The unit tests of `stackctl`'s pure modules. `test = true` on the example would build them instead of the program that
//! the whole-stack tests run.
#![allow(dead_code, unused_imports, reason = "only the tests of these modules are used here")]

#[path = "../examples/stackctl/cli/mod.rs"]
mod cli;
#[path = "../examples/stackctl/exit.rs"]
mod exit;
#[path = "../examples/stackctl/location.rs"]
mod location;
#[path = "../examples/stackctl/output.rs"]
mod output;
#[path = "../examples/stackctl/progress.rs"]
mod progress;
#[path = "../examples/stackctl/table/mod.rs"]
mod table;
