//! A password shows nowhere.

use std::fs;

use stackkit_core::backup::{DumpContext, RestoreContext, RestoreOptions};
use stackkit_core::health::Tier;
use stackkit_core::{Error, Secret};

use crate::conformance::context::{dump, probe, provider, restore, while_stalled};
use crate::conformance::outcome::{Failure, Outcome, check};
use crate::conformance::runner::Scenario;
use crate::conformance::sink::{MemorySink, SinkFault};
use crate::conformance::source::MemoryBackup;
use crate::conformance::target::{Capability, Seed, Target};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "no_secret_in_any_output",
        needs: &[Capability::Health, Capability::Backup, Capability::Password],
        run: |target| Box::pin(outputs(target)),
    },
    Scenario {
        name: "no_secret_in_the_process_list",
        needs: &[Capability::Backup, Capability::Password],
        run: |target| Box::pin(process_list(target)),
    },
];

async fn outputs(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let password = instance.password().ok_or_else(|| Failure::Broken("the target has no password".to_owned()))?;
    instance.seed(Seed::Small).await?;
    let service = instance.service();
    let mut outputs =
        vec![format!("{service:?} {} {:?} {:?}", service.endpoint(), service.endpoint(), service.faults())];
    outputs.push(format!("{:?}", probe(&service, Tier::Inventory).await?));
    let dumped = dump(&service).await?;
    outputs.push(format!("{:?}", dumped.report));
    outputs.push(format!("{:?}", dumped.artifacts()));
    for artifact in dumped.artifacts() {
        outputs.push(String::from_utf8_lossy(dumped.backup.bytes(artifact.name())?).into_owned());
    }
    let plan = provider(&service)?.plan_restore(&dumped.backup, &RestoreOptions::new()).await?;
    outputs.push(format!("{plan} {plan:?}"));
    plan_errors(
        &mut outputs,
        provider(&service)?.restore(plan, &MemoryBackup::default(), &RestoreContext::new()).await,
    );
    outputs.push(format!("{:?}", restore(&service, &dumped).await?));
    check_all(&outputs, &password)
}

fn plan_errors<T>(outputs: &mut Vec<String>, outcome: Result<T, Error>) {
    if let Err(error) = outcome {
        outputs.push(format!("{error} {error:?} {}", error.chain()));
    }
}

fn check_all(outputs: &[String], password: &Secret) -> Outcome {
    let telling = outputs.iter().find(|output| output.contains(password.expose()));
    check(telling.is_none(), || {
        format!("the password shows in {}", password.redact(telling.map_or("", String::as_str)))
    })
}

/// Looks at the arguments of every process while a dump is under way.
async fn process_list(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let password = instance.password().ok_or_else(|| Failure::Broken("the target has no password".to_owned()))?;
    instance.seed(Seed::Small).await?;
    let service = instance.service();
    let sink = MemorySink::new(SinkFault::StallAt(2));
    let begun = provider(&service)?.begin(&DumpContext::new()).await?;
    let arguments = while_stalled(&sink, begun.run(&sink), async || Ok(process_arguments())).await?;
    check(!arguments.is_empty(), || "this machine has no /proc".to_owned())?;
    check_all(&arguments, &password)
}

/// The arguments of every process, where the system tells them.
fn process_arguments() -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|arguments| String::from_utf8_lossy(&arguments).into_owned())
        .collect()
}
