//! The load generator.

use std::collections::BTreeMap;

use crate::{Result, run};

/// One thread of load for the two cores, and the connections of a busy ingress.
const LOAD: &str = "wrk -t1 -c64 -d3s --latency";

/// Whether it is there.
///
/// # Errors
/// If it is not.
pub(crate) fn find() -> Result {
    match run::is_installed("wrk") {
        true => Ok(()),
        false => Err("wrk is not installed; `cargo xtask servers wrk` installs it".into()),
    }
}

/// Loads `url`; gives two percentiles of the latency and the mean time per request over all connections, in seconds.
///
/// # Errors
/// If an answer is not 200.
pub(crate) fn load(url: &str) -> Result<BTreeMap<String, f64>> {
    parse(&run::read(&format!("{LOAD} {url}"), &[])?)
}

/// What `wrk` measured, in seconds: two percentiles of the latency, and the mean time per request over all connections.
fn parse(report: &str) -> Result<BTreeMap<String, f64>> {
    if report.contains("Non-2xx") || report.contains("Socket errors") {
        return Err(format!("not every answer was good:\n{report}").into());
    }
    let after = |name: &str| report.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let latency = |name: &str| after(name).and_then(seconds).ok_or_else(|| format!("wrk told no {name}"));
    let rate: f64 = after("Requests/sec:").ok_or("wrk told no rate")?.parse()?;
    let cases = [("latency-p50", latency("50%")?), ("latency-p99", latency("99%")?), ("time-per-request", 1.0 / rate)];
    Ok(cases.map(|(case, seconds)| (case.to_owned(), seconds)).into())
}

/// Reads `93.00us`, `1.20ms`, `2.00s`.
fn seconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let (number, scale) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    number.parse::<f64>().ok().map(|number| number * scale)
}
