//! What took how long.

use std::fmt;
use std::time::Duration;

use stackkit::{Clock, Result};

/// The steps so far, with their times.
#[derive(Debug)]
pub(crate) struct Steps {
    clock: Clock,
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::system(), done: Vec::new() }
    }

    /// Says what is done, does it, and notes its time.
    pub(crate) async fn time<T>(&mut self, name: &'static str, step: impl Future<Output = Result<T>>) -> Result<T> {
        println!("=> {name}");
        let started = self.clock.instant();
        let outcome = Box::pin(step).await?;
        self.done.push((name, self.clock.instant() - started));
        Ok(outcome)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44} {:>10}", "step", "seconds")?;
        self.done.iter().try_for_each(|(name, time)| writeln!(f, "{name:<44} {:>10.3}", time.as_secs_f64()))
    }
}
