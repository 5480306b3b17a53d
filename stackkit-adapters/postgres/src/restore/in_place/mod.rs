//! A restore into the database itself: one connection drops what the dump holds, makes it again and fills it, in one
//! transaction. Until its end everybody else sees the old data, or waits for it.

mod around;
mod commit;
mod defaults;
mod live;
mod locks;
mod parts;
mod plan;

use std::collections::BTreeSet;

use std::collections::HashSet;

use stackkit_core::backup::{ArtifactSource, RestoreContext, RestorePlan, RestoreReport, TargetState};
use stackkit_core::{Census, Error, ErrorKind, Result, Service};

use super::hashes::{OTHER_VERSION, Rereading};
use super::load::Loader;
use super::script::{Script, Style};
use super::select::Selection;
use super::session::{Loading, named};
use super::{CONTENT, DIFFERENCES_SHOWN, analyze, changed, stale};
use crate::archive::as_layout;
use crate::census;
use crate::client::Session;
use crate::dump::Server;
use crate::error::Reply;
use crate::layout::DatabaseLayout;
use crate::restore::dumped::Dumped;
use crate::service::Postgres;
use crate::toc::is_of_server;
use crate::wire::Wire;
use around::{Again, Around};
use live::{Dependent, Live};
use locks::Barred;
use parts::Parts;

/// The SQLSTATE of a right that is missing.
const DENIED: &str = "42501";

/// The SQLSTATE of something that others hang on (`dependent_objects_still_exist`).
const HANGS_ON: &str = "2BP01";

/// The SQLSTATEs of making what is there: a schema, a relation or type, an object, a function, a database's language.
const THERE: [&str; 4] = ["42P06", "42P07", "42710", "42723"];

/// How much of the server's list of what hangs on something an error shows.
const DETAIL_CHARS: usize = 500;

/// One restore under way.
struct InPlace<'a> {
    service: &'a Postgres,
    source: &'a dyn ArtifactSource,
    dumped: &'a Dumped,
    layout: &'a DatabaseLayout,
    parts: &'a Parts<'a>,
    expected: Option<&'a Census>,
    style: Style,
    /// What is replaced, as the plan saw it.
    fingerprint: &'a str,
}

impl Postgres {
    /// # Cancel safety
    /// Dropping the future ends the connection, and the server undoes everything.
    pub(crate) async fn restore_in_place(
        &self,
        plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        let old = |error: Error| match error.target() {
            None => error.with_target(TargetState::Old),
            Some(_) => error,
        };
        self.check_made_for(&plan, self.config().restore.strategy.as_str()).map_err(old)?;
        let source = as_layout(source).await.map_err(old)?;
        let dumped = Dumped::read(source.source(), &self.config().restore).await.map_err(old)?;
        let Some(layout) = &dumped.layout else { return Err(old(stale("the dump has no layout"))) };
        let parts = Parts::of(&dumped.toc.entries, &dumped.selection);
        let restore = &self.config().restore;
        let style = Style {
            owners: restore.owners.clone(),
            privileges: !restore.skip_privileges,
            sets_path: dumped.toc.sets_path(),
        };
        let job = InPlace {
            service: self,
            source: source.source(),
            dumped: &dumped,
            layout,
            parts: &parts,
            expected: cx.expected.as_ref(),
            style,
            fingerprint: &plan.fingerprint,
        };
        let (census, warnings) = job.run().await.map_err(old)?;
        // What the dump does not hold stays, and what was not chosen is as it was.
        Ok(RestoreReport::new(self.id().clone(), census).with_part(true).with_warnings(warnings))
    }
}

impl InPlace<'_> {
    async fn run(&self) -> Result<(Census, Vec<String>)> {
        let config = self.service.config();
        let mut loading = Loading::open(config, &config.database, &self.dumped.toc, 1).await?;
        loading.in_transaction = true;
        match self.replace(&mut loading).await {
            Ok(done) => Ok(done),
            Err(error) => Err(locks::named(&mut loading.wire, self.parts, Barred::Dropping, error).await),
        }
    }

    /// The transaction.
    async fn replace(&self, loading: &mut Loading) -> Result<(Census, Vec<String>)> {
        let config = self.service.config();
        // Others hold locks here, unlike in a database that is being filled.
        let wait = config.lock_timeout.as_millis().max(1);
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {wait}");
        loading.wire.execute(begin.as_bytes()).await?;
        let around = self.drop_old(loading).await?;
        let defaults = defaults::set_aside(&mut loading.wire, self.parts, self.style.privileges).await?;
        self.keep(loading).await?;
        self.fill(loading, &around.places).await?;
        for sql in &defaults {
            loading.wire.execute(sql.as_bytes()).await?;
        }
        make_again(loading, &around.keys).await?;
        let census = self.compare(loading).await?;
        let lost = commit::commit(config, loading).await?;
        let mut warnings = std::mem::take(&mut loading.warnings);
        warnings.extend(lost);
        warnings.extend(self.analyze(loading).await);
        Ok((census, warnings))
    }

    /// Makes and fills everything. A partition gets its place when it has its indexes, as the server would make others, and
    /// before anything is said of the triggers that it has from there.
    async fn fill(&self, loading: &mut Loading, places: &[Again]) -> Result<()> {
        let config = self.service.config();
        let all = self.parts.ids();
        let late = if places.is_empty() { BTreeSet::new() } else { self.parts.of_inherited_triggers() };
        let early = Selection::of(all.difference(&late).copied().collect());
        let late = Selection::of(late);
        let loader = |selection| Loader {
            config,
            source: self.source,
            database: &config.database,
            layout: self.layout,
            toc: &self.dumped.toc,
            style: self.style.clone(),
            jobs: 1,
            selection,
        };
        loader(&early).fill(std::slice::from_mut(loading)).await?;
        if !places.is_empty() {
            make_again(loading, places).await?;
            loader(&late).fill(std::slice::from_mut(loading)).await?;
        }
        Ok(())
    }

    /// Locks every table that is dropped, and refuses the plan if what is dropped is not what it saw. Each statement sees
    /// what was committed before it, so nothing that was written before the locks is missed.
    async fn lock_old(&self, wire: &mut Wire) -> Result<(Vec<Live>, Vec<Dependent>)> {
        let objects = live::objects(wire, self.parts, false).await?;
        locks::lock_all(wire, &objects).await?;
        let dependents = live::dependents(wire, &objects, self.parts).await?;
        locks::lock(wire, &locks::tables_beside(&dependents)).await?;
        if self.parts.blobs_count() > 0 {
            locks::lock_blobs(wire).await?;
        }
        match locks::fingerprint(wire, self.parts, &objects, &dependents).await? == self.fingerprint {
            true => Ok((objects, dependents)),
            false => Err(changed()),
        }
    }

    /// Drops what the dump holds. Gives what is made again around it.
    async fn drop_old(&self, loading: &mut Loading) -> Result<Around> {
        let (objects, dependents) = self.lock_old(&mut loading.wire).await?;
        if let Some(first) = dependents.first().filter(|_| !self.service.config().restore.force) {
            let error = Error::new(ErrorKind::Incompatible, "something that is not restored hangs on what is replaced");
            return Err(error.with_context("what", &first.what).with_context("count", dependents.len()));
        }
        let mut around = match self.dumped.selection.is_all() {
            true => Around::default(),
            false => Around::of(&mut loading.wire, &objects).await?,
        };
        around.keys.extend(dependents.into_iter().filter_map(|key| Some((key.what, key.again?))));
        for (entry, sql) in self.parts.drops_before() {
            loading.send(&sql).await.map_err(|error| named(hanging(error), entry, &sql))?;
        }
        for object in &objects {
            let dropped = loading.wire.execute(object.drop().as_bytes()).await;
            dropped.map_err(|error| error.with_context("entry", format!("{} {}", object.kind, object.name)))?;
        }
        for (entry, sql) in self.parts.drops_after() {
            loading.send(&sql).await.map_err(|error| named(hanging(error), entry, &sql))?;
        }
        for sql in self.parts.drops_blobs() {
            loading.wire.rows(&sql).await?;
        }
        Ok(around)
    }

    /// Makes what is needed where it is missing, and leaves it alone where it is there.
    async fn keep(&self, loading: &mut Loading) -> Result<()> {
        for entry in &self.parts.kept {
            // What is there undoes what was set for it, so nothing is remembered from one to the next.
            let sql = Script::default().write(entry, &self.style, &std::collections::BTreeMap::new());
            match loading.send(&sql).await {
                Ok(()) => {}
                Err(error) if error.code().is_some_and(|code| THERE.contains(&code)) => {}
                Err(error) if error.code() == Some(DENIED) && is_of_server(entry) => {
                    let what = format!("{} {}", entry.kind, entry.tag);
                    loading.warnings.push(format!("the owner of {what} stays as it is: this role may not change it"));
                }
                Err(error) => return Err(named(error, entry, &sql)),
            }
        }
        Ok(())
    }

    /// Compares what the transaction sees with what was dumped. The target may hold more than the dump.
    async fn compare(&self, loading: &mut Loading) -> Result<Census> {
        loading.wire.execute(b"SET LOCAL search_path = pg_catalog; SET LOCAL client_encoding = 'UTF8'").await?;
        let server = loading.wire.rows("SHOW server_version").await?;
        let version = server.first().map(|row| crate::wire::value(row, 0)).transpose()?.unwrap_or_default();
        let dumped = self.dumped.contents.header.server;
        let same_series =
            crate::tools::Version::parse(version).zip(dumped).is_some_and(|(a, b)| a.series() == b.series());
        let has_content = |expected: &Census| expected.digests.keys().any(|name| name.ends_with(CONTENT));
        let digests = same_series && self.expected.is_some_and(has_content);
        if self.layout.tables.iter().any(|file| file.row_hash.is_some()) {
            let warnings = self.compare_rows(&mut loading.wire, same_series).await?;
            loading.warnings.extend(warnings);
        }
        let only: Option<HashSet<(&str, &str)>> =
            (!self.dumped.selection.is_all()).then(|| self.parts.relations().into_iter().collect());
        let found = census::of_transaction(&mut loading.wire, digests, only.as_ref()).await?;
        // Of a part of a dump, the rows of each table were compared while they were loaded.
        let Some(expected) = self.expected.filter(|_| self.dumped.selection.is_all()) else { return Ok(found) };
        let differences = differences(expected, &found);
        if differences.is_empty() {
            return Ok(found);
        }
        let shown: Vec<&str> = differences.iter().take(DIFFERENCES_SHOWN).map(String::as_str).collect();
        Err(Error::integrity("the restored data is not what was dumped")
            .with_context("differences", differences.len())
            .with_context("first", shown.join("; ")))
    }

    /// Compares what the transaction loaded with the hashes that the dump has of it.
    async fn compare_rows(&self, wire: &mut Wire, same_series: bool) -> Result<Vec<String>> {
        if !same_series {
            return Ok(vec![OTHER_VERSION.to_owned()]);
        }
        let config = self.service.config();
        let (layout, toc, selection) = (self.layout, &self.dumped.toc, &self.parts.selection());
        let rereading = Rereading { config, database: &config.database, layout, toc, selection, jobs: 1 };
        rereading.compare_on(wire).await
    }

    /// After the commit nothing may fail the restore any more.
    async fn analyze(&self, loading: &mut Loading) -> Vec<String> {
        loading.in_transaction = false;
        match analyze::run(std::slice::from_mut(loading)).await {
            Ok(warnings) => warnings,
            Err(error) => vec![format!("statistics were not gathered; run ANALYZE: {error}")],
        }
    }
}

async fn make_again(loading: &mut Loading, again: &[Again]) -> Result<()> {
    for (what, sql) in again {
        let made = loading.wire.execute(sql.as_bytes()).await;
        made.map_err(|error| error.with_context("made_again", what))?;
    }
    Ok(())
}

/// What of `expected` is not in `found`. Counts of objects may be higher: the target keeps what the dump does not hold.
fn differences(expected: &Census, found: &Census) -> Vec<String> {
    let is_less = |name: &str, wanted: u64| match name.starts_with("objects.") {
        true => found.count(name) < wanted,
        false => found.counts.get(name) != Some(&wanted),
    };
    let counts = expected.counts.iter().filter(|(name, wanted)| is_less(name, **wanted));
    let counts = counts.map(|(name, wanted)| format!("{name}: {} instead of {wanted}", found.count(name)));
    let of_content = |name: &&String| name.ends_with(CONTENT) && found.digests.contains_key(*name);
    let digests = expected.digests.keys().filter(of_content);
    let digests = digests.filter(|name| expected.digests.get(*name) != found.digests.get(*name));
    counts.chain(digests.map(|name| format!("{name} differs"))).collect()
}

/// The error of a drop, with what hangs on the object.
fn hanging(error: Error) -> Error {
    if error.code() != Some(HANGS_ON) {
        return error;
    }
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Reply>());
    let detail: Option<String> = source.map(|reply| reply.detail.chars().take(DETAIL_CHARS).collect());
    match detail {
        Some(detail) => error.with_context("hang_on_it", detail.replace('\n', "; ")),
        None => error,
    }
}
