//! From the reply of `INFO` to measurements and findings, without a server.

use std::collections::HashMap;
use std::str::FromStr;

use jiff::Timestamp;
use stackkit_core::health::{Axis, Finding, Measurement, MeasurementKind, MeasurementValue, Severity};
use stackkit_core::{Error, Observation};

use crate::error::RedisError;
use crate::resp::Reply;

/// Share of `maxmemory` or `maxclients` from which on a warning is due, and from which on it is critical.
const NEAR_MAX_RATIO: f64 = 0.80;
const AT_MAX_RATIO: f64 = 0.95;
/// Below this much data the allocator's own overhead dominates the fragmentation ratio.
const FRAGMENTATION_BYTES_MIN: f64 = 67_108_864.0;

/// The fields of `INFO`, all sections.
#[derive(Debug, Default)]
pub(crate) struct Info(HashMap<String, String>);

/// Keys of one database, as `INFO keyspace` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keyspace {
    pub(crate) database: u64,
    pub(crate) keys: u64,
    pub(crate) expiring: u64,
}

impl Info {
    pub(crate) fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect())
    }

    /// The reply of `INFO`, or the error that it is.
    pub(crate) fn from_reply(reply: Reply) -> Result<Self, Error> {
        match reply {
            Reply::Error(error) => Err(RedisError::Server(error).into()),
            reply => {
                let text = reply.bytes().ok_or(RedisError::Answer)?;
                Ok(Self::parse(&String::from_utf8_lossy(text)))
            }
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == Some(value)
    }

    /// The version that clients must reckon with; a Valkey server names the Redis version that it stands for.
    pub(crate) fn version(&self) -> &str {
        self.text("redis_version").unwrap_or("unknown")
    }

    /// Major and minor version.
    pub(crate) fn version_pair(&self) -> (u16, u16) {
        let mut numbers = self.version().split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Whether any module is loaded.
    pub(crate) fn has_modules(&self) -> bool {
        self.0.contains_key("module")
    }

    /// The databases that hold keys, in order.
    pub(crate) fn keyspaces(&self) -> Vec<Keyspace> {
        let mut found: Vec<Keyspace> = self.0.iter().filter_map(|(name, value)| keyspace(name, value)).collect();
        found.sort_by_key(|keyspace| keyspace.database);
        found
    }
}

/// `db0` and `keys=3,expires=1,avg_ttl=0`.
fn keyspace(name: &str, value: &str) -> Option<Keyspace> {
    let database = name.strip_prefix("db")?.parse().ok()?;
    let field = |wanted| value.split(',').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == wanted);
    let number = |wanted| field(wanted).and_then(|(_, digits)| digits.parse().ok());
    Some(Keyspace { database, keys: number("keys")?, expiring: number("expires").unwrap_or(0) })
}

/// What one `INFO` says, with rates against the observation before.
pub(crate) fn observe(info: &Info, previous: Option<&Observation>, now: Timestamp) -> Observation {
    let mut seen = Observation::new().info("version", info.version());
    for (name, field) in [("role", "role"), ("mode", "redis_mode"), ("eviction_policy", "maxmemory_policy")] {
        if let Some(text) = info.text(field) {
            seen = seen.info(name, text);
        }
    }
    seen = plain(seen, info);
    seen = clock(seen, info, now);
    seen = memory(seen, info);
    seen = clients(seen, info, previous);
    seen = hit_ratio(seen, info, previous);
    seen = persistence(seen, info, now);
    seen = replication(seen, info);
    for Keyspace { database, keys, expiring } in info.keyspaces() {
        for (name, count) in [("keys_count", keys), ("keys_expiring_count", expiring)] {
            let value = MeasurementValue::Value(float(count));
            let measurement = Measurement::new(name, MeasurementKind::Gauge, value);
            seen = seen.measurement(measurement.with_label("db", database.to_string()));
        }
    }
    seen
}

/// Fields that become a measurement as they are.
fn plain(mut seen: Observation, info: &Info) -> Observation {
    const GAUGES: [(&str, &str); 7] = [
        ("uptime_seconds", "uptime_in_seconds"),
        ("memory_used_bytes", "used_memory"),
        ("clients_used_count", "connected_clients"),
        ("clients_blocked_count", "blocked_clients"),
        ("changes_since_save_count", "rdb_changes_since_last_save"),
        ("operations_per_second_count", "instantaneous_ops_per_sec"),
        ("replicas_count", "connected_slaves"),
    ];
    const COUNTERS: [(&str, &str); 6] = [
        ("evictions_count", "evicted_keys"),
        ("expirations_count", "expired_keys"),
        ("hits_count", "keyspace_hits"),
        ("misses_count", "keyspace_misses"),
        ("connections_rejected_count", "rejected_connections"),
        ("commands_count", "total_commands_processed"),
    ];
    for (name, field) in GAUGES {
        seen = match info.number(field) {
            Some(value) => seen.gauge(name, value),
            None => seen.unavailable(name, "not reported by this server"),
        };
    }
    for (name, field) in COUNTERS {
        seen = match info.number(field) {
            Some(value) => seen.counter(name, value),
            None => seen.unavailable(name, "not reported by this server"),
        };
    }
    seen
}

/// How far the server's clock is ahead of ours; as exact as the way back of the answer is short.
fn clock(seen: Observation, info: &Info, now: Timestamp) -> Observation {
    match info.number::<f64>("server_time_usec") {
        Some(micros) => seen.gauge("clock_skew_seconds", micros / 1e6 - now.as_duration().as_secs_f64()),
        None => seen.unavailable("clock_skew_seconds", "not reported by this server"),
    }
}

fn memory(seen: Observation, info: &Info) -> Observation {
    let used: f64 = info.number("used_memory").unwrap_or(0.0);
    let seen = match info.number::<f64>("mem_fragmentation_ratio") {
        Some(ratio) if used >= FRAGMENTATION_BYTES_MIN => seen.gauge("memory_fragmentation_ratio", ratio),
        Some(_) => seen.unavailable("memory_fragmentation_ratio", "means nothing below 64 MiB"),
        None => seen.unavailable("memory_fragmentation_ratio", "not reported by this server"),
    };
    match info.number::<f64>("maxmemory") {
        Some(max) if max > 0.0 => {
            let near = Near { code: "redis.memory.near_max", what: "memory", limit: "maxmemory" };
            let seen = seen.gauge("memory_max_bytes", max).gauge("memory_used_ratio", used / max);
            near.judge(seen, used / max)
        }
        Some(_) => {
            let message = "maxmemory is not set: the server grows until the machine has no memory left";
            seen.unavailable("memory_max_bytes", "unlimited")
                .unavailable("memory_used_ratio", "unlimited")
                .finding(Finding::new("redis.maxmemory.unlimited", Axis::Risk, Severity::Info, message))
        }
        None => seen
            .unavailable("memory_max_bytes", "not reported by this server")
            .unavailable("memory_used_ratio", "not reported by this server"),
    }
}

fn clients(seen: Observation, info: &Info, previous: Option<&Observation>) -> Observation {
    let seen = match (info.number::<f64>("connected_clients"), info.number::<f64>("maxclients")) {
        (Some(used), Some(max)) if max > 0.0 => {
            let near = Near { code: "redis.clients.near_max", what: "clients", limit: "maxclients" };
            let seen = seen.gauge("clients_max_count", max).gauge("clients_used_ratio", used / max);
            near.judge(seen, used / max)
        }
        _ => seen
            .unavailable("clients_max_count", "not reported by this server")
            .unavailable("clients_used_ratio", "not reported by this server"),
    };
    match delta(info, "rejected_connections", previous, "connections_rejected_count") {
        Some(rejected) if rejected > 0.0 => seen.finding(Finding::new(
            "redis.clients.rejected",
            Axis::Ready,
            Severity::Warning,
            format!("{rejected} connections were refused since the last probe"),
        )),
        _ => seen,
    }
}

/// The share of reads that found their key, since the probe before: since the start it is nearly constant and hides
/// what happens.
fn hit_ratio(seen: Observation, info: &Info, previous: Option<&Observation>) -> Observation {
    let hits = delta(info, "keyspace_hits", previous, "hits_count");
    let misses = delta(info, "keyspace_misses", previous, "misses_count");
    match (hits, misses) {
        (Some(hits), Some(misses)) if hits + misses > 0.0 => seen.gauge("hit_ratio", hits / (hits + misses)),
        (Some(_), Some(_)) => seen.unavailable("hit_ratio", "no reads since the last probe"),
        _ => seen.unavailable("hit_ratio", "needs two probes of one run of the server"),
    }
}

/// How much a counter grew; `None` without a probe before, or if the server restarted in between.
fn delta(info: &Info, field: &str, previous: Option<&Observation>, name: &str) -> Option<f64> {
    let (now, before) = (info.number::<f64>(field)?, previous?.value(name)?);
    (now >= before).then_some(now - before)
}

fn persistence(mut seen: Observation, info: &Info, now: Timestamp) -> Observation {
    seen = match info.number::<i64>("rdb_last_save_time") {
        Some(saved) => {
            seen.gauge("last_save_age_seconds", float(now.as_second().saturating_sub(saved).max(0).unsigned_abs()))
        }
        None => seen.unavailable("last_save_age_seconds", "not reported by this server"),
    };
    for (name, field) in [("rdb_last_save", "rdb_last_bgsave_status"), ("aof_last_write", "aof_last_write_status")] {
        if let Some(status) = info.text(field) {
            seen = seen.info(name, status);
        }
    }
    seen = seen.info("aof", if info.is("aof_enabled", "1") { "on" } else { "off" });
    const STATES: [(&str, &str, Axis, Severity, &str); 3] = [
        (
            "rdb_last_bgsave_status",
            "redis.bgsave.failed",
            Axis::Risk,
            Severity::Critical,
            "the last background save failed; writes are refused if stop-writes-on-bgsave-error is on",
        ),
        (
            "aof_last_write_status",
            "redis.aof.write_failed",
            Axis::Ready,
            Severity::Critical,
            "the append-only file can't be written, so writes are refused",
        ),
        (
            "aof_last_bgrewrite_status",
            "redis.aof.rewrite_failed",
            Axis::Risk,
            Severity::Warning,
            "the last rewrite of the append-only file failed",
        ),
    ];
    for (field, code, axis, severity, message) in STATES {
        if info.is(field, "err") {
            seen = seen.finding(Finding::new(code, axis, severity, message));
        }
    }
    seen
}

fn replication(seen: Observation, info: &Info) -> Observation {
    if !info.is("role", "slave") {
        return seen.unavailable("replication_silence_seconds", "not a replica");
    }
    let seen = match info.number::<f64>("master_last_io_seconds_ago").filter(|silence| *silence >= 0.0) {
        Some(silence) => seen.gauge("replication_silence_seconds", silence),
        None => seen.unavailable("replication_silence_seconds", "no link to the master"),
    };
    if info.is("master_link_status", "up") {
        return seen;
    }
    let message = "the replica has no link to its master; what it serves grows stale";
    seen.finding(Finding::new("redis.link.down", Axis::Ready, Severity::Warning, message))
}

/// A use that must not come near its limit.
struct Near {
    code: &'static str,
    what: &'static str,
    limit: &'static str,
}

impl Near {
    fn judge(&self, seen: Observation, ratio: f64) -> Observation {
        let severity = match ratio {
            ratio if ratio >= AT_MAX_RATIO => Severity::Critical,
            ratio if ratio >= NEAR_MAX_RATIO => Severity::Warning,
            _ => return seen,
        };
        let message = format!("{} is at {:.0} % of {}", self.what, ratio * 100.0, self.limit);
        seen.finding(Finding::new(self.code, Axis::Risk, severity, message))
    }
}

/// Counts above 2^53 lose their last digits as a measurement, which is a float.
#[expect(clippy::cast_precision_loss, reason = "a measurement is a float; no server counts to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nserver_time_usec:159500000\r\nuptime_in_seconds:60\r\n# Memory\r\nused_memory:90\r\nmaxmemory:100\r\n\
        mem_fragmentation_ratio:1.5\r\nmaxclients:10\r\nconnected_clients:2\r\nkeyspace_hits:30\r\nkeyspace_misses:10\r\n\
        rejected_connections:0\r\nrdb_last_save_time:100\r\nrdb_last_bgsave_status:ok\r\nrole:master\r\n# Keyspace\r\n\
        db10:keys=1,expires=0,avg_ttl=0\r\ndb2:keys=7,expires=3,avg_ttl=9,subexpiry=0\r\n";

    fn codes(info: &str) -> Vec<String> {
        let seen = observe(&Info::parse(info), None, Timestamp::UNIX_EPOCH);
        seen.findings.into_iter().map(|finding| finding.code.into_owned()).collect()
    }

    #[test]
    fn numbers_carry_their_units_and_missing_ones_a_reason() {
        let seen = observe(&Info::parse(INFO), None, Timestamp::from_second(160).unwrap());
        assert_eq!(seen.value("memory_used_ratio"), Some(0.9));
        assert_eq!(seen.value("clients_used_ratio"), Some(0.2));
        assert_eq!(seen.value("last_save_age_seconds"), Some(60.0));
        assert_eq!(seen.value("clock_skew_seconds"), Some(-0.5));
        assert_eq!(seen.value("memory_fragmentation_ratio"), None, "90 bytes say nothing of fragmentation");
        assert_eq!(seen.value("evictions_count"), None);
        assert_eq!(seen.info["version"], "7.0.15");
        let keys: Vec<_> = seen.measurements.iter().filter(|m| m.name == "keys_count").collect();
        assert_eq!(keys.iter().map(|m| m.labels["db"].as_str()).collect::<Vec<_>>(), ["2", "10"]);
        assert_eq!(codes(INFO), ["redis.memory.near_max"]);
    }

    #[test]
    fn the_hit_ratio_is_of_the_time_between_two_probes() {
        let at = |hits, misses, previous: Option<&Observation>| {
            let info = Info::parse(&format!("keyspace_hits:{hits}\nkeyspace_misses:{misses}\n"));
            observe(&info, previous, Timestamp::UNIX_EPOCH)
        };
        let first = at(30, 10, None);
        assert_eq!(first.value("hit_ratio"), None);
        assert_eq!(at(33, 11, Some(&first)).value("hit_ratio"), Some(0.75));
        assert_eq!(at(30, 10, Some(&first)).value("hit_ratio"), None, "nothing was read");
        assert_eq!(at(5, 5, Some(&first)).value("hit_ratio"), None, "the server restarted");
    }

    #[test]
    fn what_is_bad_has_a_stable_code() {
        for (line, code) in [
            ("maxmemory:0", "redis.maxmemory.unlimited"),
            ("used_memory:96\nmaxmemory:100", "redis.memory.near_max"),
            ("connected_clients:8\nmaxclients:10", "redis.clients.near_max"),
            ("rdb_last_bgsave_status:err", "redis.bgsave.failed"),
            ("aof_last_write_status:err", "redis.aof.write_failed"),
            ("aof_last_bgrewrite_status:err", "redis.aof.rewrite_failed"),
            ("role:slave\nmaster_link_status:down", "redis.link.down"),
        ] {
            assert_eq!(codes(line), [code], "{line}");
        }
        assert!(codes("role:slave\nmaster_link_status:up").is_empty());
    }
}
