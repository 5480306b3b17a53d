//! Saves, and the append-only file.

use stackkit_core::health::{Axis, Finding, Severity};

use crate::metrics::answers::Question;
use crate::metrics::{Look, Sheet, Why};

/// Why a measurement of the append-only file has no number.
const AOF_OFF: &str = "the append-only file is off";

pub(super) fn persistence(sheet: &mut Sheet, look: &Look) {
    saves(sheet, look);
    failed_save(sheet, look);
    append_only(sheet, look);
    for (name, field) in [("rdb_last_save", "rdb_last_bgsave_status"), ("aof_last_write", "aof_last_write_status")] {
        if let Some(status) = look.info.text(field) {
            sheet.fact(name, status);
        }
    }
}

fn saves(sheet: &mut Sheet, look: &Look) {
    let info = look.info;
    // By the server's own clock where it tells it: that of this machine may differ.
    let now = info.number::<f64>("server_time_usec").map(|micros| micros / 1e6);
    let now = now.unwrap_or_else(|| look.cx.clock().now().as_duration().as_secs_f64());
    let age = info.number::<f64>("rdb_last_save_time").map(|saved| (now - saved).max(0.0));
    sheet.reported("last_save_age_seconds", age);
    sheet.reported("changes_since_save_count", info.number("rdb_changes_since_last_save"));
    sheet.reported("bgsave_running_bool", info.number("rdb_bgsave_in_progress"));
    spent(sheet, "bgsave_running_seconds", info.number("rdb_current_bgsave_time_sec"), "no save runs");
    spent(sheet, "bgsave_last_seconds", info.number("rdb_last_bgsave_time_sec"), "there was none yet");
    sheet.reported("fork_latest_ms", info.number::<f64>("latest_fork_usec").map(|micros| micros / 1e3));
    sheet.reported("async_loading_bool", info.number("async_loading"));
}

/// A time that the server gives as -1 where there is none.
fn spent(sheet: &mut Sheet, name: &'static str, seconds: Option<f64>, none: &'static str) {
    match seconds {
        Some(seconds) if seconds < 0.0 => sheet.without(name, none),
        seconds => sheet.reported(name, seconds),
    }
}

/// A failed save stops writes if the server is set so. It then refuses `PING` too, which says so without any right.
fn failed_save(sheet: &mut Sheet, look: &Look) {
    let Some(status) = look.info.text("rdb_last_bgsave_status") else {
        sheet.reported("bgsave_failed_bool", None);
        return sheet.reported("bgsave_stops_writes_bool", None);
    };
    let failed = status == "err";
    sheet.flag("bgsave_failed_bool", failed);
    let aof_failed = look.info.is("aof_last_write_status", "err");
    let stops = match failed {
        false => Ok(false),
        // The refusal of `PING` may be about either file.
        true if look.refuses_writes && !aof_failed => Ok(true),
        true => by_the_settings(look),
    };
    match stops {
        Ok(stops) => sheet.flag("bgsave_stops_writes_bool", stops),
        Err(why) => sheet.refused("bgsave_stops_writes_bool", why),
    }
    if failed {
        sheet.finding(of_failed_save(stops, look.writes));
    }
}

fn by_the_settings(look: &Look) -> Result<bool, Why> {
    let stops = look.answers.setting(Question::StopWrites)? == "yes";
    // Without a save point the server does not mind.
    Ok(stops && !look.answers.setting(Question::SavePoints)?.is_empty() && !look.info.is("role", "slave"))
}

fn of_failed_save(stops: Result<bool, Why>, writes: Axis) -> Finding {
    let (axis, message) = match stops {
        Ok(true) => (writes, "the last background save failed, so writes are refused"),
        Ok(false) => (Axis::Risk, "the last background save failed; writes go on and are not saved"),
        Err(_) => (
            Axis::Risk,
            "the last background save failed; stop-writes-on-bgsave-error can't be read, so writes may be refused",
        ),
    };
    let hint = "free space or mend the directory's rights, then run BGSAVE";
    Finding::new("redis.bgsave.failed", axis, Severity::Critical, message).with_hint(hint)
}

fn append_only(sheet: &mut Sheet, look: &Look) {
    let info = look.info;
    let enabled = info.is("aof_enabled", "1");
    sheet.reported("aof_enabled_bool", info.number("aof_enabled"));
    sheet.fact("aof", if enabled { "on" } else { "off" });
    sheet.reported("aof_rewrite_running_bool", info.number("aof_rewrite_in_progress"));
    let rewriting = info.number("aof_current_rewrite_time_sec");
    spent(sheet, "aof_rewrite_running_seconds", rewriting, "no rewrite runs");
    for (name, field) in [
        ("aof_size_bytes", "aof_current_size"),
        ("aof_lag_fsyncs_count", "aof_pending_bio_fsync"),
        ("aof_lag_buffer_bytes", "aof_buffer_length"),
    ] {
        match enabled {
            true => sheet.reported(name, info.number(field)),
            false => sheet.without(name, AOF_OFF),
        }
    }
    let delays = ("aof_lag_delays_count", "aof_lag_delays_recent_count");
    match enabled {
        true => look.counted(sheet, delays, info.number("aof_delayed_fsync")),
        false => [delays.0, delays.1].into_iter().for_each(|name| sheet.without(name, AOF_OFF)),
    }
    if enabled && info.is("aof_last_write_status", "err") {
        let message = "the append-only file can't be written, so writes are refused";
        let finding = Finding::new("redis.aof.write_failed", look.writes, Severity::Critical, message);
        sheet.finding(finding.with_hint("free space on the server's disk; it tries again every second"));
    }
    if info.is("aof_last_bgrewrite_status", "err") {
        let message = "the last rewrite of the append-only file failed";
        let finding = Finding::new("redis.aof.rewrite_failed", Axis::Risk, Severity::Warning, message);
        sheet.finding(finding.with_hint("free space on the server's disk, then run BGREWRITEAOF"));
    }
}
