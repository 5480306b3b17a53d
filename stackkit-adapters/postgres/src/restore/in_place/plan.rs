//! What a restore in place would do.

use stackkit_core::backup::{ArtifactSource, PlannedAction, RestoreAction, RestoreOptions, RestorePlan};
use stackkit_core::{Error, ErrorKind, Result, Service};

use super::{Around, Barred, Dependent, Dumped, Live, Parts, Server, Session, live, locks};
use crate::plan::{Needs, STRATEGY};
use crate::restore::Preflight;
use crate::service::Postgres;
use crate::target;
use crate::wire::Wire;

/// The encoding that names of a dump must be in to be looked up.
const ENCODING: &str = "'UTF8'";

impl Postgres {
    pub(crate) async fn plan_in_place(
        &self,
        source: &dyn ArtifactSource,
        _options: &RestoreOptions,
    ) -> Result<RestorePlan> {
        let config = self.config();
        let mut dumped = Dumped::read(source, &config.restore).await?;
        config.restore.owners.apply(&mut dumped.contents.owners);
        let admin = target::open_admin(config).await?;
        let server = Server::of(&admin).await?;
        if server.standby {
            return Err(Error::new(ErrorKind::Incompatible, "the server is a standby; restore on its primary"));
        }
        let mut plan = RestorePlan::new(self.id().clone(), self.kind(), "");
        plan.artifacts = dumped.artifacts(source)?;
        plan.details.insert(STRATEGY.to_owned(), config.restore.strategy.as_str().to_owned());
        let Some(target) = target::find(&admin, &config.database).await? else {
            plan.missing.push(format!("the database {}, which a restore in place restores into", config.database));
            plan.fingerprint = target::fingerprint(config).await?;
            return Ok(plan);
        };
        let needs = Needs { admin: &admin, contents: Some(&dumped.contents), database: &config.database, force: false };
        plan.missing = needs.missing_of(&dumped.contents).await?;
        let preflight =
            Preflight { service: self, admin: &admin, server: &server, dumped: &dumped, source, target: Some(&target) };
        let found = preflight.run().await?;
        plan.missing.extend(found.missing);
        plan.missing.extend(found.room.missing());
        plan.warnings.extend(found.warnings);
        self.add_objects(&mut plan, &dumped, &admin).await?;
        Ok(plan)
    }

    async fn add_objects(&self, plan: &mut RestorePlan, dumped: &Dumped, admin: &Session) -> Result<()> {
        let config = self.config();
        let parts = Parts::of(&dumped.toc.entries, &dumped.selection);
        plan.missing.extend(refused(&parts));
        let cut = parts.without_root(&dumped.toc.entries);
        plan.missing.extend(cut.iter().map(|data| {
            format!(
                "a choice of the topmost table above {} with it: its rows find their partition through that",
                data.tag
            )
        }));
        let encoding = dumped.toc.entries.iter().find(|entry| entry.kind == "ENCODING");
        if encoding.is_some_and(|entry| !entry.definition.contains(ENCODING)) {
            plan.missing.push("a dump in UTF-8, or a restore by swap".to_owned());
        }
        let mut wire = Wire::open(config, &config.database).await?;
        let found = match Found::look(&mut wire, &parts, dumped.selection.is_all()).await {
            Ok(found) => found,
            Err(error) => return Err(locks::named(&mut wire, &parts, Barred::Reading, error).await),
        };
        let Found { objects, dependents, around, fingerprint } = found;
        plan.fingerprint = fingerprint;
        let strange = objects.iter().filter(|live| !live.is_owned);
        plan.missing.extend(strange.map(|live| format!("ownership of {} {}", live.kind.to_lowercase(), live.name)));
        plan.actions = actions(&objects, &parts);
        plan.warnings.push(
            "what is replaced is locked against everybody, readers too, from the first drop to the commit".to_owned(),
        );
        let again = around.keys.into_iter().chain(around.places);
        plan.warnings.extend(again.map(|(what, _)| format!("{what} is made again as it is in the database")));
        dependents.into_iter().for_each(|dependent| add_dependent(plan, dependent, config.restore.force));
        let locks = parts.relations().len() + parts.blobs_count();
        plan.warnings.extend(lock_table(admin, locks).await?);
        Ok(())
    }
}

/// What a restore would replace, as one moment sees it.
struct Found {
    objects: Vec<Live>,
    dependents: Vec<Dependent>,
    /// Foreign keys of what is replaced to what stays, and its place among partitions.
    around: Around,
    fingerprint: String,
}

impl Found {
    async fn look(wire: &mut Wire, parts: &Parts<'_>, is_all: bool) -> Result<Self> {
        wire.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let objects = live::objects(wire, parts, true).await?;
        let dependents = live::dependents(wire, &objects, parts).await?;
        let around = if is_all { Around::default() } else { Around::of(wire, &objects).await? };
        let fingerprint = locks::fingerprint(wire, parts, &objects, &dependents).await?;
        wire.execute(b"COMMIT").await?;
        Ok(Self { objects, dependents, around, fingerprint })
    }
}

/// What can't be dropped or made in a transaction, or not twice.
fn refused(parts: &Parts<'_>) -> Vec<String> {
    let mut refused = Vec::new();
    for entry in &parts.replaced {
        match entry.kind.as_str() {
            "SUBSCRIPTION" => refused
                .push(format!("a restore by swap: the subscription {} can't be dropped in a transaction", entry.tag)),
            "TABLE DATA" if parts.is_of_extension(entry) => refused
                .push(format!("a restore by swap: the rows of {} belong to an extension, which stays", entry.tag)),
            _ => {}
        }
    }
    refused
}

fn actions(objects: &[Live], parts: &Parts<'_>) -> Vec<PlannedAction> {
    let overwrite = |live: &Live| {
        let action =
            PlannedAction::new(RestoreAction::Overwrite, format!("{} {}", live.kind.to_lowercase(), live.name));
        action.with_size_bytes(live.size_bytes)
    };
    let mut actions: Vec<PlannedAction> = objects.iter().map(overwrite).collect();
    let others = parts.drops_before().into_iter().chain(parts.drops_after());
    actions.extend(others.map(|(entry, _)| {
        PlannedAction::new(RestoreAction::Overwrite, format!("{} {}", entry.kind.to_lowercase(), entry.tag))
    }));
    if parts.blobs_count() > 0 {
        let what = format!("{} large objects of the dump", parts.blobs_count());
        actions.push(PlannedAction::new(RestoreAction::Overwrite, what));
    }
    actions
}

fn add_dependent(plan: &mut RestorePlan, dependent: Dependent, force: bool) {
    let what = dependent.what;
    if !force {
        plan.missing.push(format!("the consent to drop {what}, which is not restored with it (with_force)"));
    } else if dependent.again.is_some() {
        plan.warnings.push(format!("{what} is dropped and made again as it is in the database"));
    } else {
        plan.warnings.push(format!("{what} is dropped and not made again: it is not restored"));
        plan.actions.push(PlannedAction::new(RestoreAction::Drop, what));
    }
}

/// One transaction holds a lock for each object that it drops, and the server has room for so many of all sessions.
async fn lock_table(admin: &Session, needed: usize) -> Result<Option<String>> {
    let sql = "SELECT current_setting('max_locks_per_transaction')::bigint * (current_setting('max_connections')::bigint \
        + current_setting('max_prepared_transactions')::bigint)";
    let room = crate::client::number(&admin.row(sql).await?, 0)?;
    let is_tight = u64::try_from(needed).unwrap_or(u64::MAX) > room / 2;
    Ok(is_tight.then(|| {
        format!("{needed} objects are locked at once, and the server has room for {room}: max_locks_per_transaction")
    }))
}
