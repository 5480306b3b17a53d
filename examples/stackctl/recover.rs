//! `recover`: what restores of a PostgreSQL database that were cut short left, and replaced databases.

use stackkit::postgres::RemoveOld;
use stackkit::{Error, Service};

use crate::cli::{RecoverArgs, Replaced, Target};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::restore::confirmed;
use crate::setup;

/// Shows the plan, asks, and carries it out.
pub(crate) async fn recover(target: &Target, args: &RecoverArgs, out: &mut Output) -> Outcome {
    let service = setup::postgres(target, &args.service, "SERVICE", out)?;
    let failed = |error: Error| Failure { exit: Exit::Service, error };
    let plan = match args.remove_old {
        None => service.plan_recovery().await,
        Some(Replaced::Expired) => service.plan_removal_of_old(RemoveOld::Expired).await,
        Some(Replaced::All) => service.plan_removal_of_old(RemoveOld::All).await,
    };
    let plan = plan.map_err(failed)?;
    if args.plan || plan.steps.is_empty() {
        out.result(&plan, &plan).map_err(Failure::usage)?;
        return Ok(Exit::Done);
    }
    if !args.yes && !confirmed(&plan, service.id().as_str(), out).await? {
        out.note("another name was typed; nothing is changed");
        return Ok(Exit::No);
    }
    // A report has only what was done; what was left alone may need somebody.
    for note in &plan.notes {
        out.warning(note);
    }
    let report = service.recover(plan).await.map_err(failed)?;
    out.result(&report, &report).map_err(Failure::usage)?;
    Ok(Exit::Done)
}
