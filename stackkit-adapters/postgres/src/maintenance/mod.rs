//! Maintenance: what wants it, a plan, and its work.

mod apply;
mod audit;
mod bloat;
mod cancel;
mod catalog;
mod finding;
mod limits;
mod look;
mod plan;
mod task;
mod watch;

use std::fmt;
use std::sync::Arc;

use stackkit_core::Result;

pub use audit::{MaintenanceAudit, MaintenanceOutcome, MaintenanceReport};
pub use catalog::RelationId;
pub use finding::{MaintenanceFinding, MaintenanceFindings};
pub use limits::MaintenanceLimits;
pub use plan::{MaintenancePlan, MaintenanceStep};
pub use task::{MaintenanceAction, MaintenanceTask};
pub use watch::{MAINTENANCE_PROGRESS_INTERVAL, MaintenanceProgress};

use crate::client::Session;
use crate::service::Postgres;

type Listener = Arc<dyn Fn(&MaintenanceProgress) + Send + Sync>;

/// The maintenance of one database: what wants it, a plan that shows what it locks, and its work.
///
/// ```no_run
/// # async fn run() -> stackkit_core::Result<()> {
/// use stackkit_postgres::Postgres;
/// let maintenance = Postgres::from_env()?.maintenance();
/// let found = maintenance.findings().await?;
/// let plan = maintenance.plan_for(&found.findings).await?;
/// println!("{found}{plan}");
/// let report = maintenance.apply(plan).await?;
/// assert!(report.is_complete(), "{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresMaintenance {
    postgres: Postgres,
    limits: MaintenanceLimits,
    listener: Option<Listener>,
}

impl Postgres {
    /// The maintenance of this database. Does no I/O.
    #[must_use]
    pub fn maintenance(&self) -> PostgresMaintenance {
        PostgresMaintenance { postgres: self.clone(), limits: MaintenanceLimits::default(), listener: None }
    }
}

impl PostgresMaintenance {
    /// Sets from where on something is a finding.
    #[must_use]
    pub fn with_limits(mut self, limits: MaintenanceLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Shows how far [`apply`](Self::apply) is: the begin and end of each step, and every
    /// [`MAINTENANCE_PROGRESS_INTERVAL`] what the server says of it, where that changed. It runs in the same task, so it
    /// should return soon.
    #[must_use]
    pub fn with_progress(mut self, listener: impl Fn(&MaintenanceProgress) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Looks at every table and index of the database: bloat, dead rows, vacuum and statistics that are missing or old,
    /// transaction ids that run out, and indexes that are not valid, not used, or there twice.
    ///
    /// Bloat is estimated from the planner's statistics. Where the extension `pgstattuple` is installed and may be called,
    /// what the estimate finds is measured, which reads all of it.
    ///
    /// # Errors
    /// The kinds of connecting; `Busy` if a lock is not given up within the lock timeout.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn findings(&self) -> Result<MaintenanceFindings> {
        let found = async { look::all(&self.open().await?, &self.limits).await };
        found.await.map_err(self.postgres.named("maintenance"))
    }

    /// A plan of exactly these tasks, in this order, and before a rebuild the removal of what an earlier one left.
    /// Changes nothing.
    ///
    /// # Errors
    /// `NotFound` for a name that is none; `PermissionDenied` with the grant that is missing; `Config` for
    /// [`MaintenanceAction::VacuumFull`] without force, or a table where an index is meant; `Incompatible` for the removal
    /// of an index that is valid; `Busy`, and the kinds of connecting.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn plan(&self, tasks: Vec<MaintenanceTask>) -> Result<MaintenancePlan> {
        self.make_plan(&tasks).await.map_err(self.postgres.named("maintenance"))
    }

    /// A plan that mends these findings, as far as that needs no decision of a person and this role may. What is left out
    /// is a warning of the plan: `VACUUM FULL`, the removal of indexes that work, missing rights. Changes nothing.
    ///
    /// # Errors
    /// `Busy`, and the kinds of connecting.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn plan_for(&self, findings: &[MaintenanceFinding]) -> Result<MaintenancePlan> {
        self.make_plan_for(findings).await.map_err(self.postgres.named("maintenance"))
    }

    /// Carries a plan out, one statement after the other, each waiting for locks no longer than the configuration's lock
    /// timeout. What each did is in the report and in an event of `tracing`; a step that fails keeps no other from
    /// being done, so look at [`MaintenanceReport::is_complete`].
    ///
    /// # Errors
    /// Before anything is done: `Incompatible` if a name means another table or index than when the plan was made, or one
    /// was rewritten since; `NotFound`; `PermissionDenied` with the grant; `Busy`, and the kinds of connecting.
    ///
    /// # Cancel safety
    /// Dropping the future asks the server to cancel the statement, which takes a moment (2 s at most) of the dropping
    /// thread. Tables and indexes stay usable; a rebuild that was cut leaves an index that is not valid, which findings
    /// name and the next plan drops.
    pub async fn apply(&self, plan: MaintenancePlan) -> Result<MaintenanceReport> {
        self.carry_out(plan).await.map_err(self.postgres.named("maintenance"))
    }

    async fn open(&self) -> Result<Session> {
        Session::open_long(self.postgres.config(), &self.postgres.config().database).await
    }

    fn tell(&self, progress: &MaintenanceProgress) {
        if let Some(listener) = &self.listener {
            listener(progress);
        }
    }
}

impl fmt::Debug for PostgresMaintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresMaintenance")
            .field("postgres", &self.postgres)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
