//! The whole of a look, by recorded answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stackkit_core::Clock;
use stackkit_core::health::{MeasurementKind, MeasurementValue, Status, Thresholds, Tier};

use super::*;
use crate::resp::{Reply, ServerError};

const PLAIN: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nserver_time_usec:159500000\r\nuptime_in_seconds:60\r\n\
    # Memory\r\nused_memory:90\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\nmem_fragmentation_ratio:1.5\r\n\
    total_system_memory:900\r\nmaxclients:10\r\nconnected_clients:2\r\nkeyspace_hits:30\r\nkeyspace_misses:10\r\n\
    rejected_connections:0\r\nrdb_last_save_time:100\r\nrdb_last_bgsave_status:ok\r\nrole:master\r\n# Keyspace\r\n\
    db10:keys=1,expires=0,avg_ttl=0\r\ndb2:keys=7,expires=3,avg_ttl=9,subexpiry=0\r\n";

/// What Valkey answers to `INFO` with one key, recorded; without what only says which machine it was.
const VALKEY: [(&str, &str); 2] =
    [("8.1.1", include_str!("recorded/valkey-8.1.1.txt")), ("9.1.2", include_str!("recorded/valkey-9.1.2.txt"))];

/// A look at these texts; what is not said is as at a server that answers well.
struct Case {
    info: String,
    answers: Answers,
    cx: ProbeContext,
    refuses_writes: bool,
    writes: Axis,
}

impl Case {
    fn new(info: &str) -> Self {
        let clock = Clock::fixed(Timestamp::from_second(160).unwrap());
        let cx = ProbeContext::new(Tier::Vitals, clock.instant()).with_clock(clock);
        Self { info: info.to_owned(), answers: Answers::default(), cx, refuses_writes: false, writes: Axis::Ready }
    }

    fn answered(mut self, question: Question, reply: Reply) -> Self {
        self.answers.put(question, reply);
        self
    }

    fn set(self, question: Question, value: &str) -> Self {
        self.answered(
            question,
            Reply::Array([b"name", value.as_bytes()].map(|text| Reply::Bulk(text.to_vec())).to_vec()),
        )
    }

    /// That many seconds after `previous`.
    fn after(mut self, previous: &Observation, seconds: u64) -> Self {
        let at = self.cx.clock().instant();
        self.cx.clock().advance(Duration::from_secs(seconds));
        self.cx = self.cx.with_previous(Some(Arc::new(previous.clone()))).with_previous_at(Some(at));
        self
    }

    fn observe(&self) -> Observation {
        let Self { info, answers, cx, refuses_writes, writes } = self;
        let (info, refuses_writes, writes) = (&Info::parse(info), *refuses_writes, *writes);
        observe(&Look { info, answers, cx, refuses_writes, writes })
    }

    /// All findings with their axis, the rules' among them.
    fn findings(&self) -> Vec<(String, Axis, Severity)> {
        let seen = self.observe();
        let found = Thresholds::new().verdict(&rules(self.writes), &seen).findings;
        seen.findings.iter().chain(&found).map(|f| (f.code.to_string(), f.axis, f.severity)).collect()
    }
}

fn codes(info: &str) -> Vec<String> {
    Case::new(info).findings().into_iter().map(|(code, ..)| code).collect()
}

fn reason(seen: &Observation, name: &str) -> String {
    let found = seen.measurements.iter().find(|measurement| measurement.name == name);
    match found.map(|measurement| &measurement.value) {
        Some(MeasurementValue::Unavailable(reason)) => reason.clone(),
        other => format!("{other:?}"),
    }
}

fn refused() -> Reply {
    Reply::Error(ServerError { code: "NOPERM".to_owned(), text: "this user has no permissions".to_owned() })
}

#[test]
fn numbers_carry_their_units_and_missing_ones_a_reason() {
    let seen = Case::new(PLAIN).observe();
    assert_eq!(seen.value("memory_used_ratio"), Some(0.9));
    assert_eq!(seen.value("clients_used_ratio"), Some(0.2));
    assert_eq!(seen.value("last_save_age_seconds"), Some(59.5), "by the server's own clock");
    assert_eq!(seen.value("clock_skew_seconds"), Some(-0.5));
    assert_eq!(reason(&seen, "memory_fragmentation_ratio"), "means nothing below 64 MiB");
    assert_eq!(reason(&seen, "evictions_count"), "not reported by this server");
    assert_eq!(reason(&seen, "evictions_recent_count"), "not reported by this server");
    assert_eq!((seen.info["server"].as_str(), seen.info["version"].as_str()), ("redis", "7.0.15"));
    let keys: Vec<_> = seen.measurements.iter().filter(|m| m.name == "keys_count").collect();
    assert_eq!(keys.iter().map(|m| m.labels["db"].as_str()).collect::<Vec<_>>(), ["2", "10"]);
    assert_eq!(codes(PLAIN), ["redis.memory.near_max"]);
}

#[test]
fn valkey_is_recognised_with_its_own_version_and_reports_everything() {
    for (version, info) in VALKEY {
        let seen = Case::new(info).observe();
        assert_eq!((seen.info["server"].as_str(), seen.info["version"].as_str()), ("valkey", version));
        assert_eq!((seen.info["redis_version"].as_str(), seen.info["mode"].as_str()), ("7.2.4", "standalone"));
        assert_eq!(seen.value("keys_count"), Some(1.0));
        let unreported = seen.measurements.iter().filter(|m| reason(&seen, &m.name) == "not reported by this server");
        assert_eq!(unreported.count(), 0);
        assert_eq!(codes(info), ["redis.maxmemory.unset"]);
    }
}

#[test]
fn each_measurement_is_in_the_catalogue_and_each_entry_is_measured() {
    // Nothing known, a master with replicas, a replica in a cluster: between them they measure everything.
    let spike =
        Reply::Array(vec![Reply::Bulk(b"command".to_vec()), Reply::Integer(1), Reply::Integer(2), Reply::Integer(3)]);
    let cases = [
        Case::new(""),
        Case::new("role:master\nslave0:ip=::1,port=7,state=online,offset=4,lag=0\nmaster_repl_offset:9\nmin_slaves_good_slaves:0"),
        Case::new("role:slave\nmaster_link_status:up\naof_enabled:1\naof_delayed_fsync:1\ncluster_enabled:1\ndb0:keys=1,expires=1")
            .answered(Question::Latency, Reply::Array(vec![spike]))
            .answered(Question::Cluster, Reply::Bulk(b"cluster_state:ok\r\n".to_vec())),
    ];
    let mut measured = BTreeSet::new();
    for measurement in cases.iter().flat_map(|case| case.observe().measurements) {
        let entry =
            catalogue::metric(&measurement.name).unwrap_or_else(|| panic!("{} is not listed", measurement.name));
        assert_eq!((entry.kind, entry.tier), (measurement.kind, Tier::Vitals), "{}", measurement.name);
        for label in measurement.labels.keys() {
            assert!(entry.labels.contains(&label.as_str()), "{} has no label {label}", measurement.name);
        }
        measured.insert(measurement.name.into_owned());
    }
    let listed = METRICS.iter().filter(|metric| metric.tier == Tier::Vitals).map(|metric| metric.name.to_owned());
    assert_eq!(measured, listed.collect());
}

#[test]
fn the_catalogue_names_each_entry_once_and_each_rule_is_about_one() {
    let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    let counters = METRICS.iter().filter(|metric| metric.kind == MeasurementKind::Counter);
    assert!(counters.clone().count() > 5 && counters.clone().all(|metric| metric.unit() == "count"));
    for rule in rules(Axis::Ready) {
        assert!(names.contains(rule.metric.as_ref()), "{} judges nothing", rule.code);
    }
}

#[test]
fn the_hit_ratio_is_of_the_time_between_two_probes() {
    let case = |hits, misses, uptime| {
        Case::new(&format!("keyspace_hits:{hits}\nkeyspace_misses:{misses}\nuptime_in_seconds:{uptime}\n"))
    };
    let first = case(30, 10, 100).observe();
    assert_eq!(reason(&first, "hit_ratio"), "needs a previous observation");
    assert_eq!(case(33, 11, 115).after(&first, 15).observe().value("hit_ratio"), Some(0.75));
    let idle = case(30, 10, 115).after(&first, 15).observe();
    assert_eq!(reason(&idle, "hit_ratio"), "nothing was read since the last probe");
    let reset = case(5, 12, 115).after(&first, 15).observe();
    assert_eq!(reason(&reset, "hit_ratio"), "the counter was reset", "CONFIG RESETSTAT");
}

#[test]
fn a_counter_that_restarted_is_no_spike_even_if_it_has_outgrown_itself() {
    let case = |evicted, uptime| Case::new(&format!("evicted_keys:{evicted}\nuptime_in_seconds:{uptime}\n"));
    let first = case(1000, 5000).observe();
    assert_eq!(case(1007, 5015).after(&first, 15).observe().value("evictions_recent_count"), Some(7.0));
    for evicted in [3, 900_000] {
        let restarted = case(evicted, 4).after(&first, 600);
        assert_eq!(reason(&restarted.observe(), "evictions_recent_count"), "the counter was reset");
        assert_eq!(restarted.findings(), [("redis.restarted".to_owned(), Axis::Risk, Severity::Info)]);
    }
}

#[test]
fn what_is_bad_has_a_stable_code() {
    for (line, code) in [
        ("maxmemory:0", "redis.maxmemory.unset"),
        ("used_memory:96\nmaxmemory:100\nmaxmemory_policy:volatile-lru", "redis.memory.near_max"),
        ("used_memory:67108864\nmem_fragmentation_ratio:1.6", "redis.memory.fragmented"),
        ("connected_clients:8\nmaxclients:10", "redis.clients.near_max"),
        ("rdb_last_bgsave_status:err", "redis.bgsave.failed"),
        ("rdb_current_bgsave_time_sec:4000", "redis.bgsave.slow"),
        ("latest_fork_usec:1200000", "redis.fork.slow"),
        ("aof_enabled:1\naof_last_write_status:err", "redis.aof.write_failed"),
        ("aof_last_bgrewrite_status:err", "redis.aof.rewrite_failed"),
        ("role:slave\nmaster_link_status:down", "redis.link.down"),
        ("role:slave\nmaster_link_status:up\nmaster_last_io_seconds_ago:40", "redis.link.silent"),
        ("role:master\nslave0:ip=::1,port=7,state=online,offset=4,lag=31", "redis.replica.lagging"),
        ("role:master\nmin_slaves_good_slaves:0", "redis.replicas.missing"),
    ] {
        assert_eq!(codes(line), [code], "{line}");
    }
    assert!(codes("role:slave\nmaster_link_status:up").is_empty());
    assert!(
        codes("used_memory:99\nmaxmemory:100\nmaxmemory_policy:allkeys-lru").is_empty(),
        "a full cache is as it should be"
    );
    assert_eq!(codes("used_memory:101\nmaxmemory:100\nmaxmemory_policy:noeviction")[0], "redis.memory.full");
    let buffers = "used_memory:101\nmaxmemory:100\nmem_not_counted_for_evict:40\nmaxmemory_policy:noeviction";
    assert_eq!(codes(buffers), ["redis.memory.near_max"], "buffers do not count");
    assert_eq!(
        codes("used_memory:96\nmaxmemory:0\ntotal_system_memory:100"),
        ["redis.maxmemory.unset", "redis.memory.near_max"]
    );
}

#[test]
fn refused_connections_and_slow_fsyncs_are_told_while_they_happen() {
    let case = |count| Case::new(&format!("rejected_connections:{count}\naof_enabled:1\naof_delayed_fsync:{count}"));
    let first = case(5).observe();
    let expected = [
        ("redis.clients.rejected", Axis::Ready, Severity::Warning),
        ("redis.aof.lagging", Axis::Risk, Severity::Warning),
    ];
    assert_eq!(
        case(6).after(&first, 15).findings(),
        expected.map(|(code, axis, severity)| (code.to_owned(), axis, severity))
    );
    assert_eq!(case(5).after(&first, 15).findings(), []);
    assert_eq!(case(5).findings(), [], "a count alone says nothing of now");
}

#[test]
fn a_failed_save_is_unready_only_where_it_stops_writes() {
    let failed = || Case::new("role:master\nrdb_last_bgsave_status:err");
    let found = |case: Case| {
        let seen = case.observe();
        let verdict = Thresholds::new().verdict(&rules(case.writes), &seen);
        (verdict.status, seen.value("bgsave_stops_writes_bool"))
    };
    let settings =
        |case: Case, stops: &str, save: &str| case.set(Question::StopWrites, stops).set(Question::SavePoints, save);
    let refusing = || Case { refuses_writes: true, ..failed() };
    assert_eq!(found(refusing()), (Status::Unhealthy, Some(1.0)), "the refusal of PING is enough");
    assert_eq!(found(Case { writes: Axis::Risk, ..refusing() }), (Status::Degraded, Some(1.0)), "reads only");
    assert_eq!(found(settings(failed(), "yes", "3600 1")), (Status::Unhealthy, Some(1.0)));
    assert_eq!(found(settings(failed(), "yes", "")), (Status::Degraded, Some(0.0)), "no save points");
    assert_eq!(found(settings(failed(), "no", "3600 1")), (Status::Degraded, Some(0.0)));
    let replica = Case::new("role:slave\nmaster_link_status:up\nrdb_last_bgsave_status:err");
    assert_eq!(found(settings(replica, "yes", "3600 1")), (Status::Degraded, Some(0.0)));
    let unread = failed().answered(Question::StopWrites, refused());
    let seen = unread.observe();
    assert_eq!(reason(&seen, "bgsave_stops_writes_bool"), "permission: ACL SETUSER <user> +config|get");
    assert!(seen.findings[0].message.contains("can't be read"), "{:?}", seen.findings);
    assert_eq!(found(unread).0, Status::Degraded);
}

#[test]
fn replicas_are_told_one_by_one_the_furthest_first_and_bounded() {
    let mut info = "role:master\nconnected_slaves:40\nmaster_repl_offset:1000\n".to_owned();
    for number in 0..40 {
        info.push_str(&format!("slave{number}:ip=10.0.0.{number},port=1,state=online,offset={},lag=1\n", 900 + number));
    }
    let seen = Case::new(&info).observe();
    let lags: Vec<_> = seen.measurements.iter().filter(|m| m.name == "replica_lag_bytes").collect();
    assert_eq!((lags.len(), lags[0].number(), lags[0].labels["replica"].as_str()), (16, Some(100.0), "10.0.0.0:1"));
    assert_eq!(seen.value("replicas_online_count"), Some(40.0));
}

#[test]
fn missing_replicas_are_counted_by_the_setting() {
    let case = |good| Case::new(&format!("role:master\nmin_slaves_good_slaves:{good}"));
    let missing = |case: Case| case.observe().value("replicas_missing_count");
    assert_eq!(missing(case(1).set(Question::MinReplicas, "3")), Some(2.0));
    assert_eq!(missing(case(3).set(Question::MinReplicas, "3")), Some(0.0));
    assert_eq!(missing(case(0).answered(Question::MinReplicas, refused())), Some(1.0), "any minimum wants one");
    assert_eq!(missing(case(1).answered(Question::MinReplicas, refused())), None);
    assert_eq!(missing(Case::new("role:master")), Some(0.0), "no minimum");
}

#[test]
fn many_databases_are_summed_up() {
    let info: String = (0..40).map(|number| format!("db{number}:keys={},expires=1\n", number + 1)).collect();
    let seen = Case::new(&info).observe();
    let keys: Vec<_> = seen.measurements.iter().filter(|m| m.name == "keys_count").collect();
    assert_eq!((keys.len(), keys[0].labels["db"].as_str(), keys[16].labels["db"].as_str()), (17, "24", "other"));
    assert_eq!(keys[16].number(), Some(300.0));
    assert_eq!(seen.value("databases_count"), Some(40.0));
}

#[test]
fn a_clusters_state_is_judged_and_unasked_ones_say_why() {
    let cluster = "role:master\ncluster_enabled:1\nredis_mode:cluster";
    let state = |state: &str| {
        let text = format!("cluster_state:{state}\r\ncluster_slots_assigned:16384\r\ncluster_slots_fail:2\r\n");
        Case::new(cluster).answered(Question::Cluster, Reply::Bulk(text.into_bytes()))
    };
    let codes = |case: Case| case.findings().into_iter().map(|(code, ..)| code).collect::<Vec<_>>();
    assert_eq!(codes(state("fail")), ["redis.cluster.down", "redis.cluster.slots_failed"]);
    assert_eq!(state("ok").observe().value("cluster_ok_bool"), Some(1.0));
    assert_eq!(reason(&Case::new(PLAIN).observe(), "cluster_ok_bool"), "not a cluster");
    assert_eq!(reason(&Case::new(cluster).observe(), "cluster_ok_bool"), "needs a previous observation");
    let denied = Case::new(cluster).answered(Question::Cluster, refused()).observe();
    assert_eq!(reason(&denied, "cluster_slots_ok_count"), "permission: ACL SETUSER <user> +cluster|info");
}
