//! What is measured, as data.

use stackkit_core::health::{Metric, Tier};

const LATENCY: &str = "ACL SETUSER <user> +latency|latest";
const SLOWLOG: &str = "ACL SETUSER <user> +slowlog|len";
const CONFIG: &str = "ACL SETUSER <user> +config|get";
const CLUSTER: &str = "ACL SETUSER <user> +cluster|info";
const SCAN: &str = "ACL SETUSER <user> +scan +select";
const ACL: &str = "ACL SETUSER <user> +acl|whoami +acl|getuser +acl|dryrun";

const fn gauge(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    Metric::gauge(name, source, help)
}

const fn counter(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    Metric::counter(name, source, help)
}

const fn inventory(name: &'static str, source: &'static str, help: &'static str) -> Metric {
    Metric::gauge(name, source, help).on(Tier::Inventory)
}

/// Each measurement of each tier.
#[rustfmt::skip]
pub(crate) static METRICS: &[Metric] = &[
    gauge("uptime_seconds", "INFO server: uptime_in_seconds", "Time since the server started"),
    gauge("clock_skew_seconds", "INFO server: server_time_usec", "How far the server's clock is ahead of this machine's"),
    // Memory.
    gauge("memory_used_bytes", "INFO memory: used_memory", "Bytes that the allocator gave out"),
    gauge("memory_peak_bytes", "INFO memory: used_memory_peak", "The most that it ever gave out"),
    gauge("memory_rss_bytes", "INFO memory: used_memory_rss", "Bytes that the process holds of the system's memory"),
    gauge("memory_max_bytes", "INFO memory: maxmemory", "The limit, if one is set"),
    gauge("memory_system_bytes", "INFO memory: total_system_memory", "The memory of the server's machine"),
    gauge("memory_used_ratio", "INFO memory: used_memory / maxmemory, or total_system_memory", "Used memory of the limit, or of the machine's memory where none is set"),
    gauge("memory_unevictable_ratio", "INFO memory: used_memory / maxmemory, maxmemory_policy", "The same where the policy does not evict any key: nothing makes room there"),
    gauge("memory_fragmentation_ratio", "INFO memory: mem_fragmentation_ratio", "Memory that the process holds, of what was given out; from 64 MiB on"),
    gauge("memory_over_limit_ms", "INFO stats: current_eviction_exceeded_time", "For how long the memory has been above its limit"),
    // Activity.
    counter("commands_count", "INFO stats: total_commands_processed", "Commands"),
    gauge("operations_per_second_count", "INFO stats: instantaneous_ops_per_sec", "Commands in a second, by the server's own samples"),
    counter("hits_count", "INFO stats: keyspace_hits", "Reads that found their key"),
    counter("misses_count", "INFO stats: keyspace_misses", "Reads that did not"),
    gauge("hit_ratio", "INFO stats: keyspace_hits, keyspace_misses", "Reads that found their key, since the probe before"),
    counter("evictions_count", "INFO stats: evicted_keys", "Keys that were evicted for want of memory"),
    gauge("evictions_recent_count", "INFO stats: evicted_keys", "The same, since the probe before"),
    counter("expirations_count", "INFO stats: expired_keys", "Keys whose time had passed"),
    counter("error_replies_count", "INFO stats: total_error_replies", "Commands that were answered by an error"),
    gauge("error_replies_recent_count", "INFO stats: total_error_replies", "The same, since the probe before"),
    // Clients.
    gauge("clients_used_count", "INFO clients: connected_clients", "Connections, replicas not among them"),
    gauge("clients_max_count", "INFO clients: maxclients", "The most connections that are let in"),
    gauge("clients_used_ratio", "INFO clients: connected_clients / maxclients", "Connections of the limit"),
    gauge("clients_blocked_count", "INFO clients: blocked_clients", "Clients that wait in a blocking command"),
    counter("connections_rejected_count", "INFO stats: rejected_connections", "Connections that were refused because of maxclients"),
    gauge("connections_rejected_recent_count", "INFO stats: rejected_connections", "The same, since the probe before"),
    // Persistence.
    gauge("last_save_age_seconds", "INFO persistence: rdb_last_save_time", "Time since the last save that succeeded, or since the start"),
    gauge("changes_since_save_count", "INFO persistence: rdb_changes_since_last_save", "Changes that a crash would lose without an append-only file"),
    gauge("bgsave_running_bool", "INFO persistence: rdb_bgsave_in_progress", "Whether a background save runs"),
    gauge("bgsave_running_seconds", "INFO persistence: rdb_current_bgsave_time_sec", "For how long it has"),
    gauge("bgsave_last_seconds", "INFO persistence: rdb_last_bgsave_time_sec", "How long the last one took"),
    gauge("bgsave_failed_bool", "INFO persistence: rdb_last_bgsave_status", "Whether the last one failed"),
    gauge("bgsave_stops_writes_bool", "PING, CONFIG GET stop-writes-on-bgsave-error", "Whether writes are refused because it failed").needs(CONFIG),
    gauge("fork_latest_ms", "INFO stats: latest_fork_usec", "How long the last fork stopped the server"),
    gauge("aof_enabled_bool", "INFO persistence: aof_enabled", "Whether an append-only file is written"),
    gauge("aof_size_bytes", "INFO persistence: aof_current_size", "Its size"),
    gauge("aof_rewrite_running_bool", "INFO persistence: aof_rewrite_in_progress", "Whether it is being rewritten"),
    gauge("aof_rewrite_running_seconds", "INFO persistence: aof_current_rewrite_time_sec", "For how long it has been"),
    gauge("aof_lag_fsyncs_count", "INFO persistence: aof_pending_bio_fsync", "Fsyncs that wait for the disk"),
    gauge("aof_lag_buffer_bytes", "INFO persistence: aof_buffer_length", "Bytes that wait to be written to it"),
    counter("aof_lag_delays_count", "INFO persistence: aof_delayed_fsync", "Writes that had to wait for an fsync"),
    gauge("aof_lag_delays_recent_count", "INFO persistence: aof_delayed_fsync", "The same, since the probe before"),
    gauge("async_loading_bool", "INFO persistence: async_loading", "Whether a replica loads a new data set while it serves the one before"),
    // Replication and cluster.
    gauge("replicas_count", "INFO replication: connected_slaves", "Replicas that are connected"),
    gauge("replicas_online_count", "INFO replication: slaveN state", "Replicas that follow the stream"),
    gauge("replicas_missing_count", "INFO replication: min_slaves_good_slaves, CONFIG GET min-replicas-to-write", "Good replicas that are missing; from 1 on writes are refused").needs(CONFIG),
    gauge("replica_lag_bytes", "INFO replication: master_repl_offset - slaveN offset", "How far a replica is behind; the 16 that are furthest").labelled(&["replica"]),
    gauge("replica_lag_seconds", "INFO replication: slaveN lag", "Time since a replica's last acknowledgement; the same 16").labelled(&["replica"]),
    gauge("replication_silence_seconds", "INFO replication: master_last_io_seconds_ago", "On a replica: time since its master's last word"),
    gauge("replication_link_down_seconds", "INFO replication: master_link_down_since_seconds", "On a replica: for how long the link has been down"),
    gauge("replication_sync_running_bool", "INFO replication: master_sync_in_progress", "On a replica: whether it takes the whole data set"),
    gauge("replication_unapplied_bytes", "INFO replication: slave_read_repl_offset - slave_repl_offset", "On a replica: bytes of the stream that were read and not applied"),
    gauge("cluster_ok_bool", "CLUSTER INFO: cluster_state", "Whether the cluster serves").needs(CLUSTER),
    gauge("cluster_slots_assigned_count", "CLUSTER INFO: cluster_slots_assigned", "Slots that have a node, of 16384").needs(CLUSTER),
    gauge("cluster_slots_ok_count", "CLUSTER INFO: cluster_slots_ok", "Slots whose node answers").needs(CLUSTER),
    gauge("cluster_slots_suspected_count", "CLUSTER INFO: cluster_slots_pfail", "Slots whose node does not answer this one").needs(CLUSTER),
    gauge("cluster_slots_failed_count", "CLUSTER INFO: cluster_slots_fail", "Slots whose node failed by the cluster's word").needs(CLUSTER),
    gauge("cluster_nodes_count", "CLUSTER INFO: cluster_known_nodes", "Nodes that this one knows").needs(CLUSTER),
    // Keys and latency.
    gauge("databases_count", "INFO keyspace", "Databases that hold keys"),
    gauge("keys_count", "INFO keyspace: keys", "Keys; the 16 largest databases, and `other`").labelled(&["db"]),
    gauge("keys_expiring_count", "INFO keyspace: expires", "Keys that expire; the same databases").labelled(&["db"]),
    gauge("slowlog_length_count", "SLOWLOG LEN", "Entries of the slow log").needs(SLOWLOG),
    gauge("latency_events_count", "LATENCY LATEST", "Kinds of latency spikes that were seen").needs(LATENCY),
    gauge("latency_latest_ms", "LATENCY LATEST", "The last spike of a kind; the first 16 kinds").labelled(&["event"]).needs(LATENCY),
    gauge("latency_max_ms", "LATENCY LATEST", "The longest spike of a kind; the same").labelled(&["event"]).needs(LATENCY),
    // Inventory: prefixes and posture.
    inventory("keys_by_prefix_count", "SCAN, sampled; INFO keyspace", "Keys by prefix, estimated; the 20 largest, `none` and `other`").labelled(&["db", "prefix"]).needs(SCAN),
    inventory("keys_by_prefix_error_count", "SCAN, sampled; INFO keyspace", "Half the width of the estimate's 95 % confidence interval; 0 if it is exact").labelled(&["db", "prefix"]).needs(SCAN),
    inventory("keys_sampled_count", "SCAN", "Keys that the estimate is made of").labelled(&["db"]).needs(SCAN),
    inventory("keys_by_prefix_exact_bool", "SCAN", "Whether all keys were looked at").labelled(&["db"]).needs(SCAN),
    inventory("default_user_open_bool", "the connection's own login, ACL GETUSER default", "Whether anybody may log in without a password").needs(ACL),
    inventory("exposed_bool", "the configured address, CONFIG GET bind, port, tls-port, protected-mode", "Whether other machines are served").needs(CONFIG),
    inventory("protected_mode_bool", "CONFIG GET protected-mode", "Whether clients of other machines are refused while there is no password").needs(CONFIG),
    inventory("debug_commands_bool", "CONFIG GET enable-debug-command", "Whether DEBUG is allowed from anywhere").needs(CONFIG),
    inventory("dangerous_commands_count", "ACL DRYRUN, ACL GETUSER", "Of CONFIG SET, FLUSHALL, DEBUG and KEYS, what the own user may run").needs(ACL),
];

/// The entry of that name.
pub(crate) fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}
