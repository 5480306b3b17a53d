//! Memory, clients and activity.

use stackkit_core::health::{Axis, Finding, Growth, Severity};

use crate::metrics::{Look, Sheet};

/// Below this much data the allocator's own overhead dominates the fragmentation ratio.
const FRAGMENTATION_BYTES_MIN: f64 = 67_108_864.0;

pub(super) fn memory(sheet: &mut Sheet, look: &Look) {
    let info = look.info;
    for (name, field) in [
        ("memory_used_bytes", "used_memory"),
        ("memory_peak_bytes", "used_memory_peak"),
        ("memory_rss_bytes", "used_memory_rss"),
        ("memory_system_bytes", "total_system_memory"),
        ("memory_over_limit_ms", "current_eviction_exceeded_time"),
    ] {
        sheet.reported(name, info.number(field));
    }
    let used = info.number::<f64>("used_memory");
    match info.number::<f64>("mem_fragmentation_ratio") {
        Some(_) if used.is_some_and(|used| used < FRAGMENTATION_BYTES_MIN) => {
            sheet.without("memory_fragmentation_ratio", "means nothing below 64 MiB");
        }
        ratio => sheet.reported("memory_fragmentation_ratio", ratio),
    }
    limit(sheet, look, used);
}

/// Against `maxmemory`, or the machine's memory where none is set.
fn limit(sheet: &mut Sheet, look: &Look, used: Option<f64>) {
    let info = look.info;
    let max = info.number::<f64>("maxmemory");
    let set = max.filter(|max| *max > 0.0);
    let system = info.number::<f64>("total_system_memory").filter(|system| *system > 0.0);
    let ratio = used.zip(set.or(max.and(system))).map(|(used, limit)| used / limit);
    sheet.reported("memory_used_ratio", ratio);
    let policy = info.text("maxmemory_policy");
    match policy {
        // Such a server is full by design.
        Some(policy) if set.is_some() && policy.starts_with("allkeys-") => {
            sheet.without("memory_unevictable_ratio", "the policy evicts any key");
        }
        _ => sheet.reported("memory_unevictable_ratio", ratio),
    }
    if let Some(policy) = policy {
        sheet.fact("eviction_policy", policy);
    }
    match max {
        Some(max) if max > 0.0 => {
            sheet.put("memory_max_bytes", max);
            full(sheet, look, max);
        }
        Some(_) => {
            sheet.without("memory_max_bytes", "unlimited");
            let message = "maxmemory is not set: the server grows until the machine has no memory left";
            let finding = Finding::new("redis.maxmemory.unset", Axis::Risk, Severity::Info, message);
            sheet.finding(finding.with_hint("set maxmemory below the machine's memory"));
        }
        None => sheet.without("memory_max_bytes", "not reported by this server"),
    }
}

/// At the limit a server that may evict nothing refuses writes; buffers of replicas and of the append-only file do not
/// count.
fn full(sheet: &mut Sheet, look: &Look, max: f64) {
    let uncounted = look.info.number("mem_not_counted_for_evict").unwrap_or(0.0);
    let counted = look.info.number::<f64>("used_memory").map(|used| used - uncounted);
    if look.info.is("maxmemory_policy", "noeviction") && counted.is_some_and(|counted| counted > max) {
        let message = "memory is at its limit, so writes are refused";
        let finding = Finding::new("redis.memory.full", look.writes, Severity::Critical, message);
        sheet.finding(finding.with_hint("raise maxmemory, remove data, or choose a policy that evicts"));
    }
}

pub(super) fn clients(sheet: &mut Sheet, look: &Look) {
    let info = look.info;
    let used = info.number::<f64>("connected_clients");
    let max = info.number::<f64>("maxclients").filter(|max| *max > 0.0);
    sheet.reported("clients_used_count", used);
    sheet.reported("clients_max_count", max);
    sheet.reported("clients_used_ratio", used.zip(max).map(|(used, max)| used / max));
    sheet.reported("clients_blocked_count", info.number("blocked_clients"));
}

pub(super) fn activity(sheet: &mut Sheet, look: &Look) {
    let info = look.info;
    sheet.reported("uptime_seconds", info.number("uptime_in_seconds"));
    sheet.reported("operations_per_second_count", info.number("instantaneous_ops_per_sec"));
    for (name, field) in [
        ("commands_count", "total_commands_processed"),
        ("hits_count", "keyspace_hits"),
        ("misses_count", "keyspace_misses"),
        ("expirations_count", "expired_keys"),
    ] {
        sheet.reported(name, info.number(field));
    }
    for (name, recent, field) in [
        ("evictions_count", "evictions_recent_count", "evicted_keys"),
        ("error_replies_count", "error_replies_recent_count", "total_error_replies"),
        ("connections_rejected_count", "connections_rejected_recent_count", "rejected_connections"),
    ] {
        look.counted(sheet, (name, recent), info.number(field));
    }
    hit_ratio(sheet, look);
    // As exact as the way back of the answer is short.
    let now = look.cx.clock().now().as_duration().as_secs_f64();
    sheet.reported("clock_skew_seconds", info.number::<f64>("server_time_usec").map(|micros| micros / 1e6 - now));
}

/// The share of reads that found their key, since the probe before: since the start it is nearly constant and hides
/// what happens.
fn hit_ratio(sheet: &mut Sheet, look: &Look) {
    let growth = |name, field| look.info.number::<f64>(field).map(|value| look.growth(name, value));
    let reads = growth("hits_count", "keyspace_hits").zip(growth("misses_count", "keyspace_misses"));
    let Some((hits, misses)) = reads else { return sheet.reported("hit_ratio", None) };
    match (hits.amount(), misses.amount()) {
        (Some(hits), Some(misses)) if hits + misses > 0.0 => sheet.put("hit_ratio", hits / (hits + misses)),
        (Some(_), Some(_)) => sheet.without("hit_ratio", "nothing was read since the last probe"),
        _ if hits == Growth::Reset || misses == Growth::Reset => sheet.value("hit_ratio", Growth::Reset.value()),
        _ => sheet.value("hit_ratio", Growth::First.value()),
    }
}
