//! What the probe measures, and what it needs for that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use stackkit_core::health::{Axis, Finding, MeasurementValue, Severity, Status, Thresholds, Tier};
use stackkit_core::{Clock, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Service};
use stackkit_fixtures::conformance::{Outcome, check, probe, refused, same, trial};
use stackkit_fixtures::{RedisFixture, RedisOptions, RedisReply, redis, redis_with, wait_until};
use stackkit_redis::{Redis, RedisConfig};

use crate::data::info;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("redis::each_measurement_is_in_the_catalogue", "redis", catalogue),
        trial("redis::the_vitals_are_one_round_trip", "redis", one_round_trip),
        trial("redis::a_missing_right_is_named_and_not_asked_for_again", "redis", missing_rights),
        trial("redis::the_documented_rights_measure_everything", "redis", documented_rights),
        trial("redis::keys_by_prefix_are_estimated_within_their_error", "redis", prefixes),
        trial("redis::keys_by_prefix_without_a_right_to_scan", "redis", prefixes_without_scan),
        trial("redis::posture_is_read_and_not_tried", "redis", posture),
        trial("redis::a_thousand_probes_hold_one_connection", "redis", one_connection),
        trial("redis::a_reset_of_the_counters_is_no_spike", "redis", reset_counters),
        trial("redis::the_append_only_file_is_measured", "redis", append_only),
        trial("redis::a_replica_and_its_master_are_measured", "redis", replication),
        trial("redis::a_cluster_without_its_slots_is_down", "redis", cluster),
    ]
}

/// Loading a replica's data takes a while on a busy machine.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

fn service(config: RedisConfig) -> Arc<dyn Service> {
    Arc::new(Redis::new(config))
}

pub(crate) fn checks(service: &Arc<dyn Service>) -> &dyn HealthCheck {
    service.health_check().expect("a redis has a health check")
}

/// A probe that knows the one before it, made just now.
async fn after(service: &Arc<dyn Service>, tier: Tier, before: &Observation) -> Result<Observation> {
    let now = Clock::system().instant();
    let cx = ProbeContext::new(tier, now + Duration::from_secs(10));
    checks(service).probe(&cx.with_previous(Some(Arc::new(before.clone()))).with_previous_at(Some(now))).await
}

/// All findings, the rules' among them.
pub(crate) fn findings(service: &Arc<dyn Service>, seen: &Observation) -> Vec<Finding> {
    let found = Thresholds::new().verdict(&checks(service).rules(), seen).findings;
    seen.findings.iter().cloned().chain(found).collect()
}

pub(crate) fn found(service: &Arc<dyn Service>, seen: &Observation, code: &str) -> Outcome<(Axis, Severity)> {
    let all = findings(service, seen);
    let one = all.iter().find(|finding| finding.code == code);
    check(one.is_some(), || format!("no {code} in {all:?}"))?;
    Ok(one.map(|finding| (finding.axis, finding.severity)).expect("was just checked"))
}

pub(crate) fn status(service: &Arc<dyn Service>, seen: &Observation) -> Status {
    Thresholds::new().verdict(&checks(service).rules(), seen).status
}

/// The reasons of what is not permitted, by name.
fn denied(seen: &Observation) -> Vec<(String, String)> {
    let reasons = seen.measurements.iter().filter_map(|measurement| match &measurement.value {
        MeasurementValue::Unavailable(reason) => Some((measurement.name.to_string(), reason.clone())),
        MeasurementValue::Value(_) => None,
    });
    reasons.filter(|(_, reason)| reason.starts_with("permission: ")).collect()
}

async fn catalogue() -> Outcome {
    let redis = redis().await?;
    redis.command(&["SET", "user:1", "v"]).await?;
    let service: Arc<dyn Service> = Arc::new(redis.service()?);
    let listed = checks(&service).metrics();
    let mut measured = BTreeSet::new();
    for tier in checks(&service).tiers() {
        let seen = probe(&service, *tier).await?;
        for measurement in &seen.measurements {
            let entry = listed.iter().find(|metric| metric.name == measurement.name);
            check(entry.is_some_and(|entry| (entry.kind, entry.tier) == (measurement.kind, *tier)), || {
                format!("{measurement:?} of {tier} is listed as {entry:?}")
            })?;
            measured.insert(measurement.name.to_string());
        }
    }
    same("measured", &listed.iter().map(|metric| metric.name.to_owned()).collect(), &measured)
}

async fn one_round_trip() -> Outcome {
    let redis = redis().await?;
    let service: Arc<dyn Service> = Arc::new(redis.service()?);
    probe(&service, Tier::Vitals).await?;
    let reads = async || info(&redis, "total_reads_processed").await.map(|reads| reads.parse::<u64>().unwrap_or(0));
    // What looking itself costs: a question and a close.
    let (first, second) = (reads().await?, reads().await?);
    let seen = probe(&service, Tier::Vitals).await?;
    same("reads of the server for a probe", &1, &(reads().await? - second - (second - first)))?;
    check(seen.value("slowlog_length_count").is_some() && denied(&seen).is_empty(), || format!("{seen:?}"))
}

const PASSWORD: &str = "a-long/p@ssword";

async fn user(rules: &str) -> Result<(RedisFixture, Arc<dyn Service>)> {
    let redis = redis_with(RedisOptions::new().with_user("prober", PASSWORD, rules)).await?;
    let config = RedisConfig::unix(redis.socket()).with_username("prober").with_password(PASSWORD);
    Ok((redis, service(config)))
}

async fn missing_rights() -> Outcome {
    let (redis, service) = user("+ping +info").await?;
    redis.command(&["SET", "user:1", "v"]).await?;
    let first = probe(&service, Tier::Vitals).await?;
    let expected = [
        ("slowlog_length_count", "permission: ACL SETUSER <user> +slowlog|len"),
        ("latency_events_count", "permission: ACL SETUSER <user> +latency|latest"),
    ];
    for (name, reason) in expected {
        let denied = denied(&first);
        check(denied.contains(&(name.to_owned(), reason.to_owned())), || format!("{name}: {denied:?}"))?;
    }
    let errors = info(&redis, "total_error_replies").await?;
    for _ in 0..5 {
        let again = probe(&service, Tier::Vitals).await?;
        same("what is denied", &denied(&first), &denied(&again))?;
    }
    same("errors that the probes cause", &errors, &info(&redis, "total_error_replies").await?)?;
    let logged = redis.command(&["ACL", "LOG"]).await?;
    check(matches!(&logged, RedisReply::Array(entries) if !entries.is_empty()), || format!("not refused: {logged:?}"))?;
    let inventory = probe(&service, Tier::Inventory).await?;
    let denied: BTreeSet<String> = denied(&inventory).into_iter().map(|(name, _)| name).collect();
    for name in ["keys_by_prefix_count", "default_user_open_bool", "exposed_bool", "dangerous_commands_count"] {
        check(denied.contains(name), || format!("{name} is not among {denied:?}"))?;
    }
    same("findings", &Vec::new(), &inventory.findings)
}

async fn documented_rights() -> Outcome {
    let rules = "+ping +info +slowlog|len +latency|latest +config|get +cluster|info +scan +select \
                 +acl|whoami +acl|getuser +acl|dryrun";
    let (redis, service) = user(rules).await?;
    redis.pipeline(["SET user:1 v", "SELECT 3", "SET cart:1 v"].map(|line| line.split(' ').collect())).await?;
    for tier in [Tier::Vitals, Tier::Inventory] {
        same("denied", &Vec::new(), &denied(&probe(&service, tier).await?))?;
    }
    let seen = probe(&service, Tier::Inventory).await?;
    same("dangerous commands", &Some(0.0), &seen.value("dangerous_commands_count"))?;
    let databases: BTreeSet<&str> =
        seen.measurements.iter().filter(|m| m.name == "keys_sampled_count").map(|m| m.labels["db"].as_str()).collect();
    same("databases", &BTreeSet::from(["0", "3"]), &databases)?;
    // The older rights of a user, by its rules alone.
    let (_redis, service) = user("+@all -@dangerous +info +keys +acl|whoami +acl|getuser").await?;
    let seen = probe(&service, Tier::Inventory).await?;
    same("dangerous commands by the rules", &Some(1.0), &seen.value("dangerous_commands_count"))
}

/// What an inventory says of one prefix: keys and error.
fn prefix(seen: &Observation, prefix: &str) -> Option<(f64, f64)> {
    let of = |name: &str| {
        let one = |m: &&_| is_about(m, name, prefix);
        seen.measurements.iter().find(one).and_then(|measurement| measurement.number())
    };
    of("keys_by_prefix_count").zip(of("keys_by_prefix_error_count"))
}

fn is_about(measurement: &stackkit_core::health::Measurement, name: &str, prefix: &str) -> bool {
    measurement.name == name && measurement.labels.get("prefix").is_some_and(|label| label == prefix)
}

async fn prefixes() -> Outcome {
    const TRUTH: [(&str, u32); 4] = [("user:", 120_000), ("cart:", 60_000), ("session:", 19_500), ("rare:", 500)];
    // Ten milliseconds would be a command that others notice.
    let redis = redis_with(RedisOptions::new().with_setting("slowlog-log-slower-than", "10000")).await?;
    for (prefix, keys) in TRUTH {
        redis.command(&["DEBUG", "POPULATE", &keys.to_string(), prefix.trim_end_matches(':'), "8"]).await?;
    }
    redis.command(&["SLOWLOG", "RESET"]).await?;
    let sampled: Arc<dyn Service> = Arc::new(redis.service()?);
    let seen = probe(&sampled, Tier::Inventory).await?;
    same("exact", &Some(0.0), &seen.value("keys_by_prefix_exact_bool"))?;
    let keys = seen.value("keys_sampled_count").unwrap_or(0.0);
    check((50_000.0..52_000.0).contains(&keys), || format!("{keys} keys were sampled"))?;
    for (name, truth) in TRUTH {
        let Some((estimate, error)) = prefix(&seen, name) else { return check(false, || format!("no {name}")) };
        // The error is 95 % confidence, 1.96 standard errors; three times that fails once in a hundred million runs.
        check(error > 0.0 && (estimate - f64::from(truth)).abs() <= 3.0 * error, || {
            format!("{name}: {estimate} ± {error}, truly {truth}")
        })?;
        check(error < 1200.0, || format!("{name}: an error of {error} says nothing"))?;
    }
    let whole = service(RedisConfig::unix(redis.socket()).with_sample_keys(1_000_000));
    let seen = probe(&whole, Tier::Inventory).await?;
    same("exact", &Some(1.0), &seen.value("keys_by_prefix_exact_bool"))?;
    for (name, truth) in TRUTH {
        same(name, &Some((f64::from(truth), 0.0)), &prefix(&seen, name))?;
    }
    let off = service(RedisConfig::unix(redis.socket()).with_sample_keys(0));
    same("off", &None, &probe(&off, Tier::Inventory).await?.value("keys_by_prefix_count"))?;
    same("slow commands", &"0".to_owned(), &redis.command(&["SLOWLOG", "LEN"]).await?.text())
}

async fn prefixes_without_scan() -> Outcome {
    let (redis, service) = user("+ping +info +scan").await?;
    redis
        .pipeline(["SET user:1 v", "SET user:2 v", "SELECT 3", "SET cart:1 v"].map(|line| line.split(' ').collect()))
        .await?;
    let seen = probe(&service, Tier::Inventory).await?;
    same("database 0", &Some((2.0, 0.0)), &prefix(&seen, "user:"))?;
    same("database 3", &None, &prefix(&seen, "cart:"))?;
    let denied = denied(&seen);
    let expected = ("keys_by_prefix_count".to_owned(), "permission: ACL SETUSER <user> +scan +select".to_owned());
    check(denied.contains(&expected), || format!("{denied:?}"))?;
    // The connection is back in its database.
    same("again", &Some((2.0, 0.0)), &prefix(&probe(&service, Tier::Inventory).await?, "user:"))
}

async fn posture() -> Outcome {
    let codes = |seen: &Observation| -> Vec<String> {
        seen.findings.iter().map(|finding| finding.code.to_string()).filter(|code| code.contains("posture")).collect()
    };
    let open = redis_with(RedisOptions::new().with_tcp().with_setting("enable-debug-command", "yes")).await?;
    let service: Arc<dyn Service> = Arc::new(open.service()?);
    let seen = probe(&service, Tier::Inventory).await?;
    let expected = ["no_password", "debug_command", "dangerous_commands"].map(|code| format!("redis.posture.{code}"));
    same("codes", &expected.to_vec(), &codes(&seen))?;
    let severity = |code: &str| found(&service, &seen, code).map(|found| found.1);
    same("on this machine alone", &Severity::Info, &severity("redis.posture.no_password")?)?;
    same("dangerous commands", &Some(4.0), &seen.value("dangerous_commands_count"))?;

    // An address for documentation, which no machine has; the dash lets the server do without it.
    open.command(&["CONFIG", "SET", "bind", "127.0.0.1 -192.0.2.1"]).await?;
    let service: Arc<dyn Service> = Arc::new(open.service()?);
    let seen = probe(&service, Tier::Inventory).await?;
    same("protected mode refuses other machines", &Some(0.0), &seen.value("exposed_bool"))?;

    let exposed = redis_with(RedisOptions::new().with_tcp().with_setting("protected-mode", "no")).await?;
    exposed.command(&["CONFIG", "SET", "bind", "127.0.0.1 -192.0.2.1"]).await?;
    let service: Arc<dyn Service> = Arc::new(exposed.service()?);
    let seen = probe(&service, Tier::Inventory).await?;
    let expected =
        ["no_password", "protected_mode_off", "dangerous_commands"].map(|code| format!("redis.posture.{code}"));
    same("codes where others can connect", &expected.to_vec(), &codes(&seen))?;
    same("severity", &(Axis::Risk, Severity::Critical), &found(&service, &seen, "redis.posture.no_password")?)?;
    same("a risk is not unready", &Status::Degraded, &status(&service, &seen))?;

    let closed = redis_with(RedisOptions::new().with_password("redis")).await?;
    let service: Arc<dyn Service> = Arc::new(closed.service()?);
    let seen = probe(&service, Tier::Inventory).await?;
    let expected = ["password_default", "dangerous_commands"].map(|code| format!("redis.posture.{code}"));
    same("codes with a password", &expected.to_vec(), &codes(&seen))?;
    same("the default user", &Some(0.0), &seen.value("default_user_open_bool"))?;
    same("logins that failed", &"0".to_owned(), &info(&closed, "acl_access_denied_auth").await.map(or_zero)?)?;
    check(!format!("{seen:?}").contains("\"redis\","), || "the password is told".to_owned())
}

/// A field that versions before 7.2 do not have.
fn or_zero(text: String) -> String {
    if text.is_empty() { "0".to_owned() } else { text }
}

async fn one_connection() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_password(PASSWORD)).await?;
    let service: Arc<dyn Service> = Arc::new(redis.service()?);
    let wrong = self::service(RedisConfig::unix(redis.socket()).with_password("another-password"));
    let clients = async || -> Result<usize> { Ok(redis.command(&["CLIENT", "LIST"]).await?.text().lines().count()) };
    let tiers = [Tier::Ping, Tier::Vitals, Tier::Ping, Tier::Inventory];
    probe(&service, Tier::Ping).await?;
    let before: u64 = info(&redis, "total_connections_received").await?.parse().unwrap_or(0);
    for turn in 0..1000 {
        probe(&service, tiers[turn % tiers.len()]).await?;
        if turn % 100 == 0 {
            same("clients, one of them ours", &2, &clients().await?)?;
        }
    }
    let after: u64 = info(&redis, "total_connections_received").await?.parse().unwrap_or(0);
    same("connections, but for those of this test", &(before + 11), &after)?;
    for _ in 0..1000 {
        refused("a wrong password", &[ErrorKind::Unauthenticated], probe(&wrong, Tier::Ping).await)?;
    }
    // The server notices a closed connection at its next turn.
    wait_until("the failed ones are gone", SYNC_LIMIT, async || (clients().await.ok()? == 2).then_some(())).await?;
    probe(&service, Tier::Vitals).await.map(drop).map_err(Into::into)
}

async fn reset_counters() -> Outcome {
    let redis = redis().await?;
    let service: Arc<dyn Service> = Arc::new(redis.service()?);
    redis.pipeline(["SET k v", "GET k", "GET k", "GET k", "GET none"].map(|line| line.split(' ').collect())).await?;
    let first = probe(&service, Tier::Vitals).await?;
    redis.pipeline(["GET k", "GET none"].map(|line| line.split(' ').collect())).await?;
    let second = after(&service, Tier::Vitals, &first).await?;
    same("hit ratio between", &Some(0.5), &second.value("hit_ratio"))?;
    redis.command(&["CONFIG", "RESETSTAT"]).await?;
    let third = after(&service, Tier::Vitals, &second).await?;
    for name in ["hit_ratio", "error_replies_recent_count"] {
        let measured = third.measurements.iter().find(|measurement| measurement.name == name);
        check(third.value(name).is_none_or(|value| value == 0.0), || format!("{measured:?}"))?;
    }
    same("hits", &Some(0.0), &third.value("hits_count"))
}

async fn append_only() -> Outcome {
    let redis = redis_with(RedisOptions::new().with_setting("appendonly", "yes")).await?;
    redis.command(&["SET", "k", "v"]).await?;
    let seen = probe(&(Arc::new(redis.service()?) as Arc<dyn Service>), Tier::Vitals).await?;
    for name in ["aof_size_bytes", "aof_lag_fsyncs_count", "aof_lag_buffer_bytes", "aof_lag_delays_count"] {
        check(seen.value(name).is_some(), || format!("no {name} in {seen:?}"))?;
    }
    same("enabled", &Some(1.0), &seen.value("aof_enabled_bool"))
}

async fn replication() -> Outcome {
    let master = redis_with(RedisOptions::new().with_tcp().with_setting("repl-diskless-sync-delay", "0")).await?;
    let replica = redis_with(RedisOptions::new().with_tcp()).await?;
    let port = master.port().expect("it listens on TCP").to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await?;
    let services =
        [&master, &replica].map(|redis| redis.service().map(|service| Arc::new(service) as Arc<dyn Service>));
    let [of_master, of_replica] = services.map(|service| service.expect("the fixture's own URL"));
    let seen = wait_until("the replica is online", SYNC_LIMIT, async || {
        let seen = probe(&of_master, Tier::Vitals).await.ok()?;
        (seen.value("replicas_online_count") == Some(1.0) && seen.value("replica_lag_seconds").is_some())
            .then_some(seen)
    })
    .await?;
    let lag =
        seen.measurements.iter().find(|measurement| measurement.name == "replica_lag_bytes").expect("one replica");
    let name = format!("127.0.0.1:{}", replica.port().expect("it listens on TCP"));
    same("label", &Some(&name), &lag.labels.get("replica"))?;
    check(lag.number().is_some_and(|bytes| bytes < 10_000.0), || format!("{lag:?}"))?;

    let seen = wait_until("the link is up", SYNC_LIMIT, async || {
        let seen = probe(&of_replica, Tier::Vitals).await.ok()?;
        (seen.value("replication_link_down_seconds") == Some(0.0)).then_some(seen)
    })
    .await?;
    same("role", &Some("slave"), &seen.info.get("role").map(String::as_str))?;
    same("a read-only replica serves", &Status::Healthy, &status(&of_replica, &seen))?;
    let error = refused("a write", &[], replica.command(&["SET", "k", "v"]).await.map(drop))?;
    same("code", &Some("READONLY"), &error.code())?;

    master.command(&["CONFIG", "SET", "min-replicas-to-write", "3"]).await?;
    let seen = probe(&of_master, Tier::Vitals).await?;
    same("missing", &Some(2.0), &seen.value("replicas_missing_count"))?;
    same("finding", &(Axis::Ready, Severity::Critical), &found(&of_master, &seen, "redis.replicas.missing")?)?;
    let error = refused("a write", &[], master.command(&["SET", "k", "v"]).await.map(drop))?;
    same("code", &Some("NOREPLICAS"), &error.code())
}

async fn cluster() -> Outcome {
    let bus = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let options =
        RedisOptions::new().with_tcp().with_setting("cluster-enabled", "yes").with_setting("cluster-port", bus);
    let redis = redis_with(options).await?;
    let service: Arc<dyn Service> = Arc::new(redis.service()?);
    let first = probe(&service, Tier::Vitals).await?;
    same("before it is known to be one", &None, &first.value("cluster_ok_bool"))?;
    let down = after(&service, Tier::Vitals, &first).await?;
    same("finding", &(Axis::Ready, Severity::Critical), &found(&service, &down, "redis.cluster.down")?)?;
    redis.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await?;
    let up = wait_until("the cluster serves", SYNC_LIMIT, async || {
        let seen = after(&service, Tier::Vitals, &down).await.ok()?;
        (seen.value("cluster_ok_bool") == Some(1.0)).then_some(seen)
    })
    .await?;
    same("slots", &Some(16_384.0), &up.value("cluster_slots_assigned_count"))?;
    redis.command(&["SET", "user:1", "v"]).await?;
    let seen = probe(&service, Tier::Inventory).await?;
    same("keys", &Some(1.0), &seen.value("keys_sampled_count"))
}
