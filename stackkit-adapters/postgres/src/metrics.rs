//! What a probe asks, and what the answers mean. Measurements name the view that they come from.

use stackkit_core::health::{Axis, Finding, Measurement, MeasurementKind, MeasurementValue, Severity};
use stackkit_core::{Observation, Result};
use tokio_postgres::SimpleQueryRow;

use crate::client;
use crate::error::PostgresError;

/// From which part of the usable connections on it is worth acting.
const CONNECTIONS_NEAR_MAX_RATIO: f64 = 0.8;

/// Transaction ids after which vacuuming should long have frozen (`autovacuum_freeze_max_age` is 200 million).
const XID_AGE_WARNING: f64 = 500e6;

/// `vacuum_failsafe_age`: from here on the server itself treats it as an emergency.
const XID_AGE_CRITICAL: f64 = 1.6e9;

/// A transaction open for longer holds back vacuuming noticeably.
const TRANSACTION_LONG_SECONDS: f64 = 3600.0;

/// Why a field has no number when the role may not see other sessions.
const NO_RIGHT: &str = "needs the role pg_monitor";

/// The statement of a vitals probe: one row, one round trip, PostgreSQL 12 to 18.
pub(crate) const VITALS: &str = "SELECT \
    split_part(current_setting('server_version'), ' ', 1) AS version, \
    pg_is_in_recovery()::int AS in_recovery, \
    pg_has_role('pg_read_all_stats', 'USAGE')::int AS sees_all, \
    current_setting('fsync') AS fsync, \
    extract(epoch FROM clock_timestamp()) AS clock_seconds, \
    extract(epoch FROM now() - pg_postmaster_start_time()) AS uptime_seconds, \
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
        - coalesce(current_setting('reserved_connections', true)::int, 0) AS connections_max, \
    a.*, d.*, x.*, p.*, s.*, w.*, \
    CASE WHEN NOT pg_is_in_recovery() THEN NULL \
         WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 \
         ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END AS replication_lag_seconds \
    FROM (SELECT count(*) FILTER (WHERE backend_type = 'client backend') AS connections_used, \
        count(*) FILTER (WHERE datid IS NOT NULL) AS sessions, \
        count(*) FILTER (WHERE state = 'active') AS connections_active, \
        count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS connections_idle_in_transaction, \
        count(*) FILTER (WHERE wait_event_type = 'Lock') AS connections_blocked, \
        count(*) FILTER (WHERE wait_event_type = 'Lock' AND now() - state_change > interval '10 s') AS blocked_long, \
        coalesce(extract(epoch FROM max(now() - xact_start) FILTER (WHERE backend_type = 'client backend')), 0) \
            AS transaction_longest_seconds FROM pg_stat_activity) a, \
    (SELECT sum(blks_hit) AS blocks_hit, sum(blks_read) AS blocks_read, sum(deadlocks) AS deadlocks, \
        sum(temp_bytes) AS temp_bytes, sum(xact_commit) AS commits, sum(xact_rollback) AS rollbacks, \
        coalesce(sum(checksum_failures), 0) AS checksum_failures FROM pg_stat_database) d, \
    (SELECT max(age(datfrozenxid)) AS xid_age, max(mxid_age(datminmxid)) AS mxid_age FROM pg_database) x, \
    (SELECT coalesce(extract(epoch FROM max(now() - prepared)), 0) AS prepared_oldest_seconds \
        FROM pg_prepared_xacts) p, \
    (SELECT count(*) FILTER (WHERE NOT active) AS slots_inactive FROM pg_replication_slots) s, \
    (SELECT (coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false))::int AS archiver_failing \
        FROM pg_stat_archiver) w";

/// The sizes of the database and of its 20 largest tables (by the planner's page count; few, because each is a label of
/// its own), and how many indexes are invalid.
pub(crate) const INVENTORY: &str = "\
    SELECT NULL, NULL, pg_database_size(current_database()), (SELECT count(*) FROM pg_index WHERE NOT indisvalid); \
    SELECT n.nspname, c.relname, c.relpages::bigint * current_setting('block_size')::bigint, 0 \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    ORDER BY c.relpages DESC, 1, 2 LIMIT 20";

/// The answer to [`VITALS`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Vitals {
    version: String,
    in_recovery: bool,
    sees_all: bool,
    fsync_off: bool,
    /// The server's wall clock, in seconds since 1970.
    pub(crate) clock_seconds: f64,
    uptime_seconds: f64,
    connections_max: f64,
    connections_used: f64,
    sessions: f64,
    connections_active: f64,
    connections_idle_in_transaction: f64,
    connections_blocked: f64,
    blocked_long: f64,
    transaction_longest_seconds: f64,
    blocks_hit: f64,
    blocks_read: f64,
    deadlocks: f64,
    temp_bytes: f64,
    commits: f64,
    rollbacks: f64,
    checksum_failures: f64,
    xid_age: f64,
    mxid_age: f64,
    prepared_oldest_seconds: f64,
    slots_inactive: f64,
    archiver_failing: bool,
    replication_lag_seconds: Option<f64>,
}

impl Vitals {
    pub(crate) fn read(row: &SimpleQueryRow) -> Result<Self> {
        let text = |name: &str| row.try_get(name).map_err(PostgresError::Query);
        let maybe = |name: &str| -> Result<Option<f64>> {
            let number = |text: &str| text.parse().map_err(|_not_a_number| PostgresError::Answer("a number").into());
            text(name)?.map(number).transpose()
        };
        let number = |name: &str| -> Result<f64> { Ok(maybe(name)?.ok_or(PostgresError::Answer("a number"))?) };
        Ok(Self {
            version: text("version")?.unwrap_or_default().to_owned(),
            in_recovery: number("in_recovery")? > 0.0,
            sees_all: number("sees_all")? > 0.0,
            fsync_off: text("fsync")? == Some("off"),
            clock_seconds: number("clock_seconds")?,
            uptime_seconds: number("uptime_seconds")?,
            connections_max: number("connections_max")?,
            connections_used: number("connections_used")?,
            sessions: number("sessions")?,
            connections_active: number("connections_active")?,
            connections_idle_in_transaction: number("connections_idle_in_transaction")?,
            connections_blocked: number("connections_blocked")?,
            blocked_long: number("blocked_long")?,
            transaction_longest_seconds: number("transaction_longest_seconds")?,
            blocks_hit: number("blocks_hit")?,
            blocks_read: number("blocks_read")?,
            deadlocks: number("deadlocks")?,
            temp_bytes: number("temp_bytes")?,
            commits: number("commits")?,
            rollbacks: number("rollbacks")?,
            checksum_failures: number("checksum_failures")?,
            xid_age: number("xid_age")?,
            mxid_age: number("mxid_age")?,
            prepared_oldest_seconds: number("prepared_oldest_seconds")?,
            slots_inactive: number("slots_inactive")?,
            archiver_failing: number("archiver_failing")? > 0.0,
            replication_lag_seconds: maybe("replication_lag_seconds")?,
        })
    }

    /// Sessions in use. Without the right to see their kind, all sessions that have a database: the server's own
    /// workers are among them, so it may be a few too high.
    fn used(&self) -> f64 {
        if self.sees_all { self.connections_used } else { self.sessions }
    }
}

/// The measurements and findings of one answer.
pub(crate) fn observe(vitals: &Vitals, previous: Option<&Observation>) -> Observation {
    let flag = |on: bool| f64::from(u8::from(on));
    let observation = Observation::new()
        .info("version", vitals.version.as_str())
        .info("role", if vitals.in_recovery { "standby" } else { "primary" })
        .info("fsync", if vitals.fsync_off { "off" } else { "on" })
        .gauge("uptime_seconds", vitals.uptime_seconds)
        .gauge("in_recovery_bool", flag(vitals.in_recovery))
        .gauge("connections_used_count", vitals.used())
        .gauge("connections_max_count", vitals.connections_max)
        .gauge("connections_used_ratio", vitals.used() / vitals.connections_max.max(1.0))
        .gauge("xid_age_count", vitals.xid_age)
        .gauge("multixact_age_count", vitals.mxid_age)
        .gauge("prepared_transaction_oldest_seconds", vitals.prepared_oldest_seconds)
        .gauge("replication_slots_inactive_count", vitals.slots_inactive)
        .counter("blocks_hit_count", vitals.blocks_hit)
        .counter("blocks_read_count", vitals.blocks_read)
        .counter("deadlocks_count", vitals.deadlocks)
        .counter("temp_written_bytes", vitals.temp_bytes)
        .counter("transactions_committed_count", vitals.commits)
        .counter("transactions_rolled_back_count", vitals.rollbacks)
        .counter("checksum_failures_count", vitals.checksum_failures);
    let observation = sessions(observation, vitals);
    let observation = lag(observation, vitals);
    let observation = hit_ratio(observation, vitals, previous);
    findings(vitals).into_iter().fold(observation, Observation::finding)
}

/// From `pg_stat_activity`.
fn sessions(observation: Observation, vitals: &Vitals) -> Observation {
    let fields = [
        ("connections_active_count", vitals.connections_active),
        ("connections_idle_in_transaction_count", vitals.connections_idle_in_transaction),
        ("connections_blocked_count", vitals.connections_blocked),
        ("transaction_longest_seconds", vitals.transaction_longest_seconds),
    ];
    fields.into_iter().fold(observation, |observation, (name, value)| match vitals.sees_all {
        true => observation.gauge(name, value),
        false => observation.unavailable(name, NO_RIGHT),
    })
}

fn lag(observation: Observation, vitals: &Vitals) -> Observation {
    match (vitals.replication_lag_seconds, vitals.in_recovery) {
        (Some(seconds), _) => observation.gauge("replication_lag_seconds", seconds),
        (None, true) => observation.unavailable("replication_lag_seconds", "nothing was replayed yet"),
        (None, false) => observation.unavailable("replication_lag_seconds", "not a standby"),
    }
}

/// From `pg_stat_database`, since the previous observation: the ratio since the server's start hardly ever moves.
fn hit_ratio(observation: Observation, vitals: &Vitals, previous: Option<&Observation>) -> Observation {
    let since = |name: &str, value: f64| previous.and_then(|previous| previous.value(name)).map(|old| value - old);
    let hit = since("blocks_hit_count", vitals.blocks_hit);
    let read = since("blocks_read_count", vitals.blocks_read);
    match (hit, read) {
        (Some(hit), Some(read)) if hit >= 0.0 && read >= 0.0 && hit + read > 0.0 => {
            observation.gauge("cache_hit_ratio", hit / (hit + read))
        }
        (Some(hit), Some(read)) if hit < 0.0 || read < 0.0 => {
            observation.unavailable("cache_hit_ratio", "the statistics were reset")
        }
        (Some(_), Some(_)) => observation.unavailable("cache_hit_ratio", "no block was read since the last probe"),
        _ => observation.unavailable("cache_hit_ratio", "needs a previous observation"),
    }
}

fn findings(vitals: &Vitals) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut risk = |exists: bool, code: &'static str, severity: Severity, message: &str, hint: &str| {
        if exists {
            findings.push(Finding::new(code, Axis::Risk, severity, message).with_hint(hint));
        }
    };
    let age = vitals.xid_age.max(vitals.mxid_age);
    risk(
        age >= XID_AGE_WARNING,
        "pg.wraparound.near",
        if age >= XID_AGE_CRITICAL { Severity::Critical } else { Severity::Warning },
        "transaction ids are not being frozen; the server stops accepting writes near 2 billion",
        "look for old transactions, prepared transactions and replication slots, then vacuum",
    );
    risk(
        vitals.sees_all && vitals.blocked_long > 0.0,
        "pg.blocked",
        Severity::Warning,
        "sessions have been waiting for a lock for more than 10 s",
        "pg_blocking_pids() names who holds it",
    );
    risk(
        vitals.sees_all && vitals.transaction_longest_seconds >= TRANSACTION_LONG_SECONDS,
        "pg.transaction.long",
        Severity::Warning,
        "a transaction has been open for more than an hour; vacuum can't remove what it may still see",
        "find it in pg_stat_activity by xact_start",
    );
    risk(
        vitals.prepared_oldest_seconds >= TRANSACTION_LONG_SECONDS,
        "pg.prepared.forgotten",
        Severity::Warning,
        "a prepared transaction has been waiting for more than an hour",
        "COMMIT PREPARED or ROLLBACK PREPARED it: see pg_prepared_xacts",
    );
    risk(
        vitals.checksum_failures > 0.0,
        "pg.checksum.failed",
        Severity::Critical,
        "pages with a wrong checksum were read: the disk or memory damages data",
        "stop writing, and restore from a backup onto other hardware",
    );
    risk(
        vitals.slots_inactive > 0.0,
        "pg.slots.inactive",
        Severity::Warning,
        "a replication slot has no consumer; it keeps WAL until the disk is full",
        "drop it with pg_drop_replication_slot() if its consumer is gone",
    );
    risk(
        vitals.archiver_failing,
        "pg.archiver.failing",
        Severity::Warning,
        "the last attempt to archive WAL failed; WAL piles up",
        "look at archive_command in the server's log",
    );
    risk(vitals.fsync_off, "pg.fsync.off", Severity::Info, "fsync is off: a crash loses data", "set fsync = on");
    findings.extend(connections(vitals));
    findings
}

/// No connection left is about readiness, few left is a risk.
fn connections(vitals: &Vitals) -> Option<Finding> {
    let hint = "use a pooler, or raise max_connections";
    if vitals.used() >= vitals.connections_max {
        let message = "every connection that ordinary roles may use is taken";
        return Some(
            Finding::new("pg.connections.exhausted", Axis::Ready, Severity::Critical, message).with_hint(hint),
        );
    }
    let near = vitals.used() >= vitals.connections_max * CONNECTIONS_NEAR_MAX_RATIO;
    let message = "80 % or more of the connections are in use";
    near.then(|| Finding::new("pg.connections.near_max", Axis::Risk, Severity::Warning, message).with_hint(hint))
}

/// Adds the answer to [`INVENTORY`].
pub(crate) fn inventory(mut observation: Observation, rows: &[SimpleQueryRow]) -> Result<Observation> {
    let mut invalid = 0;
    for row in rows {
        let value: f64 = client::text(row, 2)?.parse().map_err(|_not_a_number| PostgresError::Answer("a number"))?;
        invalid += client::number(row, 3)?;
        observation = match (row.get(0), row.get(1)) {
            (Some(schema), Some(table)) => {
                let value = MeasurementValue::Value(value);
                let size = Measurement::new("table_estimated_bytes", MeasurementKind::Gauge, value);
                observation.measurement(size.with_label("table", format!("{schema}.{table}")))
            }
            _ => observation.gauge("database_size_bytes", value),
        };
    }
    if invalid > 0 {
        let message = "an index is invalid: it costs writes and serves no query";
        let finding = Finding::new("pg.index.invalid", Axis::Risk, Severity::Warning, message);
        observation = observation.finding(finding.with_hint("REINDEX INDEX CONCURRENTLY, or drop it"));
    }
    Ok(observation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vitals() -> Vitals {
        Vitals { sees_all: true, connections_max: 100.0, connections_used: 3.0, ..Vitals::default() }
    }

    fn codes(vitals: &Vitals) -> Vec<String> {
        observe(vitals, None).findings.iter().map(|finding| finding.code.to_string()).collect()
    }

    #[test]
    fn a_quiet_server_has_no_findings() {
        assert!(codes(&vitals()).is_empty());
    }

    #[test]
    fn findings_follow_their_limits() {
        assert_eq!(codes(&Vitals { connections_used: 80.0, ..vitals() }), ["pg.connections.near_max"]);
        assert_eq!(codes(&Vitals { connections_used: 100.0, ..vitals() }), ["pg.connections.exhausted"]);
        assert_eq!(codes(&Vitals { xid_age: 5e8, ..vitals() }), ["pg.wraparound.near"]);
        assert_eq!(codes(&Vitals { mxid_age: 2e9, ..vitals() }), ["pg.wraparound.near"]);
        assert_eq!(codes(&Vitals { blocked_long: 1.0, ..vitals() }), ["pg.blocked"]);
        assert_eq!(codes(&Vitals { checksum_failures: 1.0, ..vitals() }), ["pg.checksum.failed"]);
    }

    #[test]
    fn only_exhaustion_is_about_readiness() {
        let critical = Vitals { xid_age: 2e9, checksum_failures: 9.0, ..vitals() };
        assert!(observe(&critical, None).findings.iter().all(|finding| finding.axis == Axis::Risk));
        let full = observe(&Vitals { connections_used: 100.0, ..vitals() }, None);
        assert_eq!((full.findings[0].axis, full.findings[0].severity), (Axis::Ready, Severity::Critical));
    }

    #[test]
    fn the_hit_ratio_is_of_the_time_between_two_probes() {
        let first = Vitals { blocks_hit: 1000.0, blocks_read: 1000.0, ..vitals() };
        let second = Vitals { blocks_hit: 1090.0, blocks_read: 1010.0, ..vitals() };
        let before = observe(&first, None);
        assert_eq!(before.value("cache_hit_ratio"), None);
        assert_eq!(observe(&second, Some(&before)).value("cache_hit_ratio"), Some(0.9));
        assert_eq!(observe(&vitals(), Some(&before)).value("cache_hit_ratio"), None);
    }

    #[test]
    fn without_the_right_there_is_a_reason_not_a_number() {
        let blind = Vitals { sees_all: false, sessions: 7.0, blocked_long: 5.0, ..vitals() };
        let observation = observe(&blind, None);
        assert_eq!(observation.value("connections_used_count"), Some(7.0));
        assert_eq!(observation.value("connections_active_count"), None);
        assert!(observation.findings.is_empty());
    }
}
