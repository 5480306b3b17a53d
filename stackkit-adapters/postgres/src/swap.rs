//! The last step of a restore: two renames, with a way back.

use stackkit_core::backup::{RestoreReport, TargetState};
use stackkit_core::{Error, Result};

use crate::client::{Session, text};
use crate::sql::{identifier, literal};
use crate::target;

/// Settings whose value is a list of quoted names: as one literal they would be one name.
const LIST_SETTINGS: &str =
    "('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries')";

/// Who changes places with whom.
pub(crate) struct Swap<'a> {
    pub(crate) admin: &'a Session,
    pub(crate) database: &'a str,
    pub(crate) staging: &'a str,
    pub(crate) kept_as: &'a str,
}

impl Swap<'_> {
    /// Gives the staging database what belongs to the target itself and stands outside of it: settings, those of roles
    /// in it too, grants, comment, connection limit, and whether it is a template. Its owner, encoding and locale it has from its creation.
    pub(crate) async fn copy_properties(&self) -> Result<()> {
        let statements = format!(
            "WITH d AS (SELECT * FROM pg_database WHERE datname = {target}), \
             s AS (SELECT r.setrole, c.name, c.value, c.name IN {LIST_SETTINGS} AS is_list, \
                 CASE WHEN r.setrole = 0 THEN format('ALTER DATABASE %I', {staging}) \
                     ELSE format('ALTER ROLE %I IN DATABASE %I', pg_get_userbyid(r.setrole), {staging}) END AS head \
                 FROM d JOIN pg_db_role_setting r ON r.setdatabase = d.oid, unnest(r.setconfig) u(pair), \
                 LATERAL (SELECT split_part(pair, '=', 1) AS name, substr(pair, strpos(pair, '=') + 1) AS value) c) \
             SELECT CASE WHEN is_list \
                 THEN format('SELECT pg_catalog.set_config(%L, %L, false); %s SET %I FROM CURRENT', \
                     name, value, head, name) ELSE format('%s SET %I TO %L', head, name, value) END FROM s \
             UNION ALL SELECT format('COMMENT ON DATABASE %I IS %L', {staging}, shobj_description(oid, 'pg_database')) \
                 FROM d WHERE shobj_description(oid, 'pg_database') IS NOT NULL \
             UNION ALL SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', {staging}, datconnlimit) \
                 FROM d WHERE datconnlimit <> -1 \
             UNION ALL SELECT format('ALTER DATABASE %I IS_TEMPLATE true', {staging}) FROM d WHERE datistemplate \
             UNION ALL SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {staging}) \
                 FROM d WHERE datacl IS NOT NULL \
             UNION ALL SELECT format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, {staging}, \
                 CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, \
                 CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) FROM d, aclexplode(d.datacl) a",
            target = literal(self.database),
            staging = literal(self.staging),
        );
        for row in self.admin.rows(&statements).await? {
            self.admin.execute(text(&row, 0)?).await?;
        }
        // The lists above were set in this session to be copied from it.
        self.admin.execute("RESET search_path; SET search_path = pg_catalog").await
    }

    /// Gives the staging database the target's name, which is free.
    pub(crate) async fn rename_staging(&self) -> Result<()> {
        self.rename(self.staging, self.database).await
    }

    /// Puts the staging database into the target's place, and the target aside. Gives warnings.
    ///
    /// Between the two renames the target's name is free for well under a millisecond. If the second one fails, the
    /// first is undone; if that fails too, the error says `Partial` and under which name the old data is.
    pub(crate) async fn run(&self) -> Result<Vec<String>> {
        self.allow_connections(self.database, false).await?;
        if let Err(error) = self.put_aside().await {
            return Err(self.undo(error, self.database).await);
        }
        if let Err(error) = self.rename_staging().await {
            return match self.rename(self.kept_as, self.database).await {
                Ok(()) => Err(self.undo(error, self.database).await),
                Err(second) => Err(self.stuck(error, &second, self.kept_as)),
            };
        }
        match self.allow_connections(self.kept_as, true).await {
            Ok(()) => Ok(Vec::new()),
            Err(error) => Ok(vec![format!("the old database accepts no connections: {error}")]),
        }
    }

    /// Drops the replaced database if that is wanted, and says in the report what became of it.
    pub(crate) async fn settle_old(&self, remove: bool, report: RestoreReport) -> RestoreReport {
        if !remove {
            return report.with_old_data_kept_as(self.kept_as);
        }
        match target::drop_database(self.admin, self.kept_as).await {
            Ok(()) => report,
            Err(error) => report
                .with_old_data_kept_as(self.kept_as)
                .with_warnings([format!("the old database could not be dropped: {error}")]),
        }
    }

    async fn put_aside(&self) -> Result<()> {
        target::end_sessions(self.admin, self.database).await?;
        self.rename(self.database, self.kept_as).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.admin.execute(&format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to))).await
    }

    async fn allow_connections(&self, name: &str, allow: bool) -> Result<()> {
        self.admin.execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allow}", identifier(name))).await
    }

    /// Opens the target again after a failed swap.
    async fn undo(&self, error: Error, name: &str) -> Error {
        match self.allow_connections(name, true).await {
            Ok(()) => error.with_target(TargetState::Old),
            Err(second) => self.stuck(error, &second, name),
        }
    }

    fn stuck(&self, error: Error, second: &Error, old_data: &str) -> Error {
        tracing::error!(error = %second.chain(), old_data, "a failed swap could not be undone");
        error
            .with_target(TargetState::Partial)
            .with_context("old_data", old_data)
            .with_context("new_data", self.staging)
            .with_context("mend", "rename by hand, then ALTER DATABASE … ALLOW_CONNECTIONS true")
    }
}
