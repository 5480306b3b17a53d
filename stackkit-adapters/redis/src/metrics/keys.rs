//! Keys of the databases, slow commands and latency spikes.

use stackkit_core::health::MeasurementValue;

use crate::metrics::info::Keyspace;
use crate::metrics::{Look, Sheet};

/// The most databases that are told one by one, the largest first; the rest is `other`. As many as a server has unless
/// configured.
const DATABASES_MAX: usize = 16;
/// The most kinds of latency spikes that are told. The server knows about twenty.
const EVENTS_MAX: usize = 16;
/// What is not told one by one.
pub(super) const OTHER: &str = "other";

pub(super) fn keys(sheet: &mut Sheet, look: &Look) {
    let mut databases = look.info.keyspaces();
    sheet.put("databases_count", float(u64::try_from(databases.len()).unwrap_or(u64::MAX)));
    if databases.is_empty() {
        ["keys_count", "keys_expiring_count"].into_iter().for_each(|name| sheet.without(name, "no keys"));
    }
    databases.sort_by_key(|database| std::cmp::Reverse(database.keys));
    let rest = databases.split_off(databases.len().min(DATABASES_MAX));
    databases.sort_by_key(|database| database.database);
    for Keyspace { database, keys, expiring } in databases {
        counts(sheet, &database.to_string(), keys, expiring);
    }
    if !rest.is_empty() {
        let sum = |count: fn(&Keyspace) -> u64| rest.iter().map(count).sum();
        counts(sheet, OTHER, sum(|database| database.keys), sum(|database| database.expiring));
    }
}

fn counts(sheet: &mut Sheet, database: &str, keys: u64, expiring: u64) {
    for (name, count) in [("keys_count", keys), ("keys_expiring_count", expiring)] {
        sheet.labelled(name, &[("db", &database)], float(count).into());
    }
}

pub(super) fn slow(sheet: &mut Sheet, look: &Look) {
    match look.answers.slowlog() {
        Ok(length) => sheet.put("slowlog_length_count", length),
        Err(why) => sheet.refused("slowlog_length_count", why),
    }
    const NAMES: [&str; 2] = ["latency_latest_ms", "latency_max_ms"];
    let events = match look.answers.latency() {
        Ok(events) => events,
        Err(why) => {
            sheet.refused("latency_events_count", why);
            return NAMES.into_iter().for_each(|name| sheet.refused(name, why));
        }
    };
    sheet.put("latency_events_count", float(u64::try_from(events.len()).unwrap_or(u64::MAX)));
    if events.is_empty() {
        NAMES.into_iter().for_each(|name| sheet.without(name, "no spikes, or latency-monitor-threshold is 0"));
    }
    for event in events.iter().take(EVENTS_MAX) {
        for (name, value) in [(NAMES[0], event.latest_ms), (NAMES[1], event.max_ms)] {
            sheet.labelled(name, &[("event", &event.name)], MeasurementValue::from(value));
        }
    }
}

/// Counts above 2^53 lose their last digits as a measurement, which is a float.
#[expect(clippy::cast_precision_loss, reason = "a measurement is a float; no server counts to 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
