//! From which values on a measurement is bad.

use stackkit_core::health::{Axis, Rule};

use crate::config::PostgresConfig;

/// From which part of the usable connections on it is worth acting, and from which on it is urgent.
const CONNECTIONS_NEAR: (f64, f64) = (0.8, 0.95);

/// Ids after which vacuuming should long have frozen (`autovacuum_freeze_max_age` is 200 million), and
/// `vacuum_failsafe_age`, from which on the server itself treats it as an emergency.
const XID_AGE: (f64, f64) = (500e6, 1.6e9);

/// A statement that waits longer for a lock is noticed by people, in seconds.
const BLOCKED_SECONDS: f64 = 10.0;

/// A transaction open for longer holds back vacuuming noticeably, in seconds. Dumps take that long, so it is no more than
/// a warning.
const TRANSACTION_LONG_SECONDS: f64 = 3600.0;

/// A client that does nothing inside a transaction has forgotten it, in seconds: five minutes, an hour.
const IDLE_IN_TRANSACTION_SECONDS: (f64, f64) = (300.0, 3600.0);

/// How far a standby may be behind, in seconds: half a minute, five minutes.
const LAG_SECONDS: (f64, f64) = (30.0, 300.0);

/// WAL that a slot keeps for its consumer, in bytes: ten and a hundred times the default `max_wal_size` of 1 GiB.
const SLOT_RETAINED_BYTES: (f64, f64) = (10_737_418_240.0, 107_374_182_400.0);

/// Checkpoints on demand between two probes (15 s): one may be a backup's, two mean that `max_wal_size` is small. The
/// server's own `checkpoint_warning` is 30 s.
const CHECKPOINTS_REQUESTED: f64 = 2.0;

/// Dead rows of all rows: autovacuum starts at a sixth (`autovacuum_vacuum_scale_factor` is 0.2 of the live ones).
const DEAD_RATIO: f64 = 0.4;

/// How far two clocks may be apart, in seconds: tokens and certificates fail from about a minute on.
const SKEW_SECONDS: f64 = 30.0;

/// For what is bad as soon as there is one.
const ANY: f64 = 1.0;

/// The limits of this adapter.
pub(crate) fn rules(config: &PostgresConfig) -> Vec<Rule> {
    let mut rules = sessions();
    rules.extend(transaction_ids());
    rules.extend(replication());
    rules.extend(storage());
    rules.extend(posture());
    let read_only = Rule::above("read_only_bool", "pg.read_only").critical(ANY).on(Axis::Ready);
    let hint = "it may have become a standby; look at pg_is_in_recovery() and default_transaction_read_only";
    let read_only = read_only.saying("the server takes no writes, and this service expects to write", hint);
    rules.extend(config.expect_writable.then_some(read_only));
    rules
}

fn sessions() -> Vec<Rule> {
    let more = "use a pooler, or raise max_connections";
    vec![
        Rule::above("connections_used_ratio", "pg.connections.near_max")
            .warning(CONNECTIONS_NEAR.0)
            .critical(CONNECTIONS_NEAR.1)
            .saying("most of the connections are in use", more),
        Rule::above("connections_used_ratio", "pg.connections.exhausted")
            .critical(1.0)
            .on(Axis::Ready)
            .saying("every connection that ordinary roles may use is taken", more),
        Rule::above("blocked_longest_seconds", "pg.blocked").warning(BLOCKED_SECONDS).saying(
            "a session has been waiting for a lock for more than 10 s",
            "pg_blocking_pids() names who holds it",
        ),
        Rule::above("transaction_longest_seconds", "pg.transaction.long").warning(TRANSACTION_LONG_SECONDS).saying(
            "a transaction has been open for more than an hour; vacuum can't remove what it may still see",
            "find it in pg_stat_activity by xact_start",
        ),
        Rule::above("idle_in_transaction_longest_seconds", "pg.transaction.idle")
            .warning(IDLE_IN_TRANSACTION_SECONDS.0)
            .critical(IDLE_IN_TRANSACTION_SECONDS.1)
            .saying("a client does nothing inside a transaction", "set idle_in_transaction_session_timeout"),
        Rule::above("deadlocks_new_count", "pg.deadlocks")
            .warning(ANY)
            .saying("transactions deadlocked", "the server's log names the statements; lock rows in one order"),
        Rule::above("clock_skew_seconds", "pg.clock.ahead")
            .warning(SKEW_SECONDS)
            .saying("the server's clock is ahead of ours", "run a time service on both machines"),
        Rule::below("clock_skew_seconds", "pg.clock.behind")
            .warning(-SKEW_SECONDS)
            .saying("the server's clock is behind ours", "run a time service on both machines"),
    ]
}

fn transaction_ids() -> Vec<Rule> {
    let age = |metric: &'static str, code: &'static str, message: &'static str| {
        Rule::above(metric, code)
            .warning(XID_AGE.0)
            .critical(XID_AGE.1)
            .saying(message, "look for old transactions, prepared transactions and replication slots, then vacuum")
    };
    vec![
        age(
            "xid_age_count",
            "pg.wraparound.near",
            "transaction ids are not being frozen; the server stops taking writes near 2 billion",
        ),
        age(
            "multixact_age_count",
            "pg.multixact.near",
            "multixact ids are not being frozen; the server stops taking writes near 2 billion",
        ),
        Rule::above("prepared_transaction_oldest_seconds", "pg.prepared.forgotten")
            .warning(TRANSACTION_LONG_SECONDS)
            .saying(
                "a prepared transaction has been waiting for more than an hour",
                "COMMIT PREPARED or ROLLBACK PREPARED it: see pg_prepared_xacts",
            ),
    ]
}

fn replication() -> Vec<Rule> {
    let lag = |metric: &'static str, code: &'static str, message: &'static str| {
        let hint = "look at its load, its disk and the network between";
        Rule::above(metric, code).warning(LAG_SECONDS.0).critical(LAG_SECONDS.1).saying(message, hint)
    };
    vec![
        lag("replication_lag_seconds", "pg.replication.lag", "this standby is behind its primary"),
        lag("standby_replay_lag_seconds", "pg.standby.lag", "a standby is behind"),
        Rule::below("standby_streaming_bool", "pg.standby.not_streaming")
            .warning(0.0)
            .saying("a standby is connected but does not stream yet", "it catches up, or lacks WAL: see its log"),
        Rule::above("replay_paused_bool", "pg.replay.paused")
            .warning(ANY)
            .saying("replay is paused: this standby falls behind", "SELECT pg_wal_replay_resume()"),
        Rule::above("conflicts_new_count", "pg.conflicts").warning(ANY).saying(
            "recovery cancelled queries on this standby",
            "raise max_standby_streaming_delay, or ask elsewhere",
        ),
        Rule::above("replication_slots_inactive_count", "pg.slots.inactive").warning(ANY).saying(
            "a replication slot has no consumer; it keeps WAL until the disk is full",
            "drop it with pg_drop_replication_slot() if its consumer is gone",
        ),
        Rule::above("slot_retained_bytes", "pg.slots.retained")
            .warning(SLOT_RETAINED_BYTES.0)
            .critical(SLOT_RETAINED_BYTES.1)
            .saying("a slot keeps much WAL for its consumer", "look at the consumer, or set max_slot_wal_keep_size"),
        Rule::above("slot_lost_bool", "pg.slots.lost")
            .critical(ANY)
            .saying("WAL that a slot needs is gone or about to go", "its consumer must be made anew if it is lost"),
    ]
}

fn storage() -> Vec<Rule> {
    vec![
        Rule::above("checksum_failures_count", "pg.checksum.failed").critical(ANY).saying(
            "pages with a wrong checksum were read: the disk or memory damages data",
            "stop writing, and restore from a backup onto other hardware",
        ),
        Rule::above("archiver_failing_bool", "pg.archiver.failing").warning(ANY).saying(
            "the last attempt to archive WAL failed; WAL piles up",
            "look at archive_command in the server's log",
        ),
        Rule::above("checkpoints_requested_new_count", "pg.checkpoints.frequent")
            .warning(CHECKPOINTS_REQUESTED)
            .saying("checkpoints come because of much WAL", "raise max_wal_size"),
        Rule::above("indexes_invalid_count", "pg.index.invalid").warning(ANY).saying(
            "an index is invalid: it costs writes and serves no query",
            "REINDEX INDEX CONCURRENTLY, or drop it",
        ),
        Rule::above("table_dead_ratio", "pg.table.dead").warning(DEAD_RATIO).saying(
            "many rows of a table are dead: autovacuum does not keep up",
            "vacuum it, and look for old transactions",
        ),
    ]
}

/// What lets others in.
fn posture() -> Vec<Rule> {
    let hint = "use scram-sha-256 over hostssl in pg_hba.conf";
    vec![
        Rule::above("hba_trust_count", "pg.posture.hba_trust")
            .critical(ANY)
            .saying("pg_hba.conf lets other machines in without a password", hint),
        Rule::above("hba_cleartext_count", "pg.posture.hba_cleartext")
            .critical(ANY)
            .saying("pg_hba.conf takes clear passwords from other machines without TLS", hint),
        Rule::above("hba_md5_count", "pg.posture.hba_md5")
            .warning(ANY)
            .saying("pg_hba.conf takes MD5 hashes from other machines", hint),
        Rule::above("clients_unencrypted_count", "pg.posture.clients_unencrypted").warning(ANY).saying(
            "clients at public addresses are connected without TLS",
            "set ssl = on, and hostssl in pg_hba.conf",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use stackkit_core::Observation;
    use stackkit_core::health::{Severity, Status, Thresholds, Verdict};

    use super::*;
    use crate::metrics::METRICS;

    fn verdict(name: &'static str, value: f64) -> Verdict {
        let config = PostgresConfig::new("localhost", "shop").with_expect_writable(true);
        Thresholds::new().verdict(&rules(&config), &Observation::new().gauge(name, value))
    }

    #[test]
    fn limits_are_those_of_the_documents() {
        let (warning, critical) = (Severity::Warning, Severity::Critical);
        for (name, value, code, severity) in [
            ("connections_used_ratio", 0.8, "pg.connections.near_max", warning),
            ("connections_used_ratio", 0.95, "pg.connections.near_max", critical),
            ("blocked_longest_seconds", 10.0, "pg.blocked", warning),
            ("transaction_longest_seconds", 3600.0, "pg.transaction.long", warning),
            ("idle_in_transaction_longest_seconds", 300.0, "pg.transaction.idle", warning),
            ("idle_in_transaction_longest_seconds", 3600.0, "pg.transaction.idle", critical),
            ("xid_age_count", 5e8, "pg.wraparound.near", warning),
            ("multixact_age_count", 1.6e9, "pg.multixact.near", critical),
            ("prepared_transaction_oldest_seconds", 3600.0, "pg.prepared.forgotten", warning),
            ("replication_lag_seconds", 30.0, "pg.replication.lag", warning),
            ("standby_replay_lag_seconds", 300.0, "pg.standby.lag", critical),
            ("standby_streaming_bool", 0.0, "pg.standby.not_streaming", warning),
            ("slot_lost_bool", 1.0, "pg.slots.lost", critical),
            ("checksum_failures_count", 1.0, "pg.checksum.failed", critical),
            ("archiver_failing_bool", 1.0, "pg.archiver.failing", warning),
            ("clock_skew_seconds", -31.0, "pg.clock.behind", warning),
            ("hba_trust_count", 1.0, "pg.posture.hba_trust", critical),
        ] {
            let found = verdict(name, value).findings;
            assert_eq!(found.len(), 1, "{name} {value}: {found:?}");
            assert_eq!((found[0].code.as_ref(), found[0].severity), (code, severity), "{name} {value}");
        }
        for (name, value) in [("connections_used_ratio", 0.79), ("xid_age_count", 2e8), ("clock_skew_seconds", 1.0)] {
            assert_eq!(verdict(name, value).findings, [], "{name} {value}");
        }
    }

    #[test]
    fn only_exhaustion_and_an_unexpected_read_only_server_are_about_readiness() {
        assert_eq!(verdict("connections_used_ratio", 1.0).status, Status::Unhealthy);
        assert_eq!(verdict("read_only_bool", 1.0).status, Status::Unhealthy);
        let config = PostgresConfig::new("localhost", "shop");
        let about = |rule: &Rule| (rule.axis == Axis::Ready).then(|| rule.code.to_string());
        let ready: Vec<String> = rules(&config).iter().filter_map(about).collect();
        assert_eq!(ready, ["pg.connections.exhausted"], "a standby is read-only on purpose unless said otherwise");
    }

    #[test]
    fn every_rule_is_about_a_metric_of_the_catalogue() {
        let config = PostgresConfig::new("localhost", "shop").with_expect_writable(true);
        for rule in rules(&config) {
            assert!(METRICS.iter().any(|metric| metric.name == rule.metric), "{}", rule.metric);
            assert!(rule.hint.is_some() && !rule.message.is_empty(), "{}", rule.code);
        }
    }
}
