//! What restores that were cut short left behind, and replaced databases whose time is over.

mod facts;
mod plan;

pub use plan::{RecoveryAction, RecoveryPlan, RecoveryPurpose, RecoveryReport, RecoveryStep, RemoveOld};

use stackkit_core::{Clock, Error, ErrorKind, Result, Service};

use crate::client::{Session, text};
use crate::options::Strategy;
use crate::service::Postgres;
use crate::sql::{identifier, literal};
use crate::target;
use facts::Scene;

impl Postgres {
    /// Says what is left of restores of the configured database that were cut short, and what would be done about it.
    /// Changes nothing.
    ///
    /// A restore that still runs, here or elsewhere, holds a lock on the server; its database is left alone. What is left
    /// of the target's namesakes, and what somebody renamed, is not touched. What this handle restored along with the
    /// configured database, of a dump of several, is looked at too.
    ///
    /// # Errors
    /// The kinds of connecting. The configured database need not exist.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn plan_recovery(&self) -> Result<RecoveryPlan> {
        self.find(RecoveryPurpose::Recovery).await.map_err(self.named("plan_recovery"))
    }

    /// Says which databases that restores of the configured one replaced would be removed. Changes nothing.
    ///
    /// # Errors
    /// As [`Postgres::plan_recovery`].
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn plan_removal_of_old(&self, which: RemoveOld) -> Result<RecoveryPlan> {
        self.find(RecoveryPurpose::RemovalOfOld(which)).await.map_err(self.named("plan_removal_of_old"))
    }

    /// Carries out a plan of [`Postgres::plan_recovery`] or [`Postgres::plan_removal_of_old`]. A drop ends the sessions
    /// of the database.
    ///
    /// ```no_run
    /// # async fn mend(shop: stackkit_postgres::Postgres) -> stackkit_core::Result<()> {
    /// let plan = shop.plan_recovery().await?;
    /// println!("{plan}");
    /// println!("{}", shop.recover(plan).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Incompatible` if one of the databases changed since the plan was made. `PermissionDenied` and `Busy` at a step;
    /// those before it are done, and a fresh plan has the rest.
    ///
    /// # Cancel safety
    /// Each step is done or not; make a fresh plan.
    pub async fn recover(&self, plan: RecoveryPlan) -> Result<RecoveryReport> {
        self.carry_out(plan).await.map_err(self.named("recover"))
    }

    async fn find(&self, purpose: RecoveryPurpose) -> Result<RecoveryPlan> {
        let admin = target::open_admin(self.config()).await?;
        self.find_with(&admin, purpose).await
    }

    async fn find_with(&self, admin: &Session, purpose: RecoveryPurpose) -> Result<RecoveryPlan> {
        let target = self.recovered();
        let mut facts = facts::concerning(facts::read(admin, target).await?, target);
        let now = Clock::system().now();
        let mut found = Scene { target, facts: &facts, now }.found(purpose);
        // What is left of a dump of several databases.
        for other in facts::others(&facts, target) {
            let its = facts::only_of(facts::read(admin, &other).await?, &other, target);
            let more = Scene { target: &other, facts: &its, now }.found(purpose);
            found.steps.extend(more.steps);
            found.notes.extend(more.notes);
            facts.extend(its);
        }
        let fingerprint = target::hash(admin, &facts::text_of(&facts)).await?;
        Ok(RecoveryPlan { service: self.id().clone(), purpose, fingerprint, steps: found.steps, notes: found.notes })
    }

    /// The database that restores of this handle put data into.
    fn recovered(&self) -> &str {
        match &self.config().restore.strategy {
            Strategy::IntoNew(name) => name,
            Strategy::Swap | Strategy::InPlaceSingleTransaction => &self.config().database,
        }
    }

    async fn carry_out(&self, plan: RecoveryPlan) -> Result<RecoveryReport> {
        let admin = target::open_admin(self.config()).await?;
        let fresh = self.find_with(&admin, plan.purpose).await?;
        let is_found = |step: &RecoveryStep| fresh.steps.iter().any(|other| other.is_same(step));
        if fresh.fingerprint != plan.fingerprint || fresh.service != plan.service || !plan.steps.iter().all(is_found) {
            let message = "the databases changed since the plan was made; make a fresh plan";
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        for step in &plan.steps {
            self.step(&admin, step).await.map_err(|error| error.with_context("database", &step.database))?;
        }
        Ok(RecoveryReport { service: plan.service, done: plan.steps })
    }

    async fn step(&self, admin: &Session, step: &RecoveryStep) -> Result<()> {
        let name = identifier(&step.database);
        match step.action {
            RecoveryAction::Drop if facts::is_staging(&step.database) => {
                target::drop_staging(self.config(), admin, &step.database).await
            }
            RecoveryAction::Drop => target::drop_database(admin, &step.database).await,
            RecoveryAction::Rename => {
                let to = identifier(self.recovered());
                admin.execute(&format!("ALTER DATABASE {name} RENAME TO {to}")).await
            }
            RecoveryAction::Open => {
                // It may have been named back one step before.
                let named = format!("SELECT datname FROM pg_database WHERE oid = {}", literal(&step.oid));
                let row = admin.row(&named).await?;
                let name = identifier(text(&row, 0)?);
                admin.execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await
            }
        }
    }
}
