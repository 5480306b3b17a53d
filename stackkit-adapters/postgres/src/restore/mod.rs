//! Carries a plan out: fill a database beside each target, compare, swap.

mod analyze;
mod blobs;
mod builder;
mod connections;
mod dumped;
mod features;
mod first;
mod grants;
mod hashes;
mod in_place;
mod key;
mod load;
pub(crate) mod parts;
mod preflight;
mod rows;
#[cfg(test)]
mod samples;
mod schedule;
pub(crate) mod script;
mod select;
mod session;
mod streams;
mod toc;
mod weights;
#[cfg(test)]
mod wide;
mod work;

use stackkit_core::backup::{ArtifactSource, RestoreContext, RestorePlan, RestoreReport, TargetState};
use stackkit_core::{Census, Error, ErrorKind, Result, Service};

use crate::archive::as_layout;
use crate::census;
use crate::client::Session;
use crate::dump::Server;
use crate::layout::DatabaseLayout;
use crate::options::Strategy;
use crate::plan::{KEPT_AS, STAGING, STRATEGY};
use crate::service::Postgres;
use crate::swap::{Pair, Swap};
use crate::target;

use hashes::Rereading;
use load::Loader;
use parts::Part;
pub(crate) use preflight::{Preflight, Room};
pub(crate) use rows::RowReader;
use script::Style;

/// How many differences of a census an error names; the rest is only counted.
const DIFFERENCES_SHOWN: usize = 5;

/// The end of the names of the hashes that the server computes.
const CONTENT: &str = ".content";

/// Options of a database where the archive tells none.
const OPTIONS_DEFAULT: &str = " WITH TEMPLATE = template0";

/// The restore of one database under way.
struct Job<'a> {
    part: &'a Part,
    source: &'a dyn ArtifactSource,
    expected: Option<Census>,
    admin: &'a Session,
    server: &'a Server,
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
        self.check_made_for(&plan, self.config().restore.strategy.as_str()).map_err(old)?;
        let source = as_layout(source).await.map_err(old)?;
        let parts = self.parts(source.source()).await.map_err(old)?;
        let admin = target::open_admin_beside(self.config(), &parts::names(&parts)).await.map_err(old)?;
        let pairs = pairs(&plan, &admin, &parts).await.map_err(old)?;
        let server = Server::of(&admin).await.map_err(old)?;
        let swap = Swap { service: self, admin: &admin, pairs, old_data: plan.old_data };
        let expected = |part: &Part| cx.expected.as_ref().map(|expected| part.expected(expected));
        let (source, admin, server) = (source.source(), &admin, &server);
        let each = parts.iter().zip(&swap.pairs);
        let jobs: Vec<Job<'_>> = each
            .map(|(part, pair)| Job { part, source, expected: expected(part), admin, server, staging: &pair.staging })
            .collect();
        let mut options = Vec::with_capacity(jobs.len());
        for job in &jobs {
            options.push(job.options().await.map_err(old)?);
        }
        swap.create(&options).await.map_err(old)?;
        match fill_and_swap(&jobs, &swap).await {
            Ok(report) => Ok(report),
            Err(error) => Err(swap.discard(error).await),
        }
    }

    /// Refuses a plan that lacks something, is another service's or for another `strategy`, or is stale.
    pub(crate) async fn check(&self, plan: &RestorePlan, strategy: &str) -> Result<()> {
        self.check_made_for(plan, strategy)?;
        match target::fingerprint(self.config()).await? == plan.fingerprint {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    fn check_made_for(&self, plan: &RestorePlan, strategy: &str) -> Result<()> {
        if plan.kind != self.kind() || plan.service != *self.id() {
            return Err(stale("the plan is of another service"));
        }
        if plan.details.get(STRATEGY).is_some_and(|made_for| made_for != strategy) {
            return Err(stale("the plan was made for another strategy"));
        }
        if let Some(missing) = plan.missing.first() {
            return Err(stale("the plan lacks something").with_context("missing", missing));
        }
        Ok(())
    }
}

/// Who changes places with whom; refuses a stale plan.
async fn pairs(plan: &RestorePlan, admin: &Session, parts: &[Part]) -> Result<Vec<Pair>> {
    let each = parts::fingerprints(parts).await?;
    if parts::fingerprint(admin, parts, &each).await? != plan.fingerprint {
        return Err(changed());
    }
    let detail = |name: String| plan.details.get(&name).cloned().ok_or_else(|| stale("the plan is not complete"));
    let pair = |(part, fingerprint): (&Part, &String)| {
        Ok(Pair {
            database: part.name().to_owned(),
            staging: detail(part.detail(STAGING))?,
            kept_as: detail(part.detail(KEPT_AS))?,
            replaces: !target::is_absent(fingerprint),
        })
    };
    parts.iter().zip(&each).map(pair).collect()
}

/// Fills and compares every database; then all take their places at once.
async fn fill_and_swap(jobs: &[Job<'_>], swap: &Swap<'_>) -> Result<RestoreReport> {
    let (mut census, mut warnings) = (Census::new(), Vec::new());
    for job in jobs {
        let is_alone = job.part.prefix.is_empty();
        let name = |error: Error| if is_alone { error } else { error.with_context("database", job.part.name()) };
        let (found, told) = job.fill().await.map_err(name)?;
        job.part.counted(found, &mut census);
        warnings.push(told);
    }
    let parts: Vec<&Part> = jobs.iter().map(|job| job.part).collect();
    let is_chosen = |part: &&Part| {
        let restore = &part.service.config().restore;
        !part.dumped.selection.is_all() || !restore.databases.is_empty()
    };
    let report = RestoreReport::new(swap.service.id().clone(), census).with_part(parts.iter().any(is_chosen));
    let report = report.with_warnings(parts::told(&parts, &warnings));
    swap.copy_properties().await?;
    let warnings = swap.run().await?;
    Ok(swap.settle_old(report.with_warnings(warnings)).await)
}

fn changed() -> Error {
    stale("the target changed since the plan was made; make a fresh plan")
}

pub(crate) fn stale(message: &str) -> Error {
    Error::new(ErrorKind::Incompatible, message)
}

impl Job<'_> {
    /// How the staging database is created: like the target, or as the archive says.
    async fn options(&self) -> Result<String> {
        let target = target::find(self.admin, &self.part.service.config().database).await?;
        let of_archive = self.part.dumped.contents.database_options().unwrap_or(OPTIONS_DEFAULT);
        Ok(target.map_or_else(|| of_archive.to_owned(), |target| target.options))
    }

    /// Fills the staging database and compares it with the dump's census. Gives what it holds, and warnings.
    async fn fill(&self) -> Result<(Census, Vec<String>)> {
        let config = self.part.service.config();
        let restore = &config.restore;
        let layout = self.part.dumped.layout.as_ref().ok_or_else(|| Error::unexpected("the dump has no layout"))?;
        let loader = Loader {
            config,
            source: self.source,
            database: self.staging,
            layout,
            toc: &self.part.dumped.toc,
            style: Style {
                owners: restore.owners.clone(),
                privileges: !restore.skip_privileges,
                sets_path: self.part.dumped.toc.sets_path(),
            },
            jobs: restore.jobs.unwrap_or_else(|| config.jobs_default()),
            selection: &self.part.dumped.selection,
        };
        let mut warnings = loader.run().await?;
        warnings.extend(self.compare_rows(layout).await?);
        let session = Session::open_long(config, self.staging).await?;
        Ok((self.compare(&session).await?, warnings))
    }

    /// Compares the rows with the hashes that the dump has of them. Other versions may print values differently.
    async fn compare_rows(&self, layout: &DatabaseLayout) -> Result<Vec<String>> {
        if layout.tables.iter().all(|file| file.row_hash.is_none()) {
            return Ok(Vec::new());
        }
        if !self.is_same_series() {
            return Ok(vec![hashes::OTHER_VERSION.to_owned()]);
        }
        let (config, dumped) = (self.part.service.config(), &self.part.dumped);
        let jobs = config.restore.jobs.unwrap_or_else(|| config.jobs_default());
        let (toc, selection) = (&dumped.toc, &dumped.selection);
        Rereading { config, database: self.staging, layout, toc, selection, jobs }.compare().await
    }

    fn is_same_series(&self) -> bool {
        let dumped = self.part.dumped.contents.header.server;
        dumped.is_some_and(|dumped| dumped.series() == self.server.version.series())
    }

    /// Hashes of content are compared within one release series only: other versions may print values differently.
    async fn compare(&self, session: &Session) -> Result<Census> {
        let has_content = |expected: &Census| expected.digests.keys().any(|name| name.ends_with(CONTENT));
        let digests = self.is_same_series() && self.expected.as_ref().is_some_and(has_content);
        let found = census::of_database(session, digests).await?;
        // Of a part of a dump, the rows of each table were compared while they were loaded.
        let expected = self.expected.as_ref().filter(|_| self.part.dumped.selection.is_all());
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
