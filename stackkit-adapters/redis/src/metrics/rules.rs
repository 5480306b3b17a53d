//! From which values on a measurement is bad.

use stackkit_core::health::{Axis, Rule};

/// Share of a limit from which on a warning is due, and from which on it is critical.
const NEAR_LIMIT_RATIO: (f64, f64) = (0.80, 0.95);
/// The server's documentation calls more than this fragmented.
const FRAGMENTATION_RATIO: f64 = 1.5;
/// A fork stops the server: clients with a usual timeout of a second notice.
const FORK_MS: f64 = 1000.0;
/// Longer saves meet the next hourly one.
const BGSAVE_SECONDS: f64 = 3600.0;
/// Replicas acknowledge every second, masters ping every ten; a minute is the server's own limit (`repl-timeout`).
const SILENCE_SECONDS: f64 = 30.0;
const REPLICA_LAG_SECONDS: (f64, f64) = (30.0, 300.0);

/// The rules; `writes` is the axis of what refuses writes: readiness, unless the application only reads.
pub(crate) fn rules(writes: Axis) -> Vec<Rule> {
    let mut rules = vec![
        Rule::above("memory_unevictable_ratio", "redis.memory.near_max")
            .warning(NEAR_LIMIT_RATIO.0)
            .critical(NEAR_LIMIT_RATIO.1)
            .saying(
                "memory is near its limit, and the policy evicts nothing",
                "raise maxmemory, remove data, or choose a policy that evicts",
            ),
        Rule::above("memory_fragmentation_ratio", "redis.memory.fragmented").warning(FRAGMENTATION_RATIO).saying(
            "the process holds far more memory than it gave out",
            "switch activedefrag on, or restart the server",
        ),
        Rule::above("clients_used_ratio", "redis.clients.near_max")
            .warning(NEAR_LIMIT_RATIO.0)
            .critical(NEAR_LIMIT_RATIO.1)
            .saying(
                "most of the connections are in use",
                "use a pool, set a timeout for idle clients, or raise maxclients",
            ),
        Rule::above("connections_rejected_recent_count", "redis.clients.rejected")
            .warning(1.0)
            .on(Axis::Ready)
            .saying("connections were refused since the last probe", "use a pool, or raise maxclients"),
        Rule::above("bgsave_running_seconds", "redis.bgsave.slow")
            .warning(BGSAVE_SECONDS)
            .saying("a background save takes very long", "look at the server's disk"),
        Rule::above("fork_latest_ms", "redis.fork.slow").warning(FORK_MS).saying(
            "the last fork stopped the server for long",
            "switch transparent huge pages off, or keep less data in one server",
        ),
    ];
    rules.extend(replicated(writes));
    rules
}

fn replicated(writes: Axis) -> [Rule; 6] {
    [
        Rule::above("aof_lag_delays_recent_count", "redis.aof.lagging").warning(1.0).saying(
            "the append-only file waits for the disk, and clients with it",
            "use a faster disk, or no-appendfsync-on-rewrite",
        ),
        Rule::above("replica_lag_seconds", "redis.replica.lagging")
            .warning(REPLICA_LAG_SECONDS.0)
            .critical(REPLICA_LAG_SECONDS.1)
            .saying("a replica does not keep up", "look at its load and at the network between"),
        Rule::above("replicas_missing_count", "redis.replicas.missing")
            .critical(1.0)
            .on(writes)
            .saying("too few good replicas, so writes are refused", "start replicas, or lower min-replicas-to-write"),
        Rule::above("replication_silence_seconds", "redis.link.silent")
            .warning(SILENCE_SECONDS)
            .saying("the master has said nothing for long", "look at the master and at the network between"),
        Rule::below("cluster_ok_bool", "redis.cluster.down")
            .critical(0.0)
            .on(Axis::Ready)
            .saying("the cluster does not serve", "see CLUSTER NODES for what failed, and that all slots have a node"),
        Rule::above("cluster_slots_failed_count", "redis.cluster.slots_failed")
            .warning(1.0)
            .saying("slots of the cluster have no node that answers", "see CLUSTER NODES for the node that failed"),
    ]
}
