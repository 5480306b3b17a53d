//! Damaged artifacts: found by `inspect`, and never restored over old data.

use stackkit_core::ErrorKind;
use stackkit_core::backup::{ArtifactInfo, ArtifactSource, ArtifactSpec, RestoreOptions};

use crate::conformance::context::{Dumped, dump, provider};
use crate::conformance::outcome::{Outcome, refused};
use crate::conformance::runner::Scenario;
use crate::conformance::scenarios::restore::Refusal;
use crate::conformance::source::SourceFault;
use crate::conformance::target::{Capability, Seed, Target};

const BACKUP: &[Capability] = &[Capability::Backup];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "inspect_refuses_a_cut_artifact", needs: BACKUP, run: |target| Box::pin(inspect_cut(target)) },
    Scenario {
        name: "inspect_refuses_a_flipped_bit",
        needs: &[Capability::Backup, Capability::Checksum],
        run: |target| Box::pin(inspect_flipped(target)),
    },
    Scenario {
        name: "inspect_refuses_a_foreign_format",
        needs: BACKUP,
        run: |target| Box::pin(inspect_foreign(target)),
    },
    Scenario {
        name: "restore_of_damaged_bytes_keeps_the_old_data",
        needs: BACKUP,
        run: |target| Box::pin(restore_damaged(target)),
    },
    Scenario {
        name: "restore_of_a_flipped_bit_keeps_the_old_data",
        needs: &[Capability::Backup, Capability::Checksum],
        run: |target| Box::pin(restore_flipped(target)),
    },
];

/// Places in an artifact of `length` bytes: its first and last ones, and some between.
fn places(length: usize) -> impl Iterator<Item = usize> {
    [0, 1, length / 4, length / 2, length / 4 * 3, length.saturating_sub(1)].into_iter()
}

fn first(dumped: &Dumped) -> Outcome<(&ArtifactInfo, usize)> {
    let artifact = dumped.artifacts().iter().max_by_key(|artifact| artifact.plain_bytes);
    let artifact = artifact.ok_or_else(|| stackkit_core::Error::unexpected("the dump has no artifact"))?;
    Ok((artifact, dumped.backup.bytes(artifact.name())?.len()))
}

async fn inspect_with(target: &dyn Target, faults: impl Fn(usize) -> Vec<SourceFault>) -> Outcome {
    let instance = target.instance().await?;
    instance.seed(Seed::Small).await?;
    let service = instance.service();
    let dumped = dump(&service).await?;
    let (artifact, length) = first(&dumped)?;
    for fault in faults(length) {
        let reader = dumped.backup.with_fault(fault).open(artifact.name()).await?;
        let inspected = provider(&service)?.inspect(artifact, reader).await;
        // A bit of the format's version makes it another version.
        let kinds: &[ErrorKind] = match fault {
            SourceFault::FlipAt(_) => &[ErrorKind::Integrity, ErrorKind::Unsupported],
            _ => &[ErrorKind::Integrity],
        };
        refused(&format!("inspecting with {fault:?} of {length} bytes"), kinds, inspected)?;
    }
    Ok(())
}

async fn inspect_cut(target: &dyn Target) -> Outcome {
    let faults = |length| places(length).flat_map(|at| [SourceFault::CutAt(at), SourceFault::FailAt(at)]).collect();
    inspect_with(target, faults).await
}

async fn inspect_flipped(target: &dyn Target) -> Outcome {
    inspect_with(target, |length| places(length).map(SourceFault::FlipAt).collect()).await
}

async fn inspect_foreign(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    instance.seed(Seed::Small).await?;
    let service = instance.service();
    let dumped = dump(&service).await?;
    let (artifact, _) = first(&dumped)?;
    let spec = ArtifactSpec::new(artifact.name().clone(), "a-format-of-somebody-else");
    let foreign = ArtifactInfo::new(spec, artifact.plain_bytes, &artifact.plain_blake3);
    let reader = dumped.backup.open(artifact.name()).await?;
    let inspected = provider(&service)?.inspect(&foreign, reader).await;
    refused("inspecting a foreign format", &[ErrorKind::Unsupported], inspected).map(drop)
}

async fn restore_with(target: &dyn Target, faults: impl Fn(usize) -> Vec<SourceFault>) -> Outcome {
    let instance = target.instance().await?;
    instance.seed(Seed::Small).await?;
    let service = instance.service();
    let dumped = dump(&service).await?;
    let (_, length) = first(&dumped)?;
    // What a careless restore would lose.
    instance.change().await?;
    for fault in faults(length) {
        let plan = provider(&service)?.plan_restore(&dumped.backup, &RestoreOptions::new()).await?;
        let damaged = dumped.backup.with_fault(fault);
        Refusal { instance: instance.as_ref(), service: &service, backup: &damaged }.of(plan, &dumped, &[]).await?;
    }
    Ok(())
}

async fn restore_damaged(target: &dyn Target) -> Outcome {
    let faults = |length| places(length).flat_map(|at| [SourceFault::CutAt(at), SourceFault::FailAt(at)]).collect();
    restore_with(target, faults).await
}

async fn restore_flipped(target: &dyn Target) -> Outcome {
    restore_with(target, |length| places(length).map(SourceFault::FlipAt).collect()).await
}
