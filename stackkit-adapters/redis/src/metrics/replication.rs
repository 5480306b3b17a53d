//! Replicas, masters, clusters.

use stackkit_core::health::{Axis, Finding, MeasurementValue, Severity};

use crate::metrics::answers::Question;
use crate::metrics::info::Replica;
use crate::metrics::keys::float;
use crate::metrics::{Look, Sheet, Why};

/// The most replicas that are told one by one, the furthest behind first: more than a master usually has.
const REPLICAS_MAX: usize = 16;

pub(super) fn replication(sheet: &mut Sheet, look: &Look) {
    if let Some(role) = look.info.text("role") {
        sheet.fact("role", role);
    }
    as_master(sheet, look);
    as_replica(sheet, look);
    cluster(sheet, look);
}

fn as_master(sheet: &mut Sheet, look: &Look) {
    let info = look.info;
    let replicas = info.replicas();
    sheet.reported("replicas_count", info.number("connected_slaves"));
    let online = replicas.iter().filter(|replica| replica.is_online).count();
    let online = info.text("connected_slaves").map(|_| float(u64::try_from(online).unwrap_or(u64::MAX)));
    sheet.reported("replicas_online_count", online);
    missing(sheet, look);
    lags(sheet, replicas, info.number("master_repl_offset"));
}

/// The count of good replicas is there only where a minimum is set, and the minimum only among the settings.
fn missing(sheet: &mut Sheet, look: &Look) {
    if look.info.is("role", "slave") {
        return sheet.without("replicas_missing_count", "a replica");
    }
    let Some(good) = look.info.number::<f64>("min_slaves_good_slaves") else {
        return match look.info.text("role") {
            Some(_) => sheet.put("replicas_missing_count", 0.0),
            None => sheet.reported("replicas_missing_count", None),
        };
    };
    let wanted =
        look.answers.setting(Question::MinReplicas).and_then(|text| text.parse::<f64>().map_err(|_text| Why::Refused));
    match wanted {
        Ok(wanted) => sheet.put("replicas_missing_count", f64::max(wanted - good, 0.0)),
        // None at all is too few for any minimum.
        Err(_) if good == 0.0 => sheet.put("replicas_missing_count", 1.0),
        Err(why) => sheet.refused("replicas_missing_count", why),
    }
}

fn lags(sheet: &mut Sheet, replicas: Vec<Replica>, offset: Option<f64>) {
    if replicas.is_empty() {
        ["replica_lag_bytes", "replica_lag_seconds"].into_iter().for_each(|name| sheet.without(name, "no replicas"));
    }
    let mut behind: Vec<(f64, Replica)> = replicas
        .into_iter()
        .map(|replica| (offset.map_or(0.0, |offset| (offset - replica.offset).max(0.0)), replica))
        .collect();
    behind.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (bytes, replica) in behind.into_iter().take(REPLICAS_MAX) {
        let labels: [(&'static str, &dyn std::fmt::Display); 1] = [("replica", &replica.name)];
        sheet.labelled("replica_lag_bytes", &labels, bytes.into());
        let unsaid = || MeasurementValue::Unavailable("not reported by this server".to_owned());
        sheet.labelled("replica_lag_seconds", &labels, replica.lag.map_or_else(unsaid, Into::into));
    }
}

fn as_replica(sheet: &mut Sheet, look: &Look) {
    const NAMES: [&str; 4] = [
        "replication_silence_seconds",
        "replication_link_down_seconds",
        "replication_sync_running_bool",
        "replication_unapplied_bytes",
    ];
    let info = look.info;
    if !info.is("role", "slave") {
        return NAMES.into_iter().for_each(|name| sheet.without(name, "not a replica"));
    }
    let is_up = info.is("master_link_status", "up");
    match info.number::<f64>("master_last_io_seconds_ago").filter(|silence| *silence >= 0.0) {
        Some(silence) => sheet.put("replication_silence_seconds", silence),
        None => sheet.without("replication_silence_seconds", "no link to the master"),
    }
    match info.number::<f64>("master_link_down_since_seconds").filter(|seconds| *seconds >= 0.0) {
        Some(seconds) => sheet.put("replication_link_down_seconds", seconds),
        None if is_up => sheet.put("replication_link_down_seconds", 0.0),
        None => sheet.without("replication_link_down_seconds", "it was never up"),
    }
    sheet.reported("replication_sync_running_bool", info.number("master_sync_in_progress"));
    let offsets = info.number::<f64>("slave_read_repl_offset").zip(info.number::<f64>("slave_repl_offset"));
    sheet.reported("replication_unapplied_bytes", offsets.map(|(read, applied)| (read - applied).max(0.0)));
    if !is_up {
        let message = "the replica has no link to its master; what it serves grows stale";
        let finding = Finding::new("redis.link.down", Axis::Ready, Severity::Warning, message);
        sheet.finding(finding.with_hint("look at the master, the network between, and masterauth"));
    }
}

fn cluster(sheet: &mut Sheet, look: &Look) {
    const COUNTS: [(&str, &str); 5] = [
        ("cluster_slots_assigned_count", "cluster_slots_assigned"),
        ("cluster_slots_ok_count", "cluster_slots_ok"),
        ("cluster_slots_suspected_count", "cluster_slots_pfail"),
        ("cluster_slots_failed_count", "cluster_slots_fail"),
        ("cluster_nodes_count", "cluster_known_nodes"),
    ];
    match look.answers.cluster() {
        Ok(state) => {
            sheet.reported(
                "cluster_ok_bool",
                state.text("cluster_state").map(|state| f64::from(u8::from(state == "ok"))),
            );
            COUNTS.into_iter().for_each(|(name, field)| sheet.reported(name, state.number(field)));
        }
        Err(why) => {
            let why = if look.info.is("cluster_enabled", "1") { why } else { Why::NotAsked("not a cluster") };
            sheet.refused("cluster_ok_bool", why);
            COUNTS.into_iter().for_each(|(name, _)| sheet.refused(name, why));
        }
    }
}
