//! What would be done: plain data that the caller hands back.

use std::fmt;

use serde::{Deserialize, Serialize};
use stackkit_core::{Error, ErrorKind, Result, Service, ServiceId};

use crate::client::Session;
use crate::maintenance::PostgresMaintenance;
use crate::maintenance::catalog::{self, Relation, RelationId};
use crate::maintenance::finding::MaintenanceFinding;
use crate::maintenance::task::{MaintenanceAction, MaintenanceTask};

/// One statement of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MaintenanceStep {
    /// What is done.
    pub action: MaintenanceAction,
    /// To what: schema and name, quoted.
    pub relation: String,
    /// Which table or index that name meant when the plan was made.
    pub id: RelationId,
    /// How large it was then, in bytes; for a table with its indexes and what it keeps aside.
    pub size_bytes: u64,
    /// What is locked, and what that means for others.
    pub locks: String,
}

impl MaintenanceStep {
    fn new(action: MaintenanceAction, relation: &Relation) -> Self {
        let locks = action.locks().to_owned();
        Self { action, relation: relation.name.clone(), id: relation.id, size_bytes: relation.size_bytes, locks }
    }

    /// The statement.
    #[must_use]
    pub fn sql(&self) -> String {
        self.action.sql(&self.relation)
    }
}

/// What a maintenance would do, in order: plain data that can be shown, stored and applied later.
///
/// It carries which table or index each name meant. A plan is refused when a name means another one, or when one was
/// rewritten since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MaintenancePlan {
    /// The service that is maintained.
    pub service: ServiceId,
    /// Its database.
    pub database: String,
    /// The statements, one after the other.
    pub steps: Vec<MaintenanceStep>,
    /// What the reader of the plan should know: what was left out, and why.
    pub warnings: Vec<String>,
}

impl fmt::Display for MaintenancePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (database {})", self.service, self.database)?;
        for step in &self.steps {
            writeln!(f, "  {} ({} bytes)", step.sql(), step.size_bytes)?;
            writeln!(f, "    locks {}", step.locks)?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "  warning: {warning}"))
    }
}

impl PostgresMaintenance {
    pub(crate) async fn make_plan(&self, tasks: &[MaintenanceTask]) -> Result<MaintenancePlan> {
        let session = self.open().await?;
        let mut plan = self.empty_plan();
        for task in tasks {
            plan.add(&session, task).await?;
        }
        Ok(plan)
    }

    /// What can be done without a decision of a person; the rest becomes a warning.
    pub(crate) async fn make_plan_for(&self, findings: &[MaintenanceFinding]) -> Result<MaintenancePlan> {
        let session = self.open().await?;
        let mut plan = self.empty_plan();
        for finding in findings {
            let left_out = |why: &str| format!("left out: {}: {why}", finding.command);
            match &finding.task {
                None => plan.warnings.push(left_out("to decide by hand")),
                Some(task) if task.action == MaintenanceAction::VacuumFull => {
                    plan.warnings.push(left_out("it locks everybody out; ask for it by name, with force"));
                }
                Some(task) => match plan.add(&session, task).await {
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                        plan.warnings.push(left_out(&error.to_string()));
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => plan.warnings.push(left_out("it is gone")),
                    added => added?,
                },
            }
        }
        plan.drop_covered();
        Ok(plan)
    }

    fn empty_plan(&self) -> MaintenancePlan {
        let (service, database) = (self.postgres.id().clone(), self.postgres.config().database.clone());
        MaintenancePlan { service, database, steps: Vec::new(), warnings: Vec::new() }
    }

    /// Refuses a plan of another service, or of tables and indexes that are others by now.
    pub(crate) async fn check_plan(&self, session: &Session, plan: &MaintenancePlan) -> Result<()> {
        if plan.service != *self.postgres.id() || plan.database != self.postgres.config().database {
            return Err(stale("the plan is of another service or database", &plan.database));
        }
        for step in &plan.steps {
            let found = catalog::by_name(session, &step.relation).await?;
            if found.id != step.id {
                return Err(stale("it is another one or was rewritten since the plan was made", &step.relation));
            }
            found.check(step.action, session.major)?;
        }
        Ok(())
    }
}

fn stale(message: &str, relation: &str) -> Error {
    Error::new(ErrorKind::Incompatible, message).with_context("relation", relation)
}

impl MaintenancePlan {
    /// Adds a step, once, and before it what an earlier rebuild of the same table left.
    async fn add(&mut self, session: &Session, task: &MaintenanceTask) -> Result<()> {
        if task.action == MaintenanceAction::VacuumFull && !task.force {
            let message = "VACUUM FULL locks everybody out of the table until the end; it needs force";
            return Err(Error::config(message).with_context("relation", &task.relation));
        }
        let relation = catalog::by_name(session, &task.relation).await?;
        relation.check(task.action, session.major)?;
        if task.action.builds_indexes() {
            for name in catalog::leftovers(session, relation.table_oid).await? {
                let left = catalog::by_name(session, &name).await?;
                left.check(MaintenanceAction::DropInvalidIndex, session.major)?;
                self.push(MaintenanceStep::new(MaintenanceAction::DropInvalidIndex, &left));
            }
        }
        self.push(MaintenanceStep::new(task.action, &relation));
        Ok(())
    }

    fn push(&mut self, step: MaintenanceStep) {
        if !self.steps.iter().any(|known| known.action == step.action && known.id == step.id) {
            self.steps.push(step);
        }
    }

    /// Leaves out what another step of the same table does too: several findings ask for the same work.
    fn drop_covered(&mut self) {
        let does = |action, by: &MaintenanceStep, of: &MaintenanceStep| by.action == action && by.id == of.id;
        let steps = self.steps.clone();
        self.steps.retain(|step| match step.action {
            MaintenanceAction::Vacuum | MaintenanceAction::Analyze => {
                !steps.iter().any(|other| does(MaintenanceAction::VacuumAnalyze, other, step))
            }
            _ => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(action: MaintenanceAction, oid: u32) -> MaintenanceStep {
        let id = RelationId { oid, filenode: oid };
        MaintenanceStep {
            action,
            relation: format!("public.t{oid}"),
            id,
            size_bytes: 8192,
            locks: action.locks().to_owned(),
        }
    }

    fn plan(steps: &[MaintenanceStep]) -> MaintenancePlan {
        let service = ServiceId::new("orders").expect("an id");
        let mut plan =
            MaintenancePlan { service, database: "shop".to_owned(), steps: Vec::new(), warnings: Vec::new() };
        steps.iter().cloned().for_each(|step| plan.push(step));
        plan
    }

    #[test]
    fn the_same_work_is_planned_once() {
        use MaintenanceAction::{Analyze, VacuumAnalyze};
        let mut plan = plan(&[step(Analyze, 1), step(VacuumAnalyze, 1), step(VacuumAnalyze, 1), step(Analyze, 2)]);
        plan.drop_covered();
        assert_eq!(plan.steps, [step(VacuumAnalyze, 1), step(Analyze, 2)]);
    }

    #[test]
    fn a_plan_shows_statements_sizes_and_locks_and_is_plain_data() {
        let plan = plan(&[step(MaintenanceAction::VacuumFull, 1)]);
        let text = plan.to_string();
        for part in ["database shop", "VACUUM (FULL, ANALYZE) public.t1 (8192 bytes)", "ACCESS EXCLUSIVE"] {
            assert!(text.contains(part), "{text}");
        }
        let json = serde_json::to_string(&plan).expect("JSON");
        assert_eq!(serde_json::from_str::<MaintenancePlan>(&json).expect("a plan"), plan);
    }
}
