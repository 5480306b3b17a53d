//! Every quantity that a probe measures.

use stackkit_core::health::{Metric, Tier};

use super::GRANT_MONITOR;

/// The grant that shows the lines of `pg_hba.conf`.
pub(super) const GRANT_HBA: &str = "GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO <role>";

const fn gauge(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    Metric::gauge(name, source, help)
}

const fn counter(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    Metric::counter(name, source, help)
}

/// A gauge about all sessions, others' too.
const fn session(name: &'static str, help: &'static str) -> Metric {
    Metric::gauge(name, "pg_stat_activity", help).needs(GRANT_MONITOR)
}

const fn slot(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    Metric::gauge(name, source, help).labelled(&["slot"])
}

const fn standby(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    Metric::gauge(name, source, help).labelled(&["standby"]).needs(GRANT_MONITOR)
}

const fn size(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    Metric::gauge(name, source, help).on(Tier::Inventory)
}

const fn table(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    size(name, source, help).labelled(&["table"])
}

const fn statement(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    size(name, source, help).labelled(&["queryid"]).needs(GRANT_MONITOR)
}

/// Every metric, vitals before inventory.
#[rustfmt::skip]
pub(crate) const METRICS: &[Metric] = &[
    gauge("uptime_seconds", "pg_postmaster_start_time()", "Time since the server started"),
    gauge("clock_skew_seconds", "clock_timestamp()", "How far the server's clock is ahead of ours; negative if behind"),
    gauge("in_recovery_bool", "pg_is_in_recovery()", "Whether it is a standby"),
    gauge("read_only_bool", "transaction_read_only", "Whether a session like this one can't write"),
    gauge("connections_used_count", "pg_stat_activity", "Sessions of clients"),
    gauge("connections_max_count", "max_connections - reserved", "Sessions that ordinary roles may open"),
    gauge("connections_used_ratio", "pg_stat_activity", "Sessions of clients, of those that ordinary roles may open"),
    session("connections_count", "Sessions of clients by state").labelled(&["state"]),
    session("connections_blocked_count", "Sessions that wait for a lock"),
    Metric::gauge("connections_blocking_count", "pg_blocking_pids()", "Sessions that others wait for and that wait for nobody")
        .needs(GRANT_MONITOR),
    session("blocked_longest_seconds", "How long the longest wait for a lock lasts; before version 14, how long ago its statement began"),
    session("transaction_longest_seconds", "Age of the oldest open transaction of a client"),
    session("idle_in_transaction_longest_seconds", "Longest time that a client does nothing inside a transaction"),
    gauge("xid_age_count", "pg_database.datfrozenxid", "Transactions since the oldest unfrozen one"),
    gauge("xid_used_ratio", "pg_database.datfrozenxid", "That age, of the 2^31 at which transaction ids wrap around"),
    gauge("multixact_age_count", "pg_database.datminmxid", "Multixacts since the oldest one that is kept"),
    gauge("multixact_used_ratio", "pg_database.datminmxid", "That age, of the 2^31 at which multixact ids wrap around"),
    gauge("prepared_transactions_count", "pg_prepared_xacts", "Prepared transactions"),
    gauge("prepared_transaction_oldest_seconds", "pg_prepared_xacts.prepared", "Age of the oldest prepared transaction"),
    counter("blocks_hit_count", "pg_stat_database.blks_hit", "Blocks found in the shared buffers"),
    counter("blocks_read_count", "pg_stat_database.blks_read", "Blocks read from the operating system"),
    gauge("cache_hit_ratio", "pg_stat_database.blks_hit", "Blocks found in the shared buffers, of those asked for since the last probe"),
    counter("deadlocks_count", "pg_stat_database.deadlocks", "Deadlocks"),
    gauge("deadlocks_new_count", "pg_stat_database.deadlocks", "Deadlocks since the last probe"),
    counter("conflicts_count", "pg_stat_database.conflicts", "Queries that recovery cancelled on a standby"),
    gauge("conflicts_new_count", "pg_stat_database.conflicts", "Queries that recovery cancelled since the last probe"),
    counter("temp_written_bytes", "pg_stat_database.temp_bytes", "Bytes that queries wrote to temporary files"),
    gauge("temp_written_per_minute_bytes", "pg_stat_database.temp_bytes", "Bytes that queries wrote to temporary files, a minute"),
    counter("transactions_committed_count", "pg_stat_database.xact_commit", "Transactions that committed"),
    counter("transactions_rolled_back_count", "pg_stat_database.xact_rollback", "Transactions that rolled back"),
    gauge("transactions_per_minute_count", "pg_stat_database.xact_commit, xact_rollback", "Transactions that ended, a minute"),
    gauge("rollback_ratio", "pg_stat_database.xact_rollback", "Transactions that rolled back, of those that ended since the last probe"),
    counter("checksum_failures_count", "pg_stat_database.checksum_failures", "Pages of any database that were read with a wrong checksum"),
    counter("sessions_abandoned_count", "pg_stat_database.sessions_abandoned", "Sessions whose client vanished"),
    counter("sessions_fatal_count", "pg_stat_database.sessions_fatal", "Sessions that a fatal error ended"),
    counter("sessions_killed_count", "pg_stat_database.sessions_killed", "Sessions that an operator ended"),
    gauge("standbys_count", "pg_stat_replication", "Standbys and other consumers that stream from here"),
    standby("standby_streaming_bool", "pg_stat_replication.state", "Whether the standby streams"),
    standby("standby_lag_bytes", "pg_stat_replication.replay_lsn", "WAL that the standby has not replayed"),
    standby("standby_replay_lag_seconds", "pg_stat_replication.replay_lag", "How long the standby takes to replay"),
    gauge("replication_lag_seconds", "pg_last_xact_replay_timestamp()", "On a standby: age of what was replayed last, 0 if all that came was"),
    gauge("replay_paused_bool", "pg_is_wal_replay_paused()", "On a standby: whether replay is paused"),
    gauge("wal_receiver_running_bool", "pg_stat_wal_receiver", "On a standby: whether it is connected to its primary"),
    gauge("replication_slots_count", "pg_replication_slots", "Replication slots"),
    gauge("replication_slots_inactive_count", "pg_replication_slots.active", "Replication slots without a consumer"),
    slot("slot_active_bool", "pg_replication_slots.active", "Whether a consumer uses the slot"),
    slot("slot_retained_bytes", "pg_replication_slots.restart_lsn", "WAL that the slot keeps"),
    slot("slot_lost_bool", "pg_replication_slots.wal_status", "Whether WAL that the slot needs is gone or about to go"),
    slot("slot_safe_bytes", "pg_replication_slots.safe_wal_size", "WAL that can still be written before the slot is lost"),
    counter("archived_count", "pg_stat_archiver.archived_count", "WAL files that were archived"),
    counter("archive_failures_count", "pg_stat_archiver.failed_count", "Failed attempts to archive a WAL file"),
    gauge("archive_failures_new_count", "pg_stat_archiver.failed_count", "Failed attempts to archive since the last probe"),
    gauge("archive_age_seconds", "pg_stat_archiver.last_archived_time", "Time since a WAL file was archived"),
    gauge("archiver_failing_bool", "pg_stat_archiver.last_failed_time", "Whether the last attempt to archive failed"),
    counter("checkpoints_timed_count", "pg_stat_bgwriter; pg_stat_checkpointer from 17", "Checkpoints because it was time"),
    counter("checkpoints_requested_count", "pg_stat_bgwriter; pg_stat_checkpointer from 17", "Checkpoints because of much WAL, or on demand"),
    gauge("checkpoints_requested_new_count", "pg_stat_bgwriter; pg_stat_checkpointer from 17", "Checkpoints because of much WAL, or on demand, since the last probe"),
    counter("wal_written_bytes", "pg_current_wal_lsn()", "Position in the WAL: bytes written since the cluster was made"),
    gauge("wal_written_per_minute_bytes", "pg_current_wal_lsn()", "WAL written, a minute"),
    counter("wal_buffers_full_count", "pg_stat_wal.wal_buffers_full", "Times that WAL was written because its buffers were full"),
    size("database_size_bytes", "pg_database_size()", "Size of the database on disk"),
    size("database_growth_per_hour_bytes", "pg_database_size()", "Its growth in an hour, by the last two inventories"),
    size("wal_size_bytes", "pg_ls_waldir()", "Size of the WAL directory").needs(GRANT_MONITOR),
    size("tables_count", "pg_class", "Tables and materialized views of users"),
    table("table_size_bytes", "pg_total_relation_size()", "Size of one of the largest tables, with indexes and TOAST"),
    table("table_rows_count", "pg_stat_user_tables.n_live_tup", "Estimated rows"),
    table("table_growth_per_hour_count", "pg_stat_user_tables.n_live_tup", "Rows more in an hour, by the last two inventories"),
    table("table_dead_ratio", "pg_stat_user_tables.n_dead_tup", "Dead rows, of all rows"),
    table("table_vacuum_age_seconds", "pg_stat_user_tables.last_vacuum, last_autovacuum", "Time since the last vacuum"),
    size("indexes_invalid_count", "pg_index.indisvalid", "Indexes that are invalid and not being built"),
    size("indexes_unused_count", "pg_stat_user_indexes.idx_scan", "Indexes of 1 MiB and more that no query used since the statistics began"),
    size("indexes_unused_bytes", "pg_class.relpages", "Their estimated size"),
    size("index_unused_bytes", "pg_class.relpages", "Estimated size of one of the largest unused indexes").labelled(&["index"]),
    counter("scans_sequential_count", "pg_stat_user_tables.seq_scan", "Sequential scans of tables of 1 MiB and more").on(Tier::Inventory),
    counter("scans_index_count", "pg_stat_user_indexes.idx_scan", "Index scans of the same tables").on(Tier::Inventory),
    size("index_use_ratio", "pg_stat_user_tables.seq_scan, idx_scan", "Index scans, of all scans of the same tables since the last inventory"),
    size("extensions_outdated_count", "pg_available_extensions", "Extensions older than the version that is installed for the server"),
    size("settings_pending_restart_count", "pg_settings.pending_restart", "Changed settings that wait for a restart"),
    statement("statement_mean_seconds", "pg_stat_statements.mean_exec_time", "Mean time of one of the slowest statements"),
    statement("statement_calls_count", "pg_stat_statements.calls", "How often it ran"),
    size("clients_unencrypted_count", "pg_stat_ssl", "Sessions from public addresses without TLS").needs(GRANT_MONITOR),
    size("hba_trust_count", "pg_hba_file_rules", "Lines that let other machines in without a password").needs(GRANT_HBA),
    size("hba_cleartext_count", "pg_hba_file_rules", "Lines that take clear passwords from other machines without TLS").needs(GRANT_HBA),
    size("hba_md5_count", "pg_hba_file_rules", "Lines that take MD5 hashes from other machines").needs(GRANT_HBA),
];
