//! Dump and restore of the store in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSink, ArtifactSource, ArtifactSpec, Consistency, DumpContext,
    DumpReport, Inspection, PlannedAction, PointInTime, RestoreAction, RestoreContext, RestoreOptions, RestorePlan,
    RestoreReport, TargetState, VendorInfo,
};
use stackkit_core::{BackupProvider, Census, Dump, Error, ErrorKind, Result, Service};

use crate::memory::{Data, MemoryStore, Objects, format, hash};

const ARTIFACT: &str = "objects";
const FORMAT: &str = "stackkit-memory";

#[derive(Debug)]
struct Pinned {
    snapshot: Arc<Objects>,
    data: Arc<Data>,
    point: PointInTime,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.data.held.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Dump for Pinned {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let spec = ArtifactSpec::new(ArtifactName::new(ARTIFACT)?, FORMAT)
            .with_restore_command("none: the format is for tests");
        let mut artifact = sink.create(spec).await?;
        let mut writer = format::Writer::default();
        artifact.write(writer.start().into()).await?;
        for (key, value) in self.snapshot.iter() {
            artifact.write(writer.record(key, value)?.into()).await?;
        }
        artifact.write(writer.end().into()).await?;
        artifact.finish().await?;
        let vendor = VendorInfo::new("memory").with_server_version(env!("CARGO_PKG_VERSION"));
        Ok(DumpReport::new(census(&self.snapshot), vendor))
    }
}

fn census(objects: &Objects) -> Census {
    let count = u64::try_from(objects.len()).unwrap_or(u64::MAX);
    Census::new().with_count("objects", count).with_digest("content", hash(objects))
}

impl MemoryStore {
    async fn replace(&self, plan: &RestorePlan, source: &dyn ArtifactSource, cx: &RestoreContext) -> Result<Census> {
        if !plan.missing.is_empty() {
            return Err(Error::config("the plan misses something").with_context("missing", plan.missing.join(", ")));
        }
        let data = self.connect()?;
        let objects = format::read(source.open(&ArtifactName::new(ARTIFACT)?).await?).await?;
        let census = census(&objects);
        let differences = cx.expected.as_ref().map(|expected| expected.diff(&census)).unwrap_or_default();
        if let Some(first) = differences.first() {
            return Err(Error::integrity("the restored data is not what was dumped").with_context("first", first));
        }
        data.objects(|held| {
            if hash(held) != plan.fingerprint {
                return Err(Error::new(ErrorKind::Incompatible, "the store changed since the plan was made"));
            }
            *held = Arc::new(objects);
            Ok(census)
        })
    }
}

#[async_trait]
impl BackupProvider for MemoryStore {
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        let data = Arc::clone(self.connect()?);
        data.held.fetch_add(1, Ordering::SeqCst);
        let point = PointInTime::new(cx.clock.now(), Consistency::Snapshot);
        Ok(Box::new(Pinned { snapshot: data.snapshot(), data, point }))
    }

    async fn inspect(&self, artifact: &ArtifactInfo, data: ArtifactReader) -> Result<Inspection> {
        if artifact.spec.format != FORMAT {
            return Err(Error::new(ErrorKind::Unsupported, "the artifact has the format of another provider"));
        }
        let objects = format::read(data).await?;
        // The end counts too, so that the artifact of an empty store has an entry.
        let entries = u64::try_from(objects.len()).unwrap_or(u64::MAX).saturating_add(1);
        Ok(Inspection::new(entries).with_census(census(&objects)))
    }

    async fn plan_restore(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan> {
        let objects = self.connect()?.snapshot();
        let artifact = source.info(&ArtifactName::new(ARTIFACT)?).map_err(self.named("plan"))?;
        let mut plan = RestorePlan::new(self.id().clone(), self.kind(), hash(&objects));
        plan.artifacts.push(artifact.name().clone());
        plan.old_data = options.old_data;
        let action = if objects.is_empty() { RestoreAction::Create } else { RestoreAction::Overwrite };
        plan.actions.push(PlannedAction::new(action, "all objects"));
        Ok(plan)
    }

    async fn restore(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        // The swap is the last step and can't fail, so every error leaves the old data.
        let replaced = self.replace(&plan, source, cx).await;
        let census = replaced.map_err(|error| self.named("restore")(error.with_target(TargetState::Old)))?;
        Ok(RestoreReport::new(self.id().clone(), census))
    }

    async fn census(&self) -> Result<Census> {
        Ok(census(&self.connect()?.snapshot()))
    }
}
