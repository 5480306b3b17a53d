//! `maintain`: what wants maintenance in each PostgreSQL of the stack, and its work.

use stackkit::postgres::{
    MaintenanceAction, MaintenanceFindings, MaintenancePlan, MaintenanceProgress, MaintenanceTask, Postgres,
    PostgresConfig, PostgresMaintenance,
};
use stackkit::{Error, ErrorKind, Service};

use crate::cli::value::Named;
use crate::cli::{MaintainArgs, Target};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::setup;

/// Shows findings and plan, and with `--apply` does what the plan says.
pub(crate) async fn maintain(target: &Target, args: &MaintainArgs, out: &mut Output) -> Outcome {
    let mut databases = Vec::new();
    for named in &target.services {
        databases.extend(database(named, out).map_err(Failure::usage)?);
    }
    let tasks = args.tasks();
    if databases.is_empty() || (databases.len() > 1 && !tasks.is_empty()) {
        let message = "maintain needs a PostgreSQL: --service [ID=]postgres://…; exactly one where tables are named";
        return Err(Failure::usage(Error::config(message)));
    }
    let mut exit = Exit::Done;
    for postgres in databases {
        let teller = out.clone();
        let maintenance = postgres.maintenance().with_progress(move |progress| tell(&teller, progress));
        let plan = match tasks.is_empty() {
            true => found(&postgres, &maintenance, out).await?,
            false => maintenance.plan(tasks.clone()).await.map_err(failed)?,
        };
        out.result(&plan, &plan).map_err(Failure::usage)?;
        if args.apply && !apply(&maintenance, plan, out).await? {
            exit = Exit::Service;
        }
    }
    if !args.apply && !out.is_json() {
        out.note("nothing was changed: --apply does what the plan says");
    }
    Ok(exit)
}

/// The service, if it is a PostgreSQL.
fn database(named: &Named, out: &mut Output) -> stackkit::Result<Option<Postgres>> {
    let url = setup::url(&named.location, "--service", out)?;
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
        return Ok(None);
    }
    let postgres = Postgres::new(PostgresConfig::from_url(url.expose())?);
    Ok(Some(match &named.id {
        Some(id) => postgres.with_id(id),
        None => postgres,
    }))
}

/// Shows what was found, and plans what mends it.
async fn found(postgres: &Postgres, maintenance: &PostgresMaintenance, out: &Output) -> Outcome<MaintenancePlan> {
    let found: MaintenanceFindings = maintenance.findings().await.map_err(failed)?;
    let text = if found.findings.is_empty() { format!("nothing was found\n{found}") } else { found.to_string() };
    let value = serde_json::json!({ "service": postgres.id(), "findings": found.findings, "notes": found.notes });
    out.result(text, &value).map_err(Failure::usage)?;
    maintenance.plan_for(&found.findings).await.map_err(failed)
}

/// Whether every step was done.
async fn apply(maintenance: &PostgresMaintenance, plan: MaintenancePlan, out: &Output) -> Outcome<bool> {
    let report = maintenance.apply(plan).await.map_err(failed)?;
    out.result(&report, &report).map_err(Failure::usage)?;
    Ok(report.is_complete())
}

fn tell(out: &Output, progress: &MaintenanceProgress) {
    let MaintenanceProgress { step, steps, command, phase, done, total, unit, .. } = progress;
    if matches!(phase.as_str(), "starting" | "ended") {
        out.step(format_args!("{step}/{steps} {command}: {phase}"), serde_json::json!(progress));
    } else {
        out.moving(&format!("{step}/{steps} {command}: {phase}, {done} of {total} {unit}"));
    }
}

fn failed(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Config | ErrorKind::NotFound => Failure::usage(error),
        _ => Failure { exit: Exit::Service, error },
    }
}

impl MaintainArgs {
    /// What was asked for by name, in the order of the help text.
    fn tasks(&self) -> Vec<MaintenanceTask> {
        let named = [
            (MaintenanceAction::Vacuum, &self.vacuum),
            (MaintenanceAction::VacuumFreeze, &self.freeze),
            (MaintenanceAction::VacuumFull, &self.vacuum_full),
            (MaintenanceAction::Analyze, &self.analyze),
            (MaintenanceAction::Reindex, &self.reindex),
        ];
        let tasks = named.into_iter().flat_map(|(action, names)| {
            let task = move |name: &String| MaintenanceTask::new(action, name);
            names.iter().map(task)
        });
        tasks.map(|task| if self.force { task.with_force() } else { task }).collect()
    }
}
