//! A probe on the warm connection, against the same probe on a fresh one.

use std::collections::BTreeMap;
use std::time::Duration;

use stackkit::Clock;
use stackkit::health::{ProbeContext, Tier};

use crate::rounds::{Contender, Rounds, Row};
use crate::{Result, run};

/// Probes in one run; the run's result is their mean.
const PROBES: u32 = 200;

/// Longer than any probe of a server on this machine takes.
const DEADLINE: Duration = Duration::from_secs(5);

/// Plays the rounds.
///
/// # Errors
/// If a server is missing or a probe fails.
pub(crate) fn bench(rounds: &Rounds) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let postgres = runtime.block_on(stackkit_fixtures::postgres())?;
    let redis = runtime.block_on(stackkit_fixtures::redis())?;
    let mut rows = Vec::new();
    for (case, url) in [("postgres", &postgres.url()), ("redis", &redis.url())] {
        let probe = |how: &'static str| move || run::ours("probe", case, [case, url, how]);
        let warm = Contender::new("warm connection", probe("warm"));
        let fresh = Contender::new("fresh connection per probe", probe("fresh"));
        rows.extend(rounds.play(warm, vec![fresh])?);
    }
    Ok(rows)
}

/// Probes a server again and again and tells the mean.
pub(crate) async fn child(args: &[String]) -> Result<BTreeMap<String, f64>> {
    let [case, url, how] = args else { return Err("probe takes a case, a URL, and `warm` or `fresh`".into()) };
    let service = stackkit::service(url)?;
    let check = service.health_check().ok_or("the service has no health check")?;
    let clock = Clock::system();
    let probe = async || check.probe(&ProbeContext::new(Tier::Vitals, clock.instant() + DEADLINE)).await;
    probe().await?;
    let start = run::now();
    for _ in 0..PROBES {
        if how == "fresh" {
            check.reset().await;
        }
        probe().await?;
    }
    let mean = start.elapsed().as_secs_f64() / f64::from(PROBES);
    Ok(BTreeMap::from([(case.clone(), mean)]))
}
