//! SQL text, as `pg_dump` writes it without a format: run statement by statement into a new database.

pub(crate) mod scanner;
pub(crate) mod text;

use stackkit_core::backup::{RestoreOptions, RestorePlan, RestoreReport, TargetState};
use stackkit_core::{Error, ErrorKind, Result, Service};
use tokio::io::AsyncRead;

use crate::census;
use crate::client::Session;
use crate::options::{Owners, Strategy};
use crate::plan::{Begun, KEPT_AS, STAGING, STRATEGY};
use crate::restore::stale;
use crate::service::Postgres;
use crate::swap::{Pair, Swap};
use crate::target;
use crate::wire::Wire;
use text::Text;

/// How a new database is created that replaces none: without what somebody put into the usual template.
const OPTIONS: &str = " WITH TEMPLATE = template0";

/// Says that the caller knows who wrote the text: all of it is run with the rights of the role that imports, and a
/// superuser's SQL can run programs on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedSql;

/// What a run of SQL text came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SqlReport {
    /// How many statements were run.
    pub statements: u64,
    /// How many rows were copied.
    pub rows: u64,
    /// What the database holds now, and where the old data is.
    pub restored: RestoreReport,
}

impl Postgres {
    /// Plans to run SQL text into a new database, which then takes the target's place as after a restore, or gets a name of
    /// its own ([`Strategy::IntoNew`]). Reads the text to its end and changes nothing.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use stackkit_core::backup::RestoreOptions;
    /// use stackkit_postgres::{Postgres, TrustedSql};
    /// use tokio::fs::File;
    /// let service = Postgres::from_url("postgres://admin@localhost/shop")?;
    /// let plan = service.plan_import_sql(File::open("shop.sql").await?, &RestoreOptions::new()).await?;
    /// println!("{plan}");
    /// let report = service.import_sql(plan, File::open("shop.sql").await?, TrustedSql).await?;
    /// println!("{} statements", report.statements);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Config` where the handle is configured to restore a part, with other owners, without grants or with several jobs: the
    /// text is run as it is; `Unsupported` for a restore in place, for a backslash command of `psql` and for a statement of more
    /// than 64 MiB; `Integrity` for text without a statement, and for text that ends inside of one; `Incompatible` for
    /// a standby.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn plan_import_sql(
        &self,
        text: impl AsyncRead + Send + Unpin + 'static,
        options: &RestoreOptions,
    ) -> Result<RestorePlan> {
        let named = self.named("plan import");
        self.filled().plan_text(Text::of(text), options).await.map_err(&named)
    }

    async fn plan_text(&self, text: Text, options: &RestoreOptions) -> Result<RestorePlan> {
        let strategy = self.text_strategy()?;
        let statements = text.check().await?;
        let admin = target::open_admin(self.config()).await?;
        let Begun { mut plan, .. } = self.begin_plan(&admin, None, options.old_data).await?;
        plan.details.insert(STRATEGY.to_owned(), strategy);
        plan.warnings.push(format!(
            "{statements} statements are run with all rights of the role {}; what they do outside of the database stays",
            self.config().user
        ));
        Ok(plan)
    }

    /// What a plan for SQL text says of the strategy; no restore takes such a plan.
    fn text_strategy(&self) -> Result<String> {
        let restore = &self.config().restore;
        if restore.strategy == Strategy::InPlaceSingleTransaction {
            return Err(Error::new(ErrorKind::Unsupported, "SQL text is only run into a new database"));
        }
        let is_whole = restore.schemas.is_empty() && restore.tables.is_empty();
        let is_as_it_is = restore.owners == Owners::Restore && !restore.skip_privileges && restore.jobs.is_none();
        if !is_whole || !is_as_it_is {
            let message = "SQL text is run as it is: schemas, tables, owners, grants and jobs can't be chosen";
            return Err(Error::config(message));
        }
        Ok(format!("{} of SQL text", restore.strategy.as_str()))
    }

    /// Runs SQL text as planned. The new database is filled under another name, and takes its place only when every
    /// statement succeeded. What else happened to the server, roles that the text makes for one, stays.
    ///
    /// Nothing of `psql` is understood: `\restrict` and `\unrestrict` are passed over, every other backslash command
    /// is refused. One statement is in memory at a time, and of rows a few KiB.
    ///
    /// # Errors
    /// Those of [`plan_import_sql`](Self::plan_import_sql); `Incompatible` for a plan that lacks something, or was made
    /// for something else or before the target changed; the server's, with the line on which the statement begins.
    /// After every error the target is what it was, and the new database is dropped.
    ///
    /// # Cancel safety
    /// A dropped future leaves the database under its other name, which `recover` drops; from the swap on, as a restore.
    pub async fn import_sql(
        &self,
        plan: RestorePlan,
        text: impl AsyncRead + Send + Unpin + 'static,
        _trusted: TrustedSql,
    ) -> Result<SqlReport> {
        let named = self.named("import");
        self.filled().import_text(plan, Text::of(text)).await.map_err(&named)
    }

    async fn import_text(&self, plan: RestorePlan, mut text: Text) -> Result<SqlReport> {
        let old = |error: Error| error.with_target(TargetState::Old);
        let strategy = self.text_strategy().map_err(old)?;
        let detail = |name: &str| {
            plan.details.get(name).map(String::as_str).ok_or_else(|| old(stale("the plan is not complete")))
        };
        let (staging, kept_as) = (detail(STAGING)?, detail(KEPT_AS)?);
        self.check(&plan, &strategy).await.map_err(old)?;
        let admin = target::open_admin(self.config()).await.map_err(old)?;
        let database = self.config().database.as_str();
        let replaced = target::find(&admin, database).await.map_err(old)?;
        let pair = Pair {
            database: database.to_owned(),
            staging: staging.to_owned(),
            kept_as: kept_as.to_owned(),
            replaces: replaced.is_some(),
        };
        let swap = Swap { service: self, admin: &admin, pairs: vec![pair], old_data: plan.old_data };
        let options = replaced.map_or_else(|| OPTIONS.to_owned(), |replaced| replaced.options);
        swap.create(&[options]).await.map_err(old)?;
        let run = async {
            let mut report = self.run_text(&mut text, staging).await?;
            swap.copy_properties().await?;
            let warnings = swap.run().await?;
            report.restored = swap.settle_old(report.restored.with_warnings(warnings)).await;
            Ok(report)
        };
        match run.await {
            Ok(report) => Ok(report),
            Err(error) => Err(swap.discard(error).await),
        }
    }

    async fn run_text(&self, text: &mut Text, staging: &str) -> Result<SqlReport> {
        let mut wire = Wire::open(self.config(), staging).await?;
        // Text written by hand relies on the usual path; that of pg_dump sets its own.
        wire.execute(b"RESET search_path").await?;
        let (mut statements, mut rows) = (0, 0);
        while let Some(statement) = text.statement().await? {
            let line = statement.line;
            let at_line = |error: Error| error.with_context("line", line);
            if statement.has_rows {
                text.end_line().await?;
                let mut copy = wire.copy_in(&statement.sql).await.map_err(at_line)?;
                copy.send(&mut text.reader()).await.map_err(at_line)?;
                rows += copy.finish().await.map_err(at_line)?;
            } else {
                wire.execute(&statement.sql).await.map_err(at_line)?;
            }
            statements += 1;
        }
        wire.execute(b"RESET ALL").await?;
        wire.execute(b"ANALYZE").await?;
        drop(wire);
        let session = Session::open_long(self.config(), staging).await?;
        let census = census::of_database(&session, false).await?;
        Ok(SqlReport { statements, rows, restored: RestoreReport::new(self.id().clone(), census) })
    }
}
