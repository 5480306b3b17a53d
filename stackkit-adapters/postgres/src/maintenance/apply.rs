//! Carries a plan out, one statement after the other.

use std::time::Duration;

use stackkit_core::{Clock, Error, ErrorKind, Result, Service};

use crate::client::{Session, number, text};
use crate::maintenance::PostgresMaintenance;
use crate::maintenance::audit::{MaintenanceAudit, MaintenanceOutcome, MaintenanceReport};
use crate::maintenance::cancel::Running;
use crate::maintenance::catalog;
use crate::maintenance::plan::{MaintenancePlan, MaintenanceStep};
use crate::maintenance::task::MaintenanceAction;
use crate::maintenance::watch::{MaintenanceProgress, watch};

/// How often the server looks whether the client is still there while a statement runs: for a process that was killed and
/// could not ask to cancel. A look is one system call.
const CLIENT_CHECK: Duration = Duration::from_secs(10);

/// The sessions and what every step needs.
struct Job<'a> {
    maintenance: &'a PostgresMaintenance,
    session: Session,
    watcher: Session,
    pid: u64,
    role: String,
    steps: usize,
}

impl PostgresMaintenance {
    pub(crate) async fn carry_out(&self, plan: MaintenancePlan) -> Result<MaintenanceReport> {
        let session = self.open().await?;
        self.check_plan(&session, &plan).await?;
        // It came with version 14, and not every system can.
        let check = format!(
            "SELECT set_config(name, '{}', false) FROM pg_settings WHERE name = 'client_connection_check_interval'",
            CLIENT_CHECK.as_millis()
        );
        let _unsupported = session.execute(&check).await;
        let row = session.row("SELECT pg_backend_pid(), current_user").await?;
        let (pid, role) = (number(&row, 0)?, text(&row, 1)?.to_owned());
        let watcher = self.open().await?;
        let job = Job { maintenance: self, session, watcher, pid, role, steps: plan.steps.len() };
        let service = self.postgres.id().clone();
        let mut report = MaintenanceReport { service, steps: Vec::new(), leftovers: Vec::new() };
        for (index, step) in plan.steps.iter().enumerate() {
            let audit = job.step(index + 1, step).await;
            audit.trace(self.postgres.id());
            report.steps.push(audit);
            if step.action.builds_indexes() {
                job.add_leftovers(step, &mut report).await;
            }
        }
        Ok(report)
    }
}

impl Job<'_> {
    async fn step(&self, number: usize, step: &MaintenanceStep) -> MaintenanceAudit {
        let clock = Clock::system();
        let (at, began) = (clock.now(), clock.instant());
        let outcome = match self.session.is_closed() {
            true => MaintenanceOutcome::NotBegun,
            false => match self.run(number, step).await {
                Ok(()) => MaintenanceOutcome::Done,
                Err(error) => MaintenanceOutcome::of(&error),
            },
        };
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let after = catalog::by_name(&self.watcher, &step.relation).await.ok();
        MaintenanceAudit {
            at,
            role: self.role.clone(),
            database: self.maintenance.postgres.config().database.clone(),
            command: step.sql(),
            duration_ms,
            outcome,
            bytes_before: step.size_bytes,
            bytes_after: after.map(|relation| relation.size_bytes),
        }
    }

    async fn run(&self, number: usize, step: &MaintenanceStep) -> Result<()> {
        // An earlier step may have rewritten the same table, or have built the same index anew: that one has another oid.
        let found = catalog::by_name(&self.session, &step.relation).await?;
        if found.id.oid != step.id.oid && step.action != MaintenanceAction::Reindex {
            let error = Error::new(ErrorKind::Incompatible, "another table or index took its name");
            return Err(error.with_context("relation", &step.relation));
        }
        found.check(step.action, self.session.major)?;
        let sql = step.action.sql(&found.name);
        let show = |phase: &str, (done, total), unit: &str| {
            let (command, phase, unit) = (sql.clone(), phase.to_owned(), unit.to_owned());
            self.maintenance.tell(&MaintenanceProgress {
                step: number,
                steps: self.steps,
                command,
                phase,
                done,
                total,
                unit,
            });
        };
        show("starting", (0, 0), "blocks");
        let running = Running::begin(self.maintenance.postgres.config(), &self.session);
        let looks = async {
            // A watcher that fails costs the progress, not the work.
            let _blind = watch(&self.watcher, (step.action, self.pid), show).await;
            std::future::pending::<()>().await;
        };
        let done = tokio::select! {
            biased;
            done = self.session.execute(&sql) => done,
            () = looks => Ok(()),
        };
        running.end();
        show("ended", (0, 0), "blocks");
        done
    }

    /// Names what a rebuild that failed has left. Where that can't be asked, the findings tell later.
    async fn add_leftovers(&self, step: &MaintenanceStep, report: &mut MaintenanceReport) {
        let asked = async {
            let relation = catalog::by_name(&self.watcher, &step.relation).await?;
            catalog::leftovers(&self.watcher, relation.table_oid).await
        };
        for index in asked.await.unwrap_or_default() {
            if !report.leftovers.contains(&index) {
                report.leftovers.push(index);
            }
        }
    }
}
