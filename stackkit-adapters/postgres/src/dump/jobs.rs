//! How many connections read at once.

use std::thread::available_parallelism;

use crate::client::{Session, number};
use crate::config::{Host, PostgresConfig};
use crate::options::JOBS_MAX_DEFAULT;

/// Connections to a server whose cores nobody tells: few servers have fewer cores, and two already hide the waiting of
/// one.
const JOBS_UNKNOWN: usize = 2;

/// The cores of a server on Linux whose files the role may read.
const CORES: &str = "SELECT CASE WHEN has_function_privilege('pg_read_file(text, int8, int8, bool)', 'EXECUTE') \
    THEN (SELECT count(*) FROM regexp_matches(pg_read_file('/proc/cpuinfo', 0, 1048576, true), '^processor', 'gn')) END";

/// As many as are configured, else the cores of the server up to [`JOBS_MAX_DEFAULT`]: those of this machine if the server
/// is on it, those that the server tells, or [`JOBS_UNKNOWN`].
pub(super) async fn count(config: &PostgresConfig, session: &Session) -> usize {
    if let Some(jobs) = config.dump.jobs {
        return jobs;
    }
    let cores = match is_here(config) {
        true => available_parallelism().ok().map(std::num::NonZeroUsize::get),
        // Not to know it is no fault: the role may lack the right, and another system has no such file.
        false => match session.row(CORES).await {
            Ok(row) => number(&row, 0).ok().and_then(|cores| usize::try_from(cores).ok()),
            Err(_not_told) => None,
        },
    };
    cores.filter(|cores| *cores > 0).unwrap_or(JOBS_UNKNOWN).min(JOBS_MAX_DEFAULT)
}

/// Whether the server is on this machine.
fn is_here(config: &PostgresConfig) -> bool {
    match &config.host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
    }
}
