//! Runs scenarios as trials of `libtest-mimic`.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Builder;

use crate::conformance::outcome::{Failure, Outcome};
use crate::conformance::scenarios;
use crate::conformance::target::{Capability, Target};

/// How long one scenario may take: they take milliseconds to seconds, on a busy machine ten times that. One that hangs
/// fails instead of holding the test command.
pub const SCENARIO_DEADLINE: Duration = Duration::from_secs(120);
/// How long the tasks of a trial's runtime may take to end after it.
const RUNTIME_END: Duration = Duration::from_secs(5);

/// The future of a scenario; it need not be `Send`, for each has a runtime of its own.
pub(crate) type Run<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// One row of the suite's table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Capability],
    pub(crate) run: fn(&dyn Target) -> Run<'_>,
}

/// Runs every scenario that `target` is capable of, and `extra` trials, as the command line asks; the `main` of a test
/// binary with `harness = false`.
#[must_use]
pub fn main(target: impl Target, extra: Vec<Trial>) -> ExitCode {
    let mut trials = trials(target);
    trials.extend(extra);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Every scenario that `target` is capable of, for a test binary that has a `main` of its own.
pub fn trials(target: impl Target) -> Vec<Trial> {
    let target: Arc<dyn Target> = Arc::new(target);
    let capabilities = target.capabilities();
    let able = |scenario: &&Scenario| scenario.needs.iter().all(|need| capabilities.contains(need));
    scenarios::all().filter(able).map(|scenario| row(&target, scenario)).collect()
}

/// Runs one scenario by its name, whatever `target` says that it can do: for testing a target, or the suite.
///
/// # Errors
/// The scenario's; [`Failure::Broken`] if there is none of that name.
///
/// # Cancel safety
/// Dropping the future drops the scenario's stores.
pub async fn scenario(target: &dyn Target, name: &str) -> Outcome {
    match scenarios::all().find(|scenario| scenario.name == name) {
        Some(scenario) => (scenario.run)(target).await,
        None => Err(Failure::Broken(format!("there is no scenario {name:?}"))),
    }
}

fn row(target: &Arc<dyn Target>, scenario: &'static Scenario) -> Trial {
    let (target, kind) = (Arc::clone(target), target.name());
    trial(format!("{kind}::{}", scenario.name), kind, async move || (scenario.run)(&*target).await)
}

/// A trial of the store `kind` with a runtime of its own and a deadline of [`SCENARIO_DEADLINE`].
///
/// It is ignored with the reason if it fails with `ToolMissing`, unless `STACKKIT_REQUIRE` names the store.
pub fn trial<F>(name: impl Into<String>, kind: &'static str, body: F) -> Trial
where
    F: AsyncFnOnce() -> Outcome + Send + 'static,
{
    Trial::ignorable_test(name, move || Failure::completion(kind, run(body)))
}

fn run(body: impl AsyncFnOnce() -> Outcome) -> Outcome {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let late = |_elapsed| Failure::Broken(format!("not done after {} s", SCENARIO_DEADLINE.as_secs()));
        tokio::time::timeout(SCENARIO_DEADLINE, Box::pin(body())).await.map_err(late)?
    });
    runtime.shutdown_timeout(RUNTIME_END);
    outcome
}
