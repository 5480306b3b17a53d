//! What a restore would do.

use stackkit_core::backup::{ArtifactSource, OldData, PlannedAction, RestoreAction, RestoreOptions, RestorePlan};
use stackkit_core::{Clock, Error, ErrorKind, Result, Service};

use crate::client::{Session, text};
use crate::dump::Server;
use crate::options::Strategy;
use crate::restore::parts::{self, Part};
use crate::restore::{Preflight, Room};
use crate::service::Postgres;
use crate::sql::{literal, suffixed};
use crate::target::{self, Target};
use crate::toc::Contents;

/// The plan's entry for the name of the database that is filled before the swap.
pub(crate) const STAGING: &str = "staging_database";

/// The plan's entry for the name under which the replaced database is kept.
pub(crate) const KEPT_AS: &str = "old_database_kept_as";

/// The plan's entry for the strategy that it was made for.
pub(crate) const STRATEGY: &str = "strategy";

/// In the names of databases that are being filled.
pub(crate) const STAGING_MARK: &str = "__sk_";

/// In the names of databases that were replaced.
pub(crate) const OLD_MARK: &str = "__old_";

/// The time of a plan in names: `20261121_141303_007`.
pub(crate) const STAMP: &str = "%Y%m%d_%H%M%S_%3f";

/// How long it is.
pub(crate) const STAMP_BYTES: usize = 19;

impl Postgres {
    pub(crate) async fn plan(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan> {
        if self.config().restore.strategy == Strategy::InPlaceSingleTransaction {
            return self.plan_in_place(source, options).await;
        }
        self.filled().plan_filled(source, options).await
    }

    async fn plan_filled(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan> {
        let restore = &self.config().restore;
        let mut parts = self.parts(source).await?;
        parts.iter_mut().for_each(|part| restore.owners.apply(&mut part.dumped.contents.owners));
        let admin = target::open_admin_beside(self.config(), &parts::names(&parts)).await?;
        let mut plan = RestorePlan::new(self.id().clone(), self.kind(), "");
        parts::artifacts(&parts, source, &mut plan)?;
        plan.old_data = options.old_data;
        let (mut each, mut missing, mut warnings, mut room) = (Vec::new(), Vec::new(), Vec::new(), Room::default());
        for part in &parts {
            let Part { dumped, service, .. } = part;
            let begun = service.begin_plan(&admin, Some(&dumped.contents), options.old_data).await?;
            let Begun { plan: mut own, server, target } = begun;
            let target = target.as_ref();
            let found = Preflight { service, admin: &admin, server: &server, dumped, source, target }.run().await?;
            let is_swap = restore.strategy == Strategy::Swap && target.is_some();
            if is_swap && !dumped.selection.is_all() && !restore.force {
                own.missing.push(the_rest(service));
            }
            plan.actions.extend(own.actions);
            plan.details.extend(own.details.into_iter().map(|(name, value)| (part.detail(&name), value)));
            each.push(own.fingerprint);
            missing.push([own.missing, found.missing].concat());
            warnings.push([own.warnings, found.warnings].concat());
            room.add(found.room);
        }
        plan.details.insert(STRATEGY.to_owned(), restore.strategy.as_str().to_owned());
        plan.fingerprint = parts::fingerprint(&admin, &parts, &each).await?;
        let parts: Vec<&Part> = parts.iter().collect();
        plan.missing = parts::told(&parts, &missing);
        plan.warnings = parts::told(&parts, &warnings);
        plan.missing.extend(room.missing());
        Ok(plan)
    }

    /// What becomes of the target, and what that needs, whatever it is filled from.
    pub(crate) async fn begin_plan(
        &self,
        admin: &Session,
        contents: Option<&Contents>,
        old_data: OldData,
    ) -> Result<Begun> {
        let server = Server::of(admin).await?;
        if server.standby {
            return Err(Error::new(ErrorKind::Incompatible, "the server is a standby; restore on its primary"));
        }
        let fingerprint = target::fingerprint(self.config()).await?;
        let database = &self.config().database;
        let target = target::find(admin, database).await?;
        let mut plan = RestorePlan::new(self.id().clone(), self.kind(), fingerprint);
        plan.old_data = old_data;
        self.add_actions(&mut plan, target.as_ref());
        let needs = Needs { admin, contents, database, force: self.config().restore.force };
        plan.missing = needs.missing(target.as_ref()).await?;
        if matches!(self.config().restore.strategy, Strategy::IntoNew(_)) && target.is_some() {
            plan.missing.push(format!("a free name: the database {database} exists"));
        }
        plan.warnings = needs.warnings(&server, target.is_some()).await?;
        Ok(Begun { plan, server, target })
    }

    fn add_actions(&self, plan: &mut RestorePlan, target: Option<&Target>) {
        let database = &self.config().database;
        let stamp = Clock::system().now().strftime(STAMP).to_string();
        let staging = suffixed(database, &format!("{STAGING_MARK}{stamp}"));
        let kept_as = suffixed(database, &format!("{OLD_MARK}{stamp}"));
        if let Some(target) = target {
            let action = |action, object| PlannedAction::new(action, object);
            plan.actions.push(action(RestoreAction::Create, format!("database {staging}")));
            plan.actions.push(
                action(RestoreAction::Rename, format!("database {database} to {kept_as}"))
                    .with_size_bytes(target.size_bytes),
            );
            plan.actions.push(action(RestoreAction::Rename, format!("database {staging} to {database}")));
            if plan.old_data == OldData::Remove {
                let remove = action(RestoreAction::Drop, format!("database {kept_as}"));
                plan.actions.push(remove.with_size_bytes(target.size_bytes));
            }
        } else {
            plan.actions.push(PlannedAction::new(RestoreAction::Create, format!("database {database}")));
        }
        plan.details.insert(STAGING.to_owned(), staging);
        plan.details.insert(KEPT_AS.to_owned(), kept_as);
    }
}

/// A swap puts the chosen part alone in the place of all that the target holds.
fn the_rest(service: &Postgres) -> String {
    format!(
        "the consent to lose from {} all that was not chosen (with_force): in place (--strategy in-place) the rest stays, \
         and a new database (--strategy new=NAME) replaces nothing",
        service.config().database
    )
}

/// A plan that says what becomes of the target, and for whom it was made.
pub(crate) struct Begun {
    pub(crate) plan: RestorePlan,
    pub(crate) server: Server,
    pub(crate) target: Option<Target>,
}

/// What a plan asks the server about.
pub(crate) struct Needs<'a> {
    pub(crate) admin: &'a Session,
    /// What is in the dump; SQL text tells nothing of it.
    pub(crate) contents: Option<&'a Contents>,
    pub(crate) database: &'a str,
    /// Whether what is bound to the old database may stay with it.
    pub(crate) force: bool,
}

impl Needs<'_> {
    async fn missing(&self, target: Option<&Target>) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        let may = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user";
        if text(&self.admin.row(may).await?, 0)? != "t" {
            missing.push("the right to create databases (ALTER ROLE … CREATEDB)".to_owned());
        }
        if target.is_some_and(|target| !target.is_owned) {
            missing.push(format!("ownership of the database {}", self.database));
        }
        if let Some(contents) = self.contents {
            missing.extend(self.missing_of(contents).await?);
        }
        let settings = format!(
            "SELECT DISTINCT pg_get_userbyid(setrole) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase, \
             pg_roles me WHERE datname = {} AND setrole <> 0 AND me.rolname = current_user AND setrole <> me.oid \
             AND NOT (me.rolsuper OR me.rolcreaterole)",
            literal(self.database)
        );
        for row in self.admin.rows(&settings).await? {
            missing.push(format!("the right to alter the role {}, which has settings in the database", text(&row, 0)?));
        }
        missing.extend(self.in_the_way().await?);
        Ok(missing)
    }

    /// What the objects of the dump need.
    pub(crate) async fn missing_of(&self, contents: &Contents) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for extension in self.absent(&contents.extensions, "pg_available_extensions", "name").await? {
            missing.push(format!("the extension {extension} on the server"));
        }
        for role in self.absent(&contents.owners, "pg_roles", "rolname").await? {
            missing.push(format!("the role {role}, which owns objects of the dump"));
        }
        for role in self.foreign_owners(&contents.owners).await? {
            missing.push(format!("membership in the role {role}, which owns objects of the dump"));
        }
        Ok(missing)
    }

    /// What keeps the target from being replaced.
    async fn in_the_way(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        if !self.force {
            let unless = |bound| format!("the consent to leave {bound} with the old database (with_force)");
            found.extend(target::bound(self.admin, self.database).await?.into_iter().map(unless));
        }
        let prepared = format!("SELECT gid FROM pg_prepared_xacts WHERE database = {}", literal(self.database));
        for row in self.admin.rows(&prepared).await? {
            found.push(format!("the end of the prepared transaction {}", text(&row, 0)?));
        }
        Ok(found)
    }

    /// Those of `names` that are not in `column` of `view`.
    async fn absent(&self, names: &[String], view: &str, column: &str) -> Result<Vec<String>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<String> = names.iter().map(|name| format!("({})", literal(name))).collect();
        let values = values.join(", ");
        let sql = format!("SELECT n FROM (VALUES {values}) v(n) WHERE n NOT IN (SELECT {column}::text FROM {view})");
        self.admin.rows(&sql).await?.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect()
    }

    /// The owners that exist and that this role can't act for.
    async fn foreign_owners(&self, owners: &[String]) -> Result<Vec<String>> {
        let names: Vec<String> = owners.iter().map(|name| literal(name)).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names = names.join(", ");
        let sql =
            format!("SELECT rolname FROM pg_roles WHERE rolname IN ({names}) AND NOT pg_has_role(rolname, 'MEMBER')");
        self.admin.rows(&sql).await?.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect()
    }

    async fn warnings(&self, server: &Server, exists: bool) -> Result<Vec<String>> {
        let mut warnings = self.contents.map_or_else(Vec::new, |contents| warnings_of(contents, server, exists));
        if exists {
            warnings.push(format!("sessions of the database {} are ended at the swap", self.database));
        }
        if self.force {
            let stays = |bound| format!("{bound} stays with the old database and goes on there");
            warnings.extend(target::bound(self.admin, self.database).await?.into_iter().map(stays));
        }
        for left in self.beside(STAGING_MARK).await? {
            warnings.push(format!(
                "the database {left} is left over from a restore that runs or was cut short: see plan_recovery"
            ));
        }
        if !exists {
            for old in self.beside(OLD_MARK).await? {
                warnings.push(format!("the database {old} was put aside by a restore and may hold the latest data"));
            }
        }
        Ok(warnings)
    }

    /// The databases whose names are the target's with `mark`. Where the target's name had to be cut for it, those of
    /// its namesakes are among them.
    async fn beside(&self, mark: &str) -> Result<Vec<String>> {
        let mut start = suffixed(self.database, &format!("{mark}{:STAMP_BYTES$}", ""));
        start.truncate(start.len() - STAMP_BYTES);
        let start = literal(&start);
        let sql = format!("SELECT datname FROM pg_database WHERE starts_with(datname, {start}) ORDER BY 1");
        self.admin.rows(&sql).await?.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect()
    }
}

/// What the reader of the plan should know of the dump.
fn warnings_of(contents: &Contents, server: &Server, exists: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(dumped) = contents.header.server.filter(|dumped| dumped.series() > server.version.series()) {
        warnings.push(format!("the dump is of server {dumped}, newer than this one: {}", server.version_text));
    }
    if !exists && contents.has_database_properties {
        let what = "settings, grants and comment of the database itself are in the archive, but are not restored";
        warnings.push(what.to_owned());
    }
    if contents.kinds.count("entries.subscription") > 0 {
        warnings.push("subscriptions are restored without a slot and disabled".to_owned());
    }
    warnings
}
