//! Carries a plan out: fill a database beside the target, compare, swap.

mod analyze;
mod blobs;
mod dumped;
mod key;
mod load;
mod rows;
#[cfg(test)]
mod samples;
mod schedule;
mod script;
mod session;
mod toc;
mod work;

use bytes::Bytes;
use stackkit_core::backup::{ArtifactName, ArtifactSource, RestoreContext, RestorePlan, RestoreReport, TargetState};
use stackkit_core::{Census, Error, ErrorKind, Result, Service};

use crate::census;
use crate::client::Session;
use crate::dump::{ARTIFACT, Server};
use crate::inspect;
use crate::options::JOBS_MAX_DEFAULT;
use crate::plan::{KEPT_AS, STAGING, restorer};
use crate::service::Postgres;
use crate::sql::conninfo;
use crate::swap::Swap;
use crate::target;
use crate::tools;

pub(crate) use dumped::Dumped;
use load::Loader;
use script::Style;

/// How many differences of a census an error names; the rest is only counted.
const DIFFERENCES_SHOWN: usize = 5;

/// Options of a database where the archive tells none.
const OPTIONS_DEFAULT: &str = " WITH TEMPLATE = template0";

/// One restore under way.
struct Job<'a> {
    service: &'a Postgres,
    source: &'a dyn ArtifactSource,
    expected: Option<&'a Census>,
    admin: Session,
    server: Server,
    dumped: Dumped,
    staging: &'a str,
}

impl Postgres {
    pub(crate) async fn apply(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        let old = |error: Error| error.with_target(TargetState::Old);
        let detail = |name: &str| {
            plan.details.get(name).map(String::as_str).ok_or_else(|| old(stale("the plan is not complete")))
        };
        let (staging, kept_as) = (detail(STAGING)?, detail(KEPT_AS)?);
        self.check(&plan).await.map_err(old)?;
        let job = self.job(source, cx, staging).await.map_err(old)?;
        let exists = !target::is_absent(&plan.fingerprint);

        let database = self.config().database.as_str();
        let old_data = plan.old_data;
        let swap = Swap { service: self, admin: &job.admin, database, staging, kept_as, old_data };
        swap.create(&job.options().await.map_err(old)?).await.map_err(old)?;
        let swapped = async {
            let (census, warnings) = job.fill().await?;
            let report = RestoreReport::new(self.id().clone(), census).with_warnings(warnings);
            if !exists {
                swap.rename_staging().await?;
                return Ok(report);
            }
            swap.copy_properties().await?;
            let warnings = swap.run().await?;
            Ok(swap.settle_old(report.with_warnings(warnings)).await)
        };
        match swapped.await {
            Ok(report) => Ok(report),
            Err(error) => Err(swap.discard(error).await),
        }
    }

    /// Refuses a plan that lacks something, is another service's, or is stale.
    async fn check(&self, plan: &RestorePlan) -> Result<()> {
        if plan.kind != self.kind() || plan.service != *self.id() {
            return Err(stale("the plan is of another service"));
        }
        if let Some(missing) = plan.missing.first() {
            return Err(stale("the plan lacks something").with_context("missing", missing));
        }
        if target::fingerprint(self.config()).await? != plan.fingerprint {
            return Err(stale("the target changed since the plan was made; make a fresh plan"));
        }
        Ok(())
    }

    async fn job<'a>(
        &'a self,
        source: &'a dyn ArtifactSource,
        cx: &'a RestoreContext,
        staging: &'a str,
    ) -> Result<Job<'a>> {
        let dumped = Dumped::read(source).await?;
        let admin = target::open_admin(self.config()).await?;
        let server = Server::of(&admin).await?;
        Ok(Job { service: self, source, expected: cx.expected.as_ref(), admin, server, dumped, staging })
    }
}

fn stale(message: &str) -> Error {
    Error::new(ErrorKind::Incompatible, message)
}

impl Job<'_> {
    /// How the staging database is created: like the target, or as the archive says.
    async fn options(&self) -> Result<String> {
        let target = target::find(&self.admin, &self.service.config().database).await?;
        let of_archive = self.dumped.contents.database_options().unwrap_or(OPTIONS_DEFAULT);
        Ok(target.map_or_else(|| of_archive.to_owned(), |target| target.options))
    }

    /// Fills the staging database and compares it with the dump's census. Gives what it holds, and warnings.
    async fn fill(&self) -> Result<(Census, Vec<String>)> {
        let mut warnings = match &self.dumped.layout {
            Some((layout, toc)) => {
                let config = self.service.config();
                let style = Style {
                    owners: config.restore.owners.clone(),
                    privileges: !config.restore.skip_privileges,
                    sets_path: toc.sets_path(),
                };
                let jobs = config.restore.jobs.unwrap_or(JOBS_MAX_DEFAULT);
                let (source, database) = (self.source, self.staging);
                Loader { config, source, database, layout, toc, style, jobs, is_wanted: &|_| true }.run().await?
            }
            None => self.load_archive().await?,
        };
        let session = Session::open_long(self.service.config(), self.staging).await?;
        // Without statistics the first queries after the swap would be planned blindly. It fails where a foreign table
        // is a child of another one and its server is away: no reason to lose the restore.
        if self.dumped.layout.is_none()
            && let Err(error) = session.execute("ANALYZE").await
        {
            warnings.push(format!("statistics were not gathered for every table; run ANALYZE: {error}"));
        }
        Ok((self.compare(&session).await?, warnings))
    }

    /// Lets `pg_restore` load an archive in one piece. Gives what it had to say.
    async fn load_archive(&self) -> Result<Vec<String>> {
        let tool = restorer(self.service, &self.dumped.contents, &self.server).await?;
        let child = tool
            .command(self.service.config(), self.staging)?
            .args(["--format=custom", "--exit-on-error", "--no-password"])
            .arg(format!("--dbname=dbname={}", conninfo(self.staging)))
            // Nothing is promised before the swap, whose commit comes later in the log and flushes all before it.
            .env("PGOPTIONS", "-c synchronous_commit=off")
            .stdin_piped()
            .spawn()?;
        let data = self.source.open(&ArtifactName::new(ARTIFACT)?).await?;
        let stderr = inspect::feed(child, Bytes::new(), data, |_chunk| Ok(())).await?;
        Ok(tools::lines(&stderr))
    }

    /// Hashes of content are compared within one release series only: other versions may print values differently.
    async fn compare(&self, session: &Session) -> Result<Census> {
        let same_series =
            self.dumped.contents.header.server.is_some_and(|dumped| dumped.series() == self.server.version.series());
        let digests = same_series && self.expected.is_some_and(|expected| !expected.digests.is_empty());
        let found = census::of_database(session, digests).await?;
        let differences = self.expected.map(|expected| expected.diff(&found)).unwrap_or_default();
        if differences.is_empty() {
            return Ok(found);
        }
        let shown: Vec<String> = differences.iter().take(DIFFERENCES_SHOWN).map(ToString::to_string).collect();
        Err(Error::integrity("the restored data is not what was dumped")
            .with_context("differences", differences.len())
            .with_context("first", shown.join("; ")))
    }
}
