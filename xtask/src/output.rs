//! The only module that prints.
#![expect(clippy::print_stdout, reason = "chores talk to a person on a terminal")]
#![expect(clippy::print_stderr, reason = "headlines must not mix with a report on standard output")]

use std::error::Error;
use std::time::Duration;

/// What every chore returns: a message of our own is enough, nobody acts on its kind.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A line of a report.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Announces a step.
pub(crate) fn headline(text: &str) {
    eprintln!("==> {text}");
}

/// Closes a step with its wall time.
pub(crate) fn took(text: &str, wall: Duration) {
    eprintln!("    {text}: {:.1} s", wall.as_secs_f64());
}

/// The last word of a chore that failed.
pub(crate) fn error(error: &dyn Error) {
    eprintln!("error: {error}");
}
