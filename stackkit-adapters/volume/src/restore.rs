//! Inspect, plan, restore.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, statat, statvfs};
use stackkit_core::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, Inspection, OldData, PlannedAction, RestoreAction,
    RestoreContext, RestoreOptions, RestorePlan, RestoreReport, TargetState,
};
use stackkit_core::{Census, Error, ErrorKind, ServiceId};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::archive::{Entry, EntryKind, Event, Reader};
use crate::census::{self, Counts, TreeStat};
use crate::dump::{ARTIFACT, FORMAT};
use crate::error::{PathText, Result, VolumeError, os};
use crate::tree::{CHUNK_BYTES, Meta, Outcome, Placer, Staging, Strategy, Warnings, components, left_overs};
use crate::worker::{Cancel, Worker};

/// Chunks between the task that reads the artifact and the thread that writes the files, 1 MiB in all.
const CHANNEL_CHUNKS: usize = 4;

/// The fingerprint of a target that does not exist.
const MISSING: &str = "missing";

/// Parses an archive to its end and counts its members.
pub(crate) async fn inspect(artifact: &ArtifactInfo, mut data: ArtifactReader) -> stackkit_core::Result<Inspection> {
    check_format(artifact)?;
    let mut reader = Reader::default();
    let mut counter = Counter::default();
    let mut buffer = BytesMut::new();
    while read_chunk(&mut data, &mut buffer).await? {
        let mut input = &buffer[..];
        while let Some(event) = reader.next(&mut input).map_err(VolumeError::from)? {
            if let Event::Entry(entry) = event {
                counter.count(&entry)?;
            }
        }
    }
    reader.finish().map_err(VolumeError::from)?;
    Ok(Inspection::new(counter.entries)
        .with_census(counter.counts.census())
        .with_warnings(counter.warnings.into_lines()))
}

/// Says what a restore into `target` would do.
pub(crate) async fn plan(
    service: &ServiceId,
    target: PathBuf,
    source: &dyn ArtifactSource,
    options: &RestoreOptions,
) -> stackkit_core::Result<RestorePlan> {
    let artifact = source.info(&ArtifactName::new(ARTIFACT)?)?;
    check_format(artifact)?;
    let looked = target.clone();
    let found = Worker::start(move |cancel| look(&looked, cancel)).join().await??;

    let mut plan = RestorePlan::new(service.clone(), crate::KIND, fingerprint_of(found.as_ref()));
    plan.artifacts = vec![artifact.name().clone()];
    plan.old_data = options.old_data;
    plan.details.insert("target".to_owned(), target.display().to_string());
    let object = format!("directory {}", target.display());
    plan.actions = match &found {
        Some(stat) if stat.entries > 0 => {
            let old = match options.old_data {
                OldData::Remove => PlannedAction::new(RestoreAction::Drop, format!("{object} as it is")),
                _ => PlannedAction::new(RestoreAction::Rename, format!("{object} as it is")),
            };
            vec![old.with_size_bytes(stat.bytes), PlannedAction::new(RestoreAction::Overwrite, object)]
        }
        _ => vec![PlannedAction::new(RestoreAction::Create, object)],
    };
    advise(&mut plan, &target, found.is_some(), artifact.plain_bytes);
    Ok(plan)
}

/// Adds what a person should know before the plan is applied.
fn advise(plan: &mut RestorePlan, target: &Path, exists: bool, needed_bytes: u64) {
    if exists && Strategy::choose(target) == Strategy::Children {
        plan.warnings.push(
            "the directory is a mount point or its parent is not writable: its entries are moved one by one, so for a \
             moment readers see some of them missing"
                .to_owned(),
        );
    }
    let left_overs = left_overs(target).into_iter();
    plan.warnings.extend(left_overs.map(|path| format!("an earlier restore left {}", path.display())));
    let Some(parent) = target.parent().filter(|_| !exists) else {
        return advise_space(plan, target, needed_bytes);
    };
    match parent.is_dir() {
        true => advise_space(plan, parent, needed_bytes),
        false => plan.missing.push(format!("the directory {}", parent.display())),
    }
}

fn advise_space(plan: &mut RestorePlan, path: &Path, needed_bytes: u64) {
    let Ok(space) = statvfs(path) else { return };
    if space.f_flag.contains(StatVfsMountFlags::RDONLY) {
        plan.warnings.push("the file system is mounted read-only".to_owned());
    }
    let available_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    if available_bytes < needed_bytes {
        plan.warnings.push(format!(
            "the archive has {needed_bytes} bytes and the file system has room for {available_bytes} beside the old data"
        ));
    }
}

/// What a restore is to do, for the thread that does it.
struct Job {
    target: PathBuf,
    fingerprint: String,
    keep_old: bool,
    expected: Option<Census>,
    now: Timestamp,
}

/// What arrives at that thread. Without `End` the artifact was not read to its end.
enum Feed {
    Data(Bytes),
    End,
}

/// An error, and which data the target holds.
type Failure = (VolumeError, TargetState);

/// Carries out a plan.
pub(crate) async fn restore(
    plan: RestorePlan,
    target: PathBuf,
    source: &dyn ArtifactSource,
    cx: &RestoreContext,
) -> stackkit_core::Result<RestoreReport> {
    let untouched = |error: Error| error.with_operation("restore").with_target(TargetState::Old);
    check_plan(&plan, &target).map_err(|error| untouched(error.into()))?;
    let name = ArtifactName::new(ARTIFACT)?;
    let mut data = source.open(&name).await.map_err(untouched)?;
    let job = Job {
        target,
        fingerprint: plan.fingerprint.clone(),
        keep_old: plan.old_data != OldData::Remove,
        expected: cx.expected.clone(),
        now: cx.clock.now(),
    };
    let (sender, feed) = mpsc::channel(CHANNEL_CHUNKS);
    let worker = Worker::start(move |cancel| run(&job, feed, cancel));
    let fed = feed_all(&mut data, sender).await;
    let done = worker.join().await.map_err(|error| Error::from(error).with_operation("restore"))?;
    // Whoever failed first knows why: a failed reader cancels the thread, a failed thread stops the reader.
    fed.map_err(untouched)?;
    let (census, outcome) =
        done.map_err(|(error, state)| Error::from(error).with_operation("restore").with_target(state))?;
    let mut report = RestoreReport::new(plan.service, census).with_warnings(outcome.warnings.into_lines());
    report.old_data_kept_as = outcome.kept_as.map(|path| path.display().to_string());
    Ok(report)
}

fn check_plan(plan: &RestorePlan, target: &Path) -> Result<()> {
    if plan.kind != crate::KIND {
        return Err(VolumeError::Plan { reason: "the plan is for another kind of service".to_owned() });
    }
    if plan.details.get("target").is_some_and(|planned| *planned != target.display().to_string()) {
        return Err(VolumeError::Plan { reason: "the plan is for another directory".to_owned() });
    }
    match plan.missing.first() {
        Some(missing) => Err(VolumeError::Plan { reason: format!("the plan says that this is missing: {missing}") }),
        None => Ok(()),
    }
}

/// Hands the artifact over until its end, or until the thread has stopped.
async fn feed_all(data: &mut ArtifactReader, sender: mpsc::Sender<Feed>) -> stackkit_core::Result<()> {
    let mut buffer = BytesMut::new();
    while read_chunk(data, &mut buffer).await? {
        if sender.send(Feed::Data(buffer.split().freeze())).await.is_err() {
            return Ok(());
        }
    }
    // The thread that has gone tells why by itself.
    sender.send(Feed::End).await.ok();
    Ok(())
}

/// Replaces the content of `buffer` by the next bytes, a chunk at most; whether there were any.
async fn read_chunk(data: &mut ArtifactReader, buffer: &mut BytesMut) -> stackkit_core::Result<bool> {
    buffer.clear();
    buffer.reserve(CHUNK_BYTES);
    while buffer.len() < CHUNK_BYTES {
        let read = data.read_buf(buffer).await.map_err(|error| match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) => Error::io("read the artifact", error),
        })?;
        if read == 0 {
            break;
        }
    }
    Ok(!buffer.is_empty())
}

fn run(job: &Job, feed: mpsc::Receiver<Feed>, cancel: &Cancel) -> Result<(Census, Outcome), Failure> {
    let (staging, census, mut warnings) = stage(job, feed, cancel).map_err(|error| (error, TargetState::Old))?;
    let mut outcome = staging.swap(job.keep_old)?;
    warnings.append(outcome.warnings);
    outcome.warnings = warnings;
    Ok((census, outcome))
}

/// Everything before the swap: the old data is not touched.
fn stage(job: &Job, feed: mpsc::Receiver<Feed>, cancel: &Cancel) -> Result<(Staging, Census, Warnings)> {
    check_fingerprint(job, cancel)?;
    let replaced = statat(CWD, &job.target, AtFlags::empty()).ok().map(Meta::from);
    let staging = Staging::create(&job.target, job.now)?;
    let mut placer = Placer::new(staging.directory()?, replaced.as_ref());
    unpack(feed, &mut placer, cancel)?;
    let mut warnings = placer.finish()?;
    staging.sync()?;
    let (census, counted) = census::take(staging.path(), cancel)?;
    warnings.append(counted);
    let differences = job.expected.as_ref().map(|expected| expected.diff(&census)).unwrap_or_default();
    if !differences.is_empty() {
        return Err(VolumeError::Census { differences });
    }
    check_fingerprint(job, cancel)?;
    Ok((staging, census, warnings))
}

fn unpack(mut feed: mpsc::Receiver<Feed>, placer: &mut Placer, cancel: &Cancel) -> Result<()> {
    let mut reader = Reader::default();
    loop {
        cancel.check()?;
        match feed.blocking_recv() {
            Some(Feed::Data(bytes)) => {
                let mut input = &bytes[..];
                while let Some(event) = reader.next(&mut input)? {
                    placer.place(event)?;
                }
            }
            Some(Feed::End) => return Ok(reader.finish()?),
            None => return Err(VolumeError::Cancelled),
        }
    }
}

/// Before the work, because it may be in vain, and before the swap, because the target may change meanwhile.
fn check_fingerprint(job: &Job, cancel: &Cancel) -> Result<()> {
    let found = look(&job.target, cancel)?;
    match fingerprint_of(found.as_ref()) == job.fingerprint {
        true => Ok(()),
        false => Err(VolumeError::Stale { path: (&job.target).into() }),
    }
}

/// What the target is; `None` if it does not exist.
fn look(target: &Path, cancel: &Cancel) -> Result<Option<TreeStat>> {
    match statat(CWD, target, AtFlags::empty()) {
        Ok(_) => census::fingerprint(target, cancel).map(Some),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(os("stat", target)(errno)),
    }
}

fn fingerprint_of(found: Option<&TreeStat>) -> String {
    found.map_or_else(|| MISSING.to_owned(), |stat| stat.fingerprint.clone())
}

fn check_format(artifact: &ArtifactInfo) -> stackkit_core::Result<()> {
    match artifact.spec.format == FORMAT {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Unsupported, "the artifact is not a tar archive of this provider")
            .with_context("format", &artifact.spec.format)),
    }
}

/// Counts members as a census counts entries. Hard links do not tell their content before they are unpacked, so there is
/// no digest.
#[derive(Default)]
struct Counter {
    entries: u64,
    counts: Counts,
    warnings: Warnings,
}

impl Counter {
    /// Refuses the member if a restore would.
    fn count(&mut self, entry: &Entry) -> Result<()> {
        let refused = |reason| VolumeError::Refused { path: PathText::new(&entry.path), reason };
        let components = components(&entry.path).map_err(refused)?;
        self.entries += 1;
        let counts = &mut self.counts;
        match &entry.kind {
            EntryKind::File { size, .. } => {
                counts.files += 1;
                counts.bytes = counts.bytes.saturating_add(*size);
            }
            EntryKind::HardLink { .. } => counts.files += 1,
            EntryKind::Symlink { .. } => counts.symlinks += 1,
            EntryKind::Directory => counts.directories += u64::from(!components.is_empty()),
            EntryKind::Special { .. } => self.warnings.push(&entry.path, "a restore will skip this device or FIFO"),
        }
        Ok(())
    }
}
