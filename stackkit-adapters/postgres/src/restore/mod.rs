//! Carries a plan out: fill a database beside the target, compare, swap.

mod analyze;
mod blobs;
mod dumped;
mod features;
mod grants;
mod in_place;
mod key;
mod load;
mod preflight;
mod rows;
#[cfg(test)]
mod samples;
mod schedule;
pub(crate) mod script;
mod select;
mod session;
mod toc;
mod work;

use stackkit_core::backup::{ArtifactSource, RestoreContext, RestorePlan, RestoreReport, TargetState};
use stackkit_core::{Census, Error, ErrorKind, Result, Service};

use crate::archive::as_layout;
use crate::census;
use crate::client::Session;
use crate::dump::Server;
use crate::options::Strategy;
use crate::plan::{KEPT_AS, STAGING, STRATEGY};
use crate::service::Postgres;
use crate::swap::Swap;
use crate::target;

pub(crate) use dumped::Dumped;
use load::Loader;
pub(crate) use preflight::Preflight;
pub(crate) use rows::RowReader;
use script::Style;

/// How many differences of a census an error names; the rest is only counted.
const DIFFERENCES_SHOWN: usize = 5;

/// The end of the names of the hashes that the server computes.
const CONTENT: &str = ".content";

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
        if self.config().restore.strategy == Strategy::InPlaceSingleTransaction {
            return self.restore_in_place(plan, source, cx).await;
        }
        self.filled().replace(plan, source, cx).await
    }

    /// A handle on the database that a restore fills: the configured one, or the new one.
    pub(crate) fn filled(&self) -> Self {
        match &self.config().restore.strategy {
            Strategy::IntoNew(name) => Self::new(self.config().clone().with_database(name)).with_id(self.id().as_str()),
            _ => self.clone(),
        }
    }

    async fn replace(
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
        self.check(&plan, self.config().restore.strategy.as_str()).await.map_err(old)?;
        let source = as_layout(source).await.map_err(old)?;
        let job = self.job(source.source(), cx, staging).await.map_err(old)?;
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

    /// Refuses a plan that lacks something, is another service's or for another `strategy`, or is stale.
    pub(crate) async fn check(&self, plan: &RestorePlan, strategy: &str) -> Result<()> {
        if plan.kind != self.kind() || plan.service != *self.id() {
            return Err(stale("the plan is of another service"));
        }
        if plan.details.get(STRATEGY).is_some_and(|made_for| made_for != strategy) {
            return Err(stale("the plan was made for another strategy"));
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
        let dumped = Dumped::read(source, &self.config().restore).await?;
        let admin = target::open_admin(self.config()).await?;
        let server = Server::of(&admin).await?;
        Ok(Job { service: self, source, expected: cx.expected.as_ref(), admin, server, dumped, staging })
    }
}

pub(crate) fn stale(message: &str) -> Error {
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
        let config = self.service.config();
        let restore = &config.restore;
        let layout = self.dumped.layout.as_ref().ok_or_else(|| Error::unexpected("the dump has no layout"))?;
        let loader = Loader {
            config,
            source: self.source,
            database: self.staging,
            layout,
            toc: &self.dumped.toc,
            style: Style {
                owners: restore.owners.clone(),
                privileges: !restore.skip_privileges,
                sets_path: self.dumped.toc.sets_path(),
            },
            jobs: restore.jobs.unwrap_or_else(|| config.jobs_default()),
            selection: &self.dumped.selection,
        };
        let warnings = loader.run().await?;
        let session = Session::open_long(config, self.staging).await?;
        Ok((self.compare(&session).await?, warnings))
    }

    /// Hashes of content are compared within one release series only: other versions may print values differently.
    async fn compare(&self, session: &Session) -> Result<Census> {
        let same_series =
            self.dumped.contents.header.server.is_some_and(|dumped| dumped.series() == self.server.version.series());
        let has_content = |expected: &Census| expected.digests.keys().any(|name| name.ends_with(CONTENT));
        let digests = same_series && self.expected.is_some_and(has_content);
        let found = census::of_database(session, digests).await?;
        // Of a part of a dump, the rows of each table were compared while they were loaded.
        let expected = self.expected.filter(|_| self.dumped.selection.is_all());
        let differences = expected.map(|expected| expected.diff(&found)).unwrap_or_default();
        if differences.is_empty() {
            return Ok(found);
        }
        let shown: Vec<String> = differences.iter().take(DIFFERENCES_SHOWN).map(ToString::to_string).collect();
        Err(Error::integrity("the restored data is not what was dumped")
            .with_context("differences", differences.len())
            .with_context("first", shown.join("; ")))
    }
}
