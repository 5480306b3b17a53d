//! What a restore promises.

use std::sync::Arc;

use stackkit_core::backup::{OldData, RestoreOptions, RestorePlan, TargetState};
use stackkit_core::{ErrorKind, Service};

use crate::conformance::context::{Dumped, dump, expecting, provider, released, restore};
use crate::conformance::outcome::{Failure, Outcome, check, refused, same};
use crate::conformance::runner::Scenario;
use crate::conformance::scenarios::dump::no_difference;
use crate::conformance::source::{MemoryBackup, SourceFault};
use crate::conformance::target::{Capability, Instance, Seed, Target};

const BACKUP: &[Capability] = &[Capability::Backup];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "dump_wipe_restore_equals_census_and_content",
        needs: BACKUP,
        run: |target| Box::pin(round_trip(target, Seed::Small)),
    },
    Scenario { name: "empty_store", needs: BACKUP, run: |target| Box::pin(round_trip(target, Seed::Empty)) },
    Scenario {
        name: "unicode_and_binary",
        needs: BACKUP,
        run: |target| Box::pin(round_trip(target, Seed::UnicodeAndBinary)),
    },
    Scenario { name: "restore_reads_torn_streams", needs: BACKUP, run: |target| Box::pin(torn(target)) },
    Scenario { name: "restore_into_another_store", needs: BACKUP, run: |target| Box::pin(elsewhere(target)) },
    Scenario { name: "restore_replaces_what_is_there", needs: BACKUP, run: |target| Box::pin(replaces(target)) },
    Scenario { name: "cancelled_restore_can_be_done_again", needs: BACKUP, run: |target| Box::pin(cancelled(target)) },
    Scenario { name: "plan_changes_nothing", needs: BACKUP, run: |target| Box::pin(plan_changes_nothing(target)) },
    Scenario { name: "restore_refuses_a_stale_plan", needs: BACKUP, run: |target| Box::pin(stale_plan(target)) },
    Scenario {
        name: "restore_refuses_a_plan_that_misses_something",
        needs: BACKUP,
        run: |target| Box::pin(missing(target)),
    },
    Scenario {
        name: "restore_compares_the_census_before_the_old_data_goes",
        needs: BACKUP,
        run: |target| Box::pin(wrong_census(target)),
    },
    Scenario { name: "plan_refuses_a_foreign_backup", needs: BACKUP, run: |target| Box::pin(foreign(target)) },
];

async fn dumped(instance: &dyn Instance, seed: Seed) -> Outcome<(Arc<dyn Service>, Dumped)> {
    instance.seed(seed).await?;
    let service = instance.service();
    let dumped = dump(&service).await?;
    Ok((service, dumped))
}

async fn plan(service: &Arc<dyn Service>, dumped: &Dumped) -> Outcome<RestorePlan> {
    Ok(provider(service)?.plan_restore(&dumped.backup, &RestoreOptions::new()).await?)
}

/// Restores, and compares the report and the live store with the dump, and the content with `content`.
async fn restores(instance: &dyn Instance, service: &Arc<dyn Service>, dumped: &Dumped, content: &String) -> Outcome {
    let report = restore(service, dumped).await?;
    same("the service of the report", service.id(), &report.service)?;
    no_difference("the census of the report", &dumped.report.census.diff(&report.census))?;
    let live = provider(service)?.census().await?;
    no_difference("the census of the restored store", &dumped.report.census.diff(&live))?;
    same("the restored content", content, &instance.content().await?)?;
    released(instance).await
}

async fn round_trip(target: &dyn Target, seed: Seed) -> Outcome {
    let instance = target.instance().await?;
    let (service, dumped) = dumped(instance.as_ref(), seed).await?;
    let content = instance.content().await?;
    instance.wipe().await?;
    let wiped = instance.content().await?;
    check(seed == Seed::Empty || wiped != content, || "wiping or hashing does nothing".to_owned())?;
    restores(instance.as_ref(), &service, &dumped, &content).await
}

async fn torn(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let (service, mut dumped) = dumped(instance.as_ref(), Seed::UnicodeAndBinary).await?;
    let content = instance.content().await?;
    instance.wipe().await?;
    dumped.backup = dumped.backup.with_fault(SourceFault::Torn);
    restores(instance.as_ref(), &service, &dumped, &content).await
}

async fn elsewhere(target: &dyn Target) -> Outcome {
    let (instance, other) = (target.instance().await?, target.instance().await?);
    let (_, dumped) = dumped(instance.as_ref(), Seed::Small).await?;
    let content = instance.content().await?;
    restores(other.as_ref(), &other.service(), &dumped, &content).await?;
    same("the content of the dumped store", &content, &instance.content().await?)
}

async fn replaces(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let (service, dumped) = dumped(instance.as_ref(), Seed::Small).await?;
    let content = instance.content().await?;
    instance.change().await?;
    check(content != instance.content().await?, || "the change does not show in the content".to_owned())?;
    let plan = plan(&service, &dumped).await?;
    check(plan.is_destructive(), || format!("a plan over data says that it destroys nothing:\n{plan}"))?;
    restores(instance.as_ref(), &service, &dumped, &content).await?;
    // And without keeping the replaced data.
    instance.change().await?;
    let options = RestoreOptions::new().with_old_data(OldData::Remove);
    let plan = provider(&service)?.plan_restore(&dumped.backup, &options).await?;
    let report = provider(&service)?.restore(plan, &dumped.backup, &expecting(&dumped)).await?;
    same("where replaced data is kept", &None, &report.old_data_kept_as)?;
    same("the content restored again", &content, &instance.content().await?)
}

/// Contract: dropping the future ends children and connections; safe to call again with a fresh plan.
async fn cancelled(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let (service, dumped) = dumped(instance.as_ref(), Seed::Small).await?;
    let content = instance.content().await?;
    instance.change().await?;
    let length = dumped.artifacts().iter().map(|artifact| artifact.plain_bytes).max().unwrap_or(0);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    for at in [0, length / 2, length.saturating_sub(1)] {
        let source = dumped.backup.with_fault(SourceFault::StallAt(at));
        let (plan, cx) = (plan(&service, &dumped).await?, expecting(&dumped));
        tokio::select! {
            () = source.stalled() => {}
            ended = provider(&service)?.restore(plan, &source, &cx) => {
                ended?;
                check(false, || format!("the restore ended though the source stalls at {at} of {length} bytes"))?;
            }
        }
        released(instance.as_ref()).await?;
    }
    restores(instance.as_ref(), &service, &dumped, &content).await
}

async fn plan_changes_nothing(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let (service, dumped) = dumped(instance.as_ref(), Seed::Small).await?;
    instance.change().await?;
    let before = (instance.content().await?, provider(&service)?.census().await?);
    let plan = plan(&service, &dumped).await?;
    let after = (instance.content().await?, provider(&service)?.census().await?);
    same("content and census after planning", &before, &after)?;
    same("the planned service", service.id(), &plan.service)?;
    same("the planned kind", &service.kind().to_owned(), &plan.kind)?;
    check(!plan.actions.is_empty(), || "the plan has no steps".to_owned())?;
    let stored: RestorePlan = serde_json::from_str(&serde_json::to_string(&plan)?)?;
    same("the plan after JSON", &plan, &stored)?;
    released(instance.as_ref()).await
}

async fn stale_plan(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let (service, dumped) = dumped(instance.as_ref(), Seed::Small).await?;
    let plan = plan(&service, &dumped).await?;
    instance.change().await?;
    let outcome = Refusal { instance: instance.as_ref(), service: &service, backup: &dumped.backup };
    outcome.of(plan, &dumped, &[ErrorKind::Incompatible]).await
}

async fn missing(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let (service, dumped) = dumped(instance.as_ref(), Seed::Small).await?;
    let mut plan = plan(&service, &dumped).await?;
    plan.missing.push("something that is not there".to_owned());
    Refusal { instance: instance.as_ref(), service: &service, backup: &dumped.backup }.of(plan, &dumped, &[]).await
}

async fn wrong_census(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let (service, mut dumped) = dumped(instance.as_ref(), Seed::Small).await?;
    instance.change().await?;
    let name = dumped.report.census.counts.keys().next().cloned().unwrap_or_default();
    dumped.report.census.add(&name, 1);
    let plan = plan(&service, &dumped).await?;
    Refusal { instance: instance.as_ref(), service: &service, backup: &dumped.backup }.of(plan, &dumped, &[]).await
}

async fn foreign(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let service = instance.service();
    let empty = MemoryBackup::default();
    match provider(&service)?.plan_restore(&empty, &RestoreOptions::new()).await {
        Err(error) => drop(refused::<()>("planning", &[ErrorKind::Incompatible, ErrorKind::NotFound], Err(error))?),
        Ok(plan) => {
            check(!plan.missing.is_empty(), || "a plan for a backup without artifacts misses nothing".to_owned())?
        }
    }
    Ok(())
}

/// A restore that must fail and leave the old data.
pub(super) struct Refusal<'a> {
    pub(super) instance: &'a dyn Instance,
    pub(super) service: &'a Arc<dyn Service>,
    pub(super) backup: &'a MemoryBackup,
}

impl Refusal<'_> {
    /// Applies `plan` and checks kind, target state, census and content.
    pub(super) async fn of(&self, plan: RestorePlan, dumped: &Dumped, kinds: &[ErrorKind]) -> Outcome {
        let before = (self.instance.content().await?, provider(self.service)?.census().await?);
        let outcome = provider(self.service)?.restore(plan, self.backup, &expecting(dumped)).await;
        let error = refused("the restore", kinds, outcome)?;
        let after = (self.instance.content().await?, provider(self.service)?.census().await?);
        same("content and census after a refused restore", &before, &after)?;
        match error.target() {
            Some(TargetState::Old) => released(self.instance).await,
            other => Err(Failure::Broken(format!("the error says that the target is {other:?}, it is old: {error}"))),
        }
    }
}
