//! What the backup engine calls.

use async_trait::async_trait;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactReader, ArtifactSource, DumpContext, Inspection, RestoreContext, RestoreOptions, RestorePlan,
    RestoreReport,
};
use stackkit_core::{BackupProvider, Census, Dump, ErrorKind, Result};

use crate::census;
use crate::client::Session;
use crate::inspect;
use crate::pooler;
use crate::service::Postgres;

/// Dumps by connections of its own on a snapshot that this process holds, where `pg_dump` tells the table of contents;
/// restores by connections of its own into a database beside the target, which then takes the target's place.
///
/// A restore whose future is dropped leaves the target as it was, unless it was within the swap, and a half-filled
/// database called `…__sk_<time>`, which the next plan names.
#[async_trait]
impl BackupProvider for Postgres {
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        let pin = async {
            pooler::refuse(self.config()).await?;
            self.pin(cx).await
        };
        pin.await.map_err(self.named("begin"))
    }

    async fn inspect(&self, artifact: &ArtifactInfo, data: ArtifactReader) -> Result<Inspection> {
        inspect::inspect(artifact, data).await.map_err(self.named("inspect"))
    }

    async fn plan_restore(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan> {
        let plan = async {
            match pooler::refuse(self.config()).await {
                // There is no such database yet; before the first write another one is asked.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                looked => looked?,
            }
            self.plan(source, options).await
        };
        plan.await.map_err(self.named("plan_restore"))
    }

    async fn restore(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        self.apply(plan, source, cx).await.map_err(self.named("restore"))
    }

    async fn census(&self) -> Result<Census> {
        let count = async {
            pooler::refuse(self.config()).await?;
            let session = Session::open_long(self.config(), &self.config().database).await?;
            census::of_database(&session, self.config().content_digests).await
        };
        count.await.map_err(self.named("census"))
    }
}
