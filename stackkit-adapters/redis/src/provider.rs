//! The provider's methods, each a thin entry to its own file.

use async_trait::async_trait;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactReader, ArtifactSource, DumpContext, Inspection, RestoreContext, RestoreOptions, RestorePlan,
    RestoreReport,
};
use stackkit_core::{BackupProvider, Census, Dump, Result};

use crate::census;
use crate::dump::{FORMAT, foreign, scan_all, warnings};
use crate::service::Redis;

#[async_trait]
impl BackupProvider for Redis {
    /// Becomes a replica that wants one RDB and no commands.
    ///
    /// The point is the replication offset that the server names. It forks in the same turn of its event loop, so what
    /// is written after this returns is not in the dump. Two cases are different: a server that already saves for
    /// another replica shares that save, whose position it then names; and a data set of 1 GiB or more is streamed, for
    /// which the server first waits `repl-diskless-sync-delay` (5 s by default).
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        let dump = self.begin_dump(cx).await.map_err(self.named("begin a dump"))?;
        Ok(Box::new(dump))
    }

    async fn inspect(&self, artifact: &ArtifactInfo, mut data: ArtifactReader) -> Result<Inspection> {
        if artifact.spec.format != FORMAT {
            return Err(self.named("inspect")(foreign(&artifact.spec.format)));
        }
        let summary = scan_all(&mut data).await.map_err(self.named("inspect"))?;
        let inspection = match &summary.content {
            Ok(content) => Inspection::new(content.counts.total().keys).with_census(census::of_content(content)),
            Err(_) => Inspection::default(),
        };
        Ok(inspection.with_warnings(warnings(&summary)))
    }

    async fn plan_restore(&self, source: &dyn ArtifactSource, _options: &RestoreOptions) -> Result<RestorePlan> {
        self.plan(source).await.map_err(self.named("plan a restore"))
    }

    /// Replaces everything that the server holds, all databases and functions.
    ///
    /// Before the first write the whole file is read: a checksum that does not fit, or a record that is not understood,
    /// leaves the old data untouched. A server has no place to keep it, so it is removed before the first key is
    /// restored; from then on an error or a dropped future leaves a part of the file's keys. Call it again with a fresh
    /// plan.
    async fn restore(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        self.apply(&plan, source, cx).await.map_err(self.named("restore"))
    }

    async fn census(&self) -> Result<Census> {
        self.count_live().await.map_err(self.named("census"))
    }
}
