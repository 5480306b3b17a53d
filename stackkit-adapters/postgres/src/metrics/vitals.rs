//! The vitals: one round trip of two statements, a row of numbers and a row for each slot and standby.

use std::borrow::Cow;

use stackkit_core::health::{Axis, Finding, Growth, MeasurementValue, Metric, Severity, Tier};
use stackkit_core::{Observation, ProbeContext};

use super::{Fields, GRANT_MONITOR, NAMED_MAX, add, not_permitted, plain, share_of_growth, unavailable};

/// The number of transaction ids, and of multixact ids, between one that is used and the one that would be in its past.
const WRAPAROUND: f64 = 2_147_483_648.0;

/// For rates that are told a minute: those a second are too small to be whole numbers.
const SECONDS_PER_MINUTE: f64 = 60.0;

/// Sessions whose blockers are looked for: `pg_blocking_pids` holds the lock table still for a moment, each time.
const BLOCKED_MAX: u32 = 100;

/// The states of sessions: the label, and the column that counts them.
const STATES: [(&str, &str); 5] = [
    ("active", "state_active"),
    ("idle", "state_idle"),
    ("idle_in_transaction", "state_idle_in_transaction"),
    ("idle_in_transaction_aborted", "state_aborted"),
    ("other", "state_other"),
];

/// The statements of a vitals probe on a server of this major version. Columns are named like their metrics.
///
/// The functions beneath the views are asked where the view only adds joins.
pub(crate) fn vitals_sql(major: u32) -> [String; 2] {
    [numbers_sql(major), named_sql(major)]
}

fn numbers_sql(major: u32) -> String {
    let (sessions, wal, checkpoints) = versioned(major);
    let (blocking, waited) = (blocking(), waited(major));
    format!(
        "SELECT split_part(current_setting('server_version'), ' ', 1) AS version, \
        r.standby::int AS in_recovery_bool, r.sees_all::int AS sees_all, \
        (current_setting('transaction_read_only') = 'on')::int AS read_only_bool, \
        extract(epoch FROM clock_timestamp()) AS clock_seconds, \
        extract(epoch FROM now() - pg_postmaster_start_time()) AS uptime_seconds, \
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
            - coalesce(current_setting('reserved_connections', true)::int, 0) AS connections_max_count, \
        a.*, {blocking} AS connections_blocking_count, {waited} AS blocked_longest_seconds, d.*, k.*, x.*, p.*, s.*, w.*, c.*{wal}, \
        CASE WHEN NOT r.standby THEN NULL \
             WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 \
             ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END AS replication_lag_seconds, \
        CASE WHEN r.standby THEN pg_is_wal_replay_paused()::int END AS replay_paused_bool, \
        CASE WHEN r.standby THEN (SELECT count(pid) FROM pg_stat_get_wal_receiver()) END AS wal_receiver_running_bool, \
        (SELECT count(*) FROM pg_stat_get_wal_senders()) AS standbys_count, \
        pg_wal_lsn_diff({POSITION}, '0/0') AS wal_written_bytes \
        FROM (SELECT pg_is_in_recovery() AS standby, pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all OFFSET 0) r, \
        ({SESSIONS}) a, \
        (SELECT blks_hit AS blocks_hit_count, blks_read AS blocks_read_count, deadlocks AS deadlocks_count, \
            conflicts AS conflicts_count, temp_bytes AS temp_written_bytes, \
            xact_commit AS transactions_committed_count, xact_rollback AS transactions_rolled_back_count{sessions} \
            FROM pg_stat_database WHERE datname = current_database()) d, \
        (SELECT sum(checksum_failures) AS checksum_failures_count FROM pg_stat_database) k, \
        (SELECT max(age(datfrozenxid)) AS xid_age_count, max(mxid_age(datminmxid)) AS multixact_age_count \
            FROM pg_database) x, \
        (SELECT count(*) AS prepared_transactions_count, \
            coalesce(extract(epoch FROM max(now() - prepared)), 0) AS prepared_transaction_oldest_seconds \
            FROM pg_prepared_xact()) p, \
        (SELECT count(*) AS replication_slots_count, \
            count(*) FILTER (WHERE NOT active) AS replication_slots_inactive_count FROM pg_get_replication_slots()) s, \
        ({ARCHIVER}) w, ({checkpoints}) c"
    )
}

/// What later versions add to `pg_stat_database` and to the WAL's numbers, and where they count checkpoints.
fn versioned(major: u32) -> (&'static str, &'static str, &'static str) {
    let sessions = match major {
        14.. => {
            ", sessions_abandoned AS sessions_abandoned_count, sessions_fatal AS sessions_fatal_count, \
             sessions_killed AS sessions_killed_count"
        }
        _ => "",
    };
    let wal = match major {
        14.. => ", (SELECT wal_buffers_full FROM pg_stat_get_wal()) AS wal_buffers_full_count",
        _ => "",
    };
    let checkpoints = match major {
        17.. => {
            "SELECT num_timed AS checkpoints_timed_count, num_requested AS checkpoints_requested_count \
             FROM pg_stat_checkpointer"
        }
        _ => {
            "SELECT checkpoints_timed AS checkpoints_timed_count, checkpoints_req AS checkpoints_requested_count \
             FROM pg_stat_bgwriter"
        }
    };
    (sessions, wal, checkpoints)
}

/// Where the WAL is: written on a primary, replayed on a standby.
const POSITION: &str = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END";

/// Sessions that others wait for and that wait for nobody; looked for only when somebody waits. A prepared transaction
/// is session 0.
fn blocking() -> String {
    format!(
        "CASE WHEN a.connections_blocked_count > 0 THEN ( \
            WITH waiting AS MATERIALIZED ( \
                SELECT pid FROM pg_stat_get_activity(NULL) WHERE wait_event_type = 'Lock' LIMIT {BLOCKED_MAX}) \
            SELECT count(DISTINCT blocker) FROM waiting, unnest(pg_blocking_pids(waiting.pid)) AS blocker \
            WHERE blocker NOT IN (SELECT pid FROM waiting)) ELSE 0 END"
    )
}

/// How long the longest wait for a lock lasts, asked for only when somebody waits. Before version 14 the server tells only when
/// the statement began that waits.
fn waited(major: u32) -> &'static str {
    match major {
        14.. => {
            "CASE WHEN a.connections_blocked_count > 0 THEN (SELECT coalesce(greatest( \
                extract(epoch FROM max(now() - waitstart)), 0), 0) FROM pg_lock_status() WHERE NOT granted) ELSE 0 END"
        }
        _ => "a.blocked_statement_seconds",
    }
}

const SESSIONS: &str = "SELECT count(*) FILTER (WHERE backend_type = 'client backend') AS clients, \
    count(*) FILTER (WHERE datid IS NOT NULL) AS sessions, \
    count(*) FILTER (WHERE backend_type = 'client backend' AND state = 'active') AS state_active, \
    count(*) FILTER (WHERE backend_type = 'client backend' AND state = 'idle') AS state_idle, \
    count(*) FILTER (WHERE backend_type = 'client backend' AND state = 'idle in transaction') \
        AS state_idle_in_transaction, \
    count(*) FILTER (WHERE backend_type = 'client backend' AND state = 'idle in transaction (aborted)') AS state_aborted, \
    count(*) FILTER (WHERE backend_type = 'client backend' AND (state IS NULL OR state NOT IN \
        ('active', 'idle', 'idle in transaction', 'idle in transaction (aborted)'))) AS state_other, \
    count(*) FILTER (WHERE wait_event_type = 'Lock') AS connections_blocked_count, \
    coalesce(extract(epoch FROM max(now() - state_change) FILTER (WHERE wait_event_type = 'Lock')), 0) \
        AS blocked_statement_seconds, \
    coalesce(extract(epoch FROM max(now() - xact_start) FILTER (WHERE backend_type = 'client backend')), 0) \
        AS transaction_longest_seconds, \
    coalesce(extract(epoch FROM max(now() - state_change) FILTER (WHERE state LIKE 'idle in transaction%')), 0) \
        AS idle_in_transaction_longest_seconds FROM pg_stat_get_activity(NULL)";

const ARCHIVER: &str = "SELECT CASE WHEN archiving THEN archived_count END AS archived_count, \
    CASE WHEN archiving THEN failed_count END AS archive_failures_count, \
    CASE WHEN archiving THEN extract(epoch FROM now() - last_archived_time) END AS archive_age_seconds, \
    CASE WHEN archiving THEN coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)::int END \
        AS archiver_failing_bool, archiving::int AS archiving \
    FROM pg_stat_archiver, (SELECT current_setting('archive_mode') <> 'off' AS archiving OFFSET 0) mode";

/// The slots that keep most and the standbys that are furthest behind. Two standbys of one name are told apart.
fn named_sql(major: u32) -> String {
    let kept = match major {
        13.. => "(wal_status IN ('lost', 'unreserved'))::int, safe_wal_size",
        _ => "NULL::int, NULL::bigint",
    };
    format!(
        "(SELECT 'slot' AS kind, slot_name::text AS name, active::int AS on, \
            pg_wal_lsn_diff({POSITION}, restart_lsn) AS bytes, NULL::numeric AS seconds, kept.* \
            FROM pg_get_replication_slots() AS slots, LATERAL (SELECT {kept}) AS kept (lost, safe) \
            ORDER BY bytes DESC NULLS LAST LIMIT {NAMED_MAX}) \
        UNION ALL (SELECT 'standby', name || CASE WHEN number > 1 THEN ' #' || number ELSE '' END, \
            (state = 'streaming')::int, pg_wal_lsn_diff({POSITION}, replay_lsn), extract(epoch FROM replay_lag), NULL, NULL \
            FROM (SELECT coalesce(nullif(application_name, ''), 'unnamed') AS name, w.state, replay_lsn, replay_lag, \
                row_number() OVER (PARTITION BY application_name ORDER BY pid) AS number \
                FROM pg_stat_get_wal_senders() AS w JOIN pg_stat_get_activity(NULL) AS a USING (pid) \
                WHERE w.state <> 'backup') AS senders \
            ORDER BY 4 DESC NULLS LAST LIMIT {NAMED_MAX})"
    )
}

/// What the rows of a vitals probe say. The first is the one of numbers.
pub(crate) fn observe(rows: &[Fields], cx: &ProbeContext) -> Observation {
    let nothing = Fields::default();
    let (numbers, named) = rows.split_first().unwrap_or((&nothing, &[]));
    let role = if numbers.is("in_recovery_bool") { "standby" } else { "primary" };
    let mut observation = Observation::new()
        .info("version", numbers.text("version").unwrap_or_default())
        .info("role", role)
        .info("writable", if numbers.is("read_only_bool") { "no" } else { "yes" });
    for metric in plain(Tier::Vitals) {
        observation = add(observation, metric.name, None, value(metric, numbers, cx));
    }
    observation = states(observation, numbers);
    for (name, kind, column) in NAMED {
        observation = each(observation, (name, column), (kind, named), numbers);
    }
    let restarted =
        number(numbers, "uptime_seconds").is_some_and(|up| cx.growth("uptime_seconds", up) == Growth::Reset);
    let finding = || {
        Finding::new("pg.restarted", Axis::Risk, Severity::Info, "the server restarted since the last probe")
            .with_hint("its log says why")
    };
    if restarted { observation.finding(finding()) } else { observation }
}

/// The metrics with a label: the kind of their rows and the column.
const NAMED: [(&str, &str, &str); 7] = [
    ("slot_active_bool", "slot", "on"),
    ("slot_retained_bytes", "slot", "bytes"),
    ("slot_lost_bool", "slot", "lost"),
    ("slot_safe_bytes", "slot", "safe"),
    ("standby_streaming_bool", "standby", "on"),
    ("standby_lag_bytes", "standby", "bytes"),
    ("standby_replay_lag_seconds", "standby", "seconds"),
];

/// One metric for each row of a kind.
fn each(
    mut observation: Observation,
    (name, column): (&str, &str),
    (kind, rows): (&str, &[Fields]),
    numbers: &Fields,
) -> Observation {
    if kind == "standby" && !numbers.is("sees_all") {
        return add(observation, name, None, not_permitted(GRANT_MONITOR));
    }
    let mut any = false;
    for row in rows.iter().filter(|row| row.text("kind") == Some(kind)) {
        any = true;
        // A standby that has nothing to replay is told no lag by the server.
        let value = row.number(column).map(|value| value.max(0.0));
        let value = value.map_or_else(|| unavailable("the server tells none"), MeasurementValue::from);
        observation = add(observation, name, row.text("name"), value);
    }
    if any { observation } else { add(observation, name, None, unavailable("there is none")) }
}

/// Sessions by state.
fn states(observation: Observation, numbers: &Fields) -> Observation {
    if !numbers.is("sees_all") {
        return add(observation, "connections_count", None, not_permitted(GRANT_MONITOR));
    }
    STATES.into_iter().fold(observation, |observation, (state, column)| {
        let value = number(numbers, column).map_or_else(|| unavailable("the server tells none"), Into::into);
        add(observation, "connections_count", Some(state), value)
    })
}

fn number(numbers: &Fields, name: &str) -> Option<f64> {
    numbers.number(name)
}

/// One number, or why there is none.
fn value(metric: &Metric, numbers: &Fields, cx: &ProbeContext) -> MeasurementValue {
    if let Some(grant) = metric.grant.filter(|_grant| !numbers.is("sees_all")) {
        return not_permitted(grant);
    }
    derived(metric.name, numbers, cx)
        .or_else(|| number(numbers, metric.name).map(MeasurementValue::from))
        .unwrap_or_else(|| MeasurementValue::Unavailable(absence(metric.name, numbers).into_owned()))
}

/// A number that is made of others.
fn derived(name: &str, numbers: &Fields, cx: &ProbeContext) -> Option<MeasurementValue> {
    let number = |name: &str| number(numbers, name);
    let growth = |name: &str| number(name).map(|value| cx.growth(name, value));
    let alone = |name: &str| growth(name).map(|growth| per_minute(&[growth]));
    let share = |part: &str, rest: &str, nothing: &str| Some(share_of_growth(growth(part)?, growth(rest)?, nothing));
    let used = || number(if numbers.is("sees_all") { "clients" } else { "sessions" });
    match name {
        // Above 0 the server is ahead; as exact as the way back of the answer is short.
        "clock_skew_seconds" => Some((number("clock_seconds")? - cx.clock().now().as_duration().as_secs_f64()).into()),
        // Without the right to see their kind, all sessions that have a database: a few workers may be among them.
        "connections_used_count" => Some(used()?.into()),
        "connections_used_ratio" => Some((used()? / number("connections_max_count")?.max(1.0)).into()),
        "xid_used_ratio" => Some((number("xid_age_count")? / WRAPAROUND).into()),
        "multixact_used_ratio" => Some((number("multixact_age_count")? / WRAPAROUND).into()),
        "cache_hit_ratio" => share("blocks_hit_count", "blocks_read_count", "no block was read since the last probe"),
        "rollback_ratio" => share(
            "transactions_rolled_back_count",
            "transactions_committed_count",
            "no transaction ended since the last probe",
        ),
        "deadlocks_new_count" => Some(growth("deadlocks_count")?.value()),
        "conflicts_new_count" => Some(growth("conflicts_count")?.value()),
        "archive_failures_new_count" => Some(growth("archive_failures_count")?.value()),
        "checkpoints_requested_new_count" => Some(growth("checkpoints_requested_count")?.value()),
        "temp_written_per_minute_bytes" => alone("temp_written_bytes"),
        "wal_written_per_minute_bytes" => alone("wal_written_bytes"),
        "transactions_per_minute_count" => {
            Some(per_minute(&[growth("transactions_committed_count")?, growth("transactions_rolled_back_count")?]))
        }
        _ => None,
    }
}

/// The growth of counters together, a minute, rounded.
fn per_minute(parts: &[Growth]) -> MeasurementValue {
    let mut sum = 0.0;
    for part in parts {
        match part {
            Growth::Since { amount, elapsed } => sum += amount / elapsed.as_secs_f64() * SECONDS_PER_MINUTE,
            other => return other.value(),
        }
    }
    sum.round().into()
}

/// Why a column holds nothing.
fn absence(name: &str, numbers: &Fields) -> Cow<'static, str> {
    let standby = numbers.is("in_recovery_bool");
    Cow::Borrowed(match name {
        "replication_lag_seconds" | "replay_paused_bool" | "wal_receiver_running_bool" if !standby => "not a standby",
        "replication_lag_seconds" => "nothing was replayed yet",
        "checksum_failures_count" => "data checksums are off",
        "sessions_abandoned_count" | "sessions_fatal_count" | "sessions_killed_count" | "wal_buffers_full_count" => {
            "needs PostgreSQL 14"
        }
        "archive_age_seconds" if numbers.is("archiving") => "nothing was archived yet",
        _ if name.starts_with("archive") => "archiving is off",
        _ => "the server tells none",
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use stackkit_core::Clock;
    use stackkit_core::health::Measurement;

    use super::*;

    /// What a quiet primary answers to one who sees all.
    fn numbers() -> Fields {
        Fields::of(&[
            ("version", "15.20"),
            ("sees_all", "1"),
            ("in_recovery_bool", "0"),
            ("read_only_bool", "0"),
            ("clients", "3"),
            ("sessions", "5"),
            ("connections_max_count", "100"),
            ("connections_blocked_count", "0"),
            ("xid_age_count", "1073741824"),
            ("uptime_seconds", "100.5"),
        ])
    }

    fn first() -> ProbeContext {
        ProbeContext::new(Tier::Vitals, Clock::system().instant())
    }

    /// A context whose last observation is of `rows`, half a minute ago.
    fn after(rows: &[Fields]) -> ProbeContext {
        let before = Clock::system().instant() - Duration::from_secs(30);
        first().with_previous(Some(Arc::new(observe(rows, &first())))).with_previous_at(Some(before))
    }

    fn reason(observation: &Observation, name: &str) -> String {
        let is_it = |measurement: &&Measurement| measurement.name == name;
        match &observation.measurements.iter().find(is_it).expect(name).value {
            MeasurementValue::Unavailable(reason) => reason.clone(),
            MeasurementValue::Value(value) => panic!("{name} is {value}"),
        }
    }

    #[test]
    fn the_text_fits_each_version() {
        for major in [12, 13, 14, 15, 16, 17, 18, 19] {
            let [numbers, named] = vitals_sql(major);
            assert_eq!(numbers.contains("sessions_abandoned"), major >= 14, "{major}");
            assert_eq!(numbers.contains("pg_stat_get_wal()"), major >= 14, "{major}");
            assert_eq!(numbers.contains("max(now() - waitstart)"), major >= 14, "{major}");
            assert_eq!(numbers.contains("pg_stat_checkpointer"), major >= 17, "{major}");
            assert_eq!(numbers.contains("checkpoints_req "), major < 17, "{major}");
            assert_eq!(named.contains("wal_status"), major >= 13, "{major}");
            assert!(!numbers.contains(';') && !named.contains(';'), "one statement each");
        }
    }

    #[test]
    fn who_blocks_is_asked_only_when_somebody_waits() {
        let [numbers, _named] = vitals_sql(15);
        let at = numbers.find("pg_blocking_pids").expect("it is asked");
        assert!(numbers[..at].contains("CASE WHEN a.connections_blocked_count > 0 THEN"));
        assert_eq!(numbers.matches("pg_blocking_pids").count(), 1);
    }

    #[test]
    fn ratios_are_of_what_can_be_used() {
        let seen = observe(&[numbers()], &first());
        assert_eq!(seen.value("connections_used_ratio"), Some(0.03));
        assert_eq!(seen.value("xid_used_ratio"), Some(0.5));
        assert_eq!(seen.info["version"], "15.20");
    }

    #[test]
    fn rates_are_of_the_time_between_two_probes() {
        let counters = |hit: &'static str, read: &'static str, deadlocks: &'static str| {
            numbers().with(&[("blocks_hit_count", hit), ("blocks_read_count", read), ("deadlocks_count", deadlocks)])
        };
        let before = [counters("1000", "1000", "5").with(&[("temp_written_bytes", "0")])];
        assert_eq!(reason(&observe(&before, &first()), "cache_hit_ratio"), "needs a previous observation");
        let next = counters("1090", "1010", "7").with(&[("temp_written_bytes", "5000")]);
        let seen = observe(&[next], &after(&before));
        assert_eq!(seen.value("cache_hit_ratio"), Some(0.9));
        assert_eq!(seen.value("deadlocks_new_count"), Some(2.0));
        let minute = seen.value("temp_written_per_minute_bytes").expect("a rate");
        assert!((9_900.0..=10_000.0).contains(&minute), "{minute}");
        let seen = observe(&[counters("1000", "1000", "5")], &after(&before));
        assert_eq!(reason(&seen, "cache_hit_ratio"), "no block was read since the last probe");
    }

    #[test]
    fn a_reset_is_no_spike_and_a_restart_is_told() {
        let before =
            [numbers().with(&[("deadlocks_count", "50"), ("blocks_hit_count", "9"), ("blocks_read_count", "9")])];
        let reset = numbers().with(&[("deadlocks_count", "1"), ("blocks_hit_count", "1"), ("blocks_read_count", "0")]);
        let seen = observe(&[reset.with(&[("uptime_seconds", "2")])], &after(&before));
        assert_eq!(reason(&seen, "deadlocks_new_count"), "the counter was reset");
        assert_eq!(reason(&seen, "cache_hit_ratio"), "the counter was reset");
        assert_eq!(seen.findings[0].code, "pg.restarted");
        assert_eq!(observe(&before, &after(&before)).findings, []);
    }

    #[test]
    fn without_the_right_there_is_the_grant_not_a_number() {
        let seen = observe(&[numbers().with(&[("sees_all", "0")])], &first());
        assert_eq!(seen.value("connections_used_count"), Some(5.0));
        for name in
            ["connections_blocked_count", "connections_count", "standby_lag_bytes", "transaction_longest_seconds"]
        {
            assert_eq!(reason(&seen, name), "permission: GRANT pg_monitor TO <role>");
        }
    }

    #[test]
    fn what_is_missing_says_why() {
        let primary = observe(&[numbers()], &first());
        assert_eq!(reason(&primary, "replication_lag_seconds"), "not a standby");
        assert_eq!(reason(&primary, "checksum_failures_count"), "data checksums are off");
        assert_eq!(reason(&primary, "archive_failures_new_count"), "archiving is off");
        assert_eq!(reason(&primary, "sessions_killed_count"), "needs PostgreSQL 14");
        assert_eq!(reason(&primary, "slot_lost_bool"), "there is none");
        let standby = observe(&[numbers().with(&[("in_recovery_bool", "1")])], &first());
        assert_eq!(reason(&standby, "replication_lag_seconds"), "nothing was replayed yet");
        assert_eq!(standby.info["role"], "standby");
    }

    #[test]
    fn slots_and_standbys_have_their_names() {
        let slot =
            |name, bytes| Fields::of(&[("kind", "slot"), ("name", name), ("bytes", bytes), ("on", "0"), ("lost", "1")]);
        let standby = Fields::of(&[("kind", "standby"), ("name", "two"), ("bytes", "-8"), ("on", "1")]);
        let seen = observe(&[numbers(), slot("a", "7"), slot("b", "9"), standby], &first());
        let of = |name: &str, label: &str| {
            let is_it = |m: &&Measurement| m.name == name && m.labels.values().any(|value| value == label);
            seen.measurements.iter().find(is_it).and_then(Measurement::number)
        };
        assert_eq!((of("slot_retained_bytes", "a"), of("slot_retained_bytes", "b")), (Some(7.0), Some(9.0)));
        assert_eq!((of("slot_lost_bool", "a"), of("standby_streaming_bool", "two")), (Some(1.0), Some(1.0)));
        assert_eq!(of("standby_lag_bytes", "two"), Some(0.0), "a standby can't be ahead");
        assert_eq!(of("standby_replay_lag_seconds", "two"), None, "the server tells none when all is replayed");
    }
}
