//! `prune`, `undelete` and `gc`: what is deleted, and how that is taken back.

use stackkit::backup::{GcOptions, Retention};
use stackkit::{Clock, RepositoryOptions};

use crate::cli::{GcArgs, KeepArgs, PruneArgs, Target, UndeleteArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::keys;
use crate::list::open;
use crate::output::Output;
use crate::progress::Teller;
use crate::setup;
use crate::verify::absent;

/// Shows what the policy keeps and deletes, and with `--apply` deletes it.
pub(crate) async fn prune(target: &Target, args: &PruneArgs, out: &mut Output) -> Outcome {
    let url = setup::repository_url(target, out)?;
    let policy = policy(&args.keep).map_err(Failure::usage)?;
    let options = keys::signing(keys::trusting(&args.trust)?, &args.sign)?;
    let repository = open(&url, keys::leasing(options, &args.lease)).await?;
    let plan = repository.plan_retention(&policy).await.map_err(Failure::repository)?;
    let plan = if args.force { plan.force() } else { plan };
    out.result(&plan, &plan).map_err(Failure::usage)?;
    if !args.apply {
        if !out.is_json() {
            out.note(
                "nothing was deleted: --apply announces the deletions, and a prune after the time of grace does them",
            );
        }
        return Ok(Exit::Done);
    }
    let prune = repository.prune(plan).with_progress(Teller::new(out, &Clock::system()));
    let report = prune.run().await.map_err(Failure::repository)?;
    out.result(&report, &report).map_err(Failure::usage)?;
    Ok(Exit::Done)
}

/// Takes back an announced deletion.
pub(crate) async fn undelete(target: &Target, args: &UndeleteArgs, out: &mut Output) -> Outcome {
    let url = setup::repository_url(target, out)?;
    let repository = open(&url, keys::leasing(keys::trusting(&args.trust)?, &args.lease)).await?;
    repository.undelete(&args.backup).await.map_err(absent)?;
    let done = serde_json::json!({ "id": args.backup, "state": "ready" });
    out.result(format_args!("{} counts again", args.backup), &done).map_err(Failure::usage)?;
    Ok(Exit::Done)
}

/// Shows what crashes left, and with `--apply` removes it.
pub(crate) async fn gc(target: &Target, args: &GcArgs, out: &mut Output) -> Outcome {
    let url = setup::repository_url(target, out)?;
    let repository = open(&url, keys::leasing(RepositoryOptions::new(), &args.lease)).await?;
    let options = args.older_than.map_or_else(GcOptions::new, |age| GcOptions::new().with_min_age(age));
    let plan = repository.plan_gc(&options).await.map_err(Failure::repository)?;
    out.result(&plan, &plan).map_err(Failure::usage)?;
    if args.apply {
        let gc = repository.gc(plan).with_progress(Teller::new(out, &Clock::system()));
        let report = gc.run().await.map_err(Failure::repository)?;
        out.result(&report, &report).map_err(Failure::usage)?;
    }
    Ok(Exit::Done)
}

fn policy(args: &KeepArgs) -> stackkit::Result<Retention> {
    type Rule = fn(Retention, u32) -> Retention;
    let counts: [(Option<u32>, Rule); 7] = [
        (args.keep_last, Retention::keep_last),
        (args.keep_hourly, Retention::keep_hourly),
        (args.keep_daily, Retention::keep_daily),
        (args.keep_weekly, Retention::keep_weekly),
        (args.keep_monthly, Retention::keep_monthly),
        (args.keep_quarterly, Retention::keep_quarterly),
        (args.keep_yearly, Retention::keep_yearly),
    ];
    let said = counts.into_iter().filter_map(|(count, rule)| Some((count?, rule)));
    let mut policy = said.fold(Retention::new(), |policy, (count, rule)| rule(policy, count));
    if let Some(span) = args.keep_within {
        policy = policy.keep_within(span);
    }
    policy = args.keep_tag.iter().fold(policy, Retention::keep_tag);
    policy = args.keep_id.iter().copied().fold(policy, Retention::keep_id);
    if let Some(grace) = args.grace {
        policy = policy.with_grace(grace);
    }
    let policy = match &args.time_zone {
        Some(name) => policy.with_time_zone_named(name)?,
        None => policy,
    };
    policy.validate().map(|()| policy)
}
