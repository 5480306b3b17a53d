//! What a dump promises.

use std::time::Duration;

use stackkit_core::backup::{ArtifactInfo, ArtifactSource, DumpContext};
use stackkit_core::{Clock, ErrorKind};

use crate::conformance::context::{Dumped, dump, provider, released, run_into, until_stalled};
use crate::conformance::outcome::{Failure, Outcome, check, refused, same};
use crate::conformance::runner::Scenario;
use crate::conformance::sink::{MemorySink, SinkFault};
use crate::conformance::target::{Capability, Instance, Seed, Target};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "dump_counts_what_it_holds",
        needs: &[Capability::Backup],
        run: |target| Box::pin(counts(target)),
    },
    Scenario { name: "begin_is_fast", needs: &[Capability::Backup], run: |target| Box::pin(begin_is_fast(target)) },
    Scenario { name: "begin_dropped_releases", needs: &[Capability::Backup], run: |target| Box::pin(dropped(target)) },
    Scenario {
        name: "dump_shows_the_moment_of_begin",
        needs: &[Capability::Backup],
        run: |target| Box::pin(moment(target)),
    },
    Scenario {
        name: "cancelled_dump_leaves_nothing",
        needs: &[Capability::Backup],
        run: |target| Box::pin(cancelled(target)),
    },
    Scenario {
        name: "sink_error_stops_the_dump",
        needs: &[Capability::Backup],
        run: |target| Box::pin(sink_error(target)),
    },
    Scenario { name: "two_dumps_at_once", needs: &[Capability::Backup], run: |target| Box::pin(two_at_once(target)) },
    Scenario {
        name: "vendor_tool_reads_the_artifact",
        needs: &[Capability::Backup, Capability::VendorTool],
        run: |target| Box::pin(vendor_tool(target)),
    },
];

/// At how many calls the sink fails in turn; a small dump makes fewer calls or many alike.
const FAILING_CALLS_MAX: u32 = 12;
/// At which calls a dump is cancelled: while it opens the artifact, and while it writes.
const CANCELLED_CALLS: [u32; 2] = [1, 2];

/// What the contract says of an idle server.
const BEGIN_LIMIT: Duration = Duration::from_secs(1);
/// The machine that tests is not idle, so one of some tries must be in time.
const BEGIN_TRIES: u32 = 5;

async fn seeded(target: &dyn Target) -> Outcome<Box<dyn Instance>> {
    let instance = target.instance().await?;
    instance.seed(Seed::Small).await?;
    Ok(instance)
}

async fn counts(target: &dyn Target) -> Outcome {
    let instance = seeded(target).await?;
    let service = instance.service();
    let live = provider(&service)?.census().await?;
    let dumped = dump(&service).await?;
    no_difference("the census of the dump", &live.diff(&dumped.report.census))?;
    check(live.counts.values().sum::<u64>() > 0, || "the census counts nothing".to_owned())?;
    check(!dumped.report.vendor.name.is_empty(), || "the report names no vendor".to_owned())?;
    check(!dumped.artifacts().is_empty(), || "the dump has no artifact".to_owned())?;
    for artifact in dumped.artifacts() {
        let bytes = dumped.backup.bytes(artifact.name())?.clone();
        let reader = dumped.backup.open(artifact.name()).await?;
        let inspection = provider(&service)?.inspect(artifact, reader).await?;
        check(inspection.entries > 0, || format!("{} has no entries", artifact.name()))?;
        check(!artifact.spec.restore_command.is_empty(), || "no command restores it by hand".to_owned())?;
        check(!bytes.is_empty(), || format!("{} is empty", artifact.name()))?;
    }
    let held = instance.content().await?;
    dump(&service).await?;
    same("the content after two dumps", &held, &instance.content().await?)
}

async fn begin_is_fast(target: &dyn Target) -> Outcome {
    let instance = seeded(target).await?;
    let service = instance.service();
    let clock = Clock::system();
    let mut took = Duration::MAX;
    for _ in 0..BEGIN_TRIES {
        let start = clock.instant();
        drop(provider(&service)?.begin(&DumpContext::new()).await?);
        took = clock.instant() - start;
        if took <= BEGIN_LIMIT {
            break;
        }
    }
    check(took <= BEGIN_LIMIT, || format!("the last of {BEGIN_TRIES} begins took {took:?}"))
}

async fn dropped(target: &dyn Target) -> Outcome {
    let instance = seeded(target).await?;
    let service = instance.service();
    drop(provider(&service)?.begin(&DumpContext::new()).await?);
    released(instance.as_ref()).await
}

/// What changes between `begin` and `run` is not in the dump, unless the store can't do that and says so.
async fn moment(target: &dyn Target) -> Outcome {
    use stackkit_core::backup::Consistency;
    let instance = seeded(target).await?;
    let service = instance.service();
    let now = "2026-01-02T03:04:05Z".parse().map_err(|error| Failure::Broken(format!("{error}")))?;
    let before = provider(&service)?.census().await?;
    let begun = provider(&service)?.begin(&DumpContext::new().with_clock(Clock::fixed(now))).await?;
    let point = begun.point().clone();
    same("the time of the point", &now, &point.taken_at)?;
    instance.change().await?;
    let dumped = run_into(begun, &MemorySink::new(SinkFault::Slow)).await?;
    match point.consistency {
        Consistency::Snapshot => no_difference("the census at the point", &before.diff(&dumped.report.census)),
        _ => Ok(()),
    }
}

async fn cancelled(target: &dyn Target) -> Outcome {
    let instance = seeded(target).await?;
    let service = instance.service();
    for call in CANCELLED_CALLS {
        let sink = MemorySink::new(SinkFault::StallAt(call));
        let begun = provider(&service)?.begin(&DumpContext::new()).await?;
        until_stalled(&sink, begun.run(&sink)).await?;
        nothing_finished(&sink)?;
        released(instance.as_ref()).await?;
    }
    dump(&service).await.map(drop).map_err(Failure::from)
}

async fn sink_error(target: &dyn Target) -> Outcome {
    let instance = seeded(target).await?;
    let service = instance.service();
    let whole = MemorySink::new(SinkFault::None);
    let dumped: Dumped = run_into(provider(&service)?.begin(&DumpContext::new()).await?, &whole).await?;
    let calls = whole.calls();
    let one_artifact = dumped.artifacts().len() == 1;
    // The first calls, and the last one: the `finish`.
    let failing = (1..calls.min(FAILING_CALLS_MAX)).chain([calls]);
    for call in failing {
        let sink = MemorySink::new(SinkFault::FailAt(call));
        let begun = provider(&service)?.begin(&DumpContext::new()).await?;
        refused(&format!("a dump whose sink fails at call {call}"), &[ErrorKind::Io], begun.run(&sink).await)?;
        check(!one_artifact || sink.calls() == call, || format!("the sink was called after its failure at {call}"))?;
        check(!one_artifact || sink.backup().artifacts().is_empty(), || format!("call {call}: an artifact is there"))?;
        released(instance.as_ref()).await?;
    }
    Ok(())
}

async fn two_at_once(target: &dyn Target) -> Outcome {
    let instance = seeded(target).await?;
    let (service, other) = (instance.service(), instance.service());
    let first = provider(&service)?.begin(&DumpContext::new()).await?;
    let second = provider(&other)?.begin(&DumpContext::new()).await?;
    let (first_sink, second_sink) = (MemorySink::new(SinkFault::Slow), MemorySink::new(SinkFault::Slow));
    let (first, second) = tokio::try_join!(run_into(first, &first_sink), run_into(second, &second_sink))?;
    no_difference("the second census", &first.report.census.diff(&second.report.census))?;
    released(instance.as_ref()).await
}

async fn vendor_tool(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    for seed in [Seed::Empty, Seed::Small] {
        instance.seed(seed).await?;
        let dumped = dump(&instance.service()).await?;
        let scratch = tempfile::tempdir()?;
        let file = |artifact: &ArtifactInfo| scratch.path().join(artifact.name().as_str());
        for artifact in dumped.artifacts() {
            std::fs::write(file(artifact), dumped.backup.bytes(artifact.name())?)?;
        }
        for artifact in dumped.artifacts() {
            instance.vendor_reads(artifact, &file(artifact)).await?;
        }
    }
    Ok(())
}

fn nothing_finished(sink: &MemorySink) -> Outcome {
    let backup = sink.backup();
    let names: Vec<_> = backup.artifacts().iter().map(ArtifactInfo::name).collect();
    check(names.is_empty(), || format!("a cancelled dump left {names:?}"))
}

pub(super) fn no_difference(what: &str, differences: &[stackkit_core::backup::CensusDifference]) -> Outcome {
    let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
    check(lines.is_empty(), || format!("{what} differs: {}", lines.join("; ")))
}
