//! The backup engine's view of a base backup.

use async_trait::async_trait;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactReader, ArtifactSource, DumpContext, Inspection, RestoreContext, RestoreOptions, RestorePlan,
    RestoreReport,
};
use stackkit_core::{BackupProvider, Census, Dump, Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;

use crate::client::{Session, number};
use crate::physical::verify::Verifier;
use crate::physical::{BaseBackup, FORMAT};

/// How much of an artifact is read at a time; one buffer is all that is held.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// Dumps with `pg_basebackup`, restores by extracting the archive into a directory that is made for it.
///
/// A restore whose future is dropped leaves the target as it was, and a directory beside it whose name ends in
/// `.partial`, which the next plan names and removes.
#[async_trait]
impl BackupProvider for BaseBackup {
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        Ok(Box::new(self.pin(cx).await.map_err(self.named("begin"))?))
    }

    async fn inspect(&self, artifact: &ArtifactInfo, data: ArtifactReader) -> Result<Inspection> {
        let inspected = async {
            check_format(artifact)?;
            read_whole(data).await
        };
        inspected.await.map_err(self.named("inspect"))
    }

    async fn plan_restore(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan> {
        self.plan(source, options).await.map_err(self.named("plan_restore"))
    }

    async fn restore(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        self.apply(plan, source, cx).await.map_err(self.named("restore"))
    }

    /// Counts the databases of the running cluster; its files change while they are counted.
    async fn census(&self) -> Result<Census> {
        let count = async {
            let session = Session::open_long(self.config(), &self.config().database).await?;
            let row = session.row("SELECT count(*) FROM pg_database").await?;
            Ok(Census::new().with_count("databases", number(&row, 0)?))
        };
        count.await.map_err(self.named("census"))
    }
}

/// Refuses artifacts of another kind.
pub(crate) fn check_format(artifact: &ArtifactInfo) -> Result<()> {
    if artifact.spec.format == FORMAT {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unsupported, "the artifact is not a base backup in tar format");
    Err(error.with_context("artifact", artifact.name()).with_context("format", &artifact.spec.format))
}

async fn read_whole(mut data: ArtifactReader) -> Result<Inspection> {
    let mut verifier = Verifier::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = read(&mut data, &mut buffer).await?;
        if read.is_empty() {
            let verified = verifier.finish()?;
            let files = verified.census.count("files");
            return Ok(Inspection::new(files).with_census(verified.census).with_warnings(verified.warnings));
        }
        verifier.push(read)?;
    }
}

/// The next piece; empty at the end. The storage's own error travels inside that of the reader.
pub(crate) async fn read<'a>(data: &mut ArtifactReader, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    match data.read(buffer).await {
        Ok(count) => Ok(buffer.get(..count).unwrap_or_default()),
        Err(error) => Err(error.downcast::<Error>().unwrap_or_else(|error| Error::io("read the artifact", error))),
    }
}
