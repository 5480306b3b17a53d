//! All vitals over the warm connection, against the same over a fresh one, against a fresh connection that is only pinged, and
//! against `SELECT 1` over a fresh connection of the vendor's own client: what checks that connect each time cost at least.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use stackkit::health::Tier;
use stackkit::{Clock, ProbeContext};
use stackkit_fixtures::{PostgresOptions, RedisOptions, postgres_server, redis_with};
use url::Url;

use crate::rounds::{Contender, Rounds, Row, Sample};
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
    let postgres = runtime.block_on(postgres_server(PostgresOptions::new().with_tcp("bench-of-health-checks")))?;
    let redis = runtime.block_on(redis_with(RedisOptions::new().with_tcp().with_password("bench-of-health-checks")))?;
    let no_port = "the server has no port";
    let cases = [
        ("postgres", postgres.tcp_url_of("postgres").ok_or(no_port)?),
        ("postgres-socket", postgres.url()),
        ("redis", redis.tcp_url().ok_or(no_port)?),
    ];
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("one.sql");
    std::fs::write(&script, "SELECT 1;\n")?;
    let mut rows = Vec::new();
    for (case, url) in &cases {
        let probe = |how: &'static str| move || run::ours("probe", case, [case, url.as_str(), how]);
        let warm = Contender::new("vitals, warm connection", probe("warm"));
        let ping = Contender::new("ping, fresh connection each", probe("fresh-ping"));
        let fresh = Contender::new("vitals, fresh connection each", probe("fresh"));
        let mut peers = vec![ping, fresh];
        if case.starts_with("postgres") {
            peers.push(Contender::new("libpq: SELECT 1, fresh each", || select_one(case, url, &script)));
        }
        rows.extend(rounds.play(warm, peers)?);
    }
    Ok(rows)
}

/// What `pgbench` takes to connect, log in and run `SELECT 1`, each time anew.
fn select_one(case: &str, url: &str, script: &Path) -> Result<Sample> {
    let url = Url::parse(url)?;
    let host = percent_decode(url.host_str().unwrap_or_default());
    let port = url.port().unwrap_or(5432).to_string();
    let (user, password) = (percent_decode(url.username()), percent_decode(url.password().unwrap_or_default()));
    let env = [
        ("PGHOST", Path::new(&host)),
        ("PGPORT", Path::new(&port)),
        ("PGUSER", Path::new(&user)),
        ("PGPASSWORD", Path::new(&password)),
        ("PGDATABASE", Path::new("postgres")),
        ("SCRIPT", script),
    ];
    let line = format!("pgbench --no-vacuum --connect --transactions={PROBES} --file=\"$SCRIPT\"");
    let told = run::read(&line, &env)?;
    let mean = told.lines().find_map(|line| line.strip_prefix("latency average = ")?.strip_suffix(" ms"));
    let mean_ms: f64 = mean.ok_or_else(|| format!("pgbench told no latency:\n{told}"))?.parse()?;
    Ok(Sample { cases: BTreeMap::from([(case.to_owned(), mean_ms / 1e3)]), ..Sample::default() })
}

/// The host of a URL that is a socket's folder has its slashes encoded.
fn percent_decode(text: &str) -> String {
    text.replace("%2F", "/").replace("%2f", "/")
}

/// Probes a server again and again and tells the mean.
pub(crate) async fn child(args: &[String]) -> Result<BTreeMap<String, f64>> {
    let [case, url, how] = args else {
        return Err("probe takes a case, a URL, and `warm`, `fresh` or `fresh-ping`".into());
    };
    let service = stackkit::service(url)?;
    let check = service.health_check().ok_or("the service has no health check")?;
    let clock = Clock::system();
    let tier = if how == "fresh-ping" { Tier::Ping } else { Tier::Vitals };
    let probe = async || check.probe(&ProbeContext::new(tier, clock.instant() + DEADLINE)).await;
    probe().await?;
    let start = run::now();
    for _ in 0..PROBES {
        if how != "warm" {
            check.reset().await;
        }
        probe().await?;
    }
    let mean = start.elapsed().as_secs_f64() / f64::from(PROBES);
    Ok(BTreeMap::from([(case.clone(), mean)]))
}
