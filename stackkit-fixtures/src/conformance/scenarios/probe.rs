//! What a probe promises.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use stackkit_core::health::{Measurement, MeasurementKind, MeasurementValue, Tier};
use stackkit_core::{Clock, ErrorKind, Observation, ProbeContext, Secret, Service};

use crate::conformance::context::{health, probe, released};
use crate::conformance::outcome::{Failure, Outcome, check, refused, same};
use crate::conformance::runner::Scenario;
use crate::conformance::target::{Capability, Fault, Instance, Seed, Target};
use crate::net::{BlackHole, RefusedPort, wait_until};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "probe_up", needs: &[Capability::Health], run: |target| Box::pin(up(target)) },
    Scenario { name: "probe_absent_is_fast", needs: &[Capability::Health], run: |target| Box::pin(absent(target)) },
    Scenario {
        name: "probe_refused_is_fast_and_names_the_address",
        needs: &[Capability::Health, Capability::Network],
        run: |target| Box::pin(refused_address(target)),
    },
    Scenario {
        name: "wrong_password_is_unauthenticated",
        needs: &[Capability::Health, Capability::Password],
        run: |target| Box::pin(wrong_password(target)),
    },
    Scenario {
        name: "black_hole_meets_its_deadline",
        needs: &[Capability::Health, Capability::Network],
        run: |target| Box::pin(black_hole(target)),
    },
    Scenario {
        name: "metrics_carry_units",
        needs: &[Capability::Health],
        run: |target| Box::pin(metrics_carry_units(target)),
    },
    Scenario { name: "reset_drops_what_is_warm", needs: &[Capability::Health], run: |target| Box::pin(reset(target)) },
];

/// What "fast" means for an answer that needs no waiting.
const FAST: Duration = Duration::from_secs(1);
/// The deadline of the probe into the black hole, and how far behind it a dropped future may come back.
const SHORT_DEADLINE: Duration = Duration::from_millis(300);
const SLACK: Duration = Duration::from_millis(700);
/// How long a connection may take to be seen as closed.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
/// The last words of a measurement's name.
const UNITS: [&str; 7] = ["bytes", "seconds", "ms", "ratio", "percent", "bool", "count"];

async fn up(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    instance.seed(Seed::Small).await?;
    let service = instance.service();
    check(service.faults().is_empty(), || format!("a sound configuration has faults: {:?}", service.faults()))?;
    let before = instance.content().await?;
    for tier in health(&service)?.tiers().iter().copied() {
        let observation = probe(&service, tier).await?;
        let seen = !observation.measurements.is_empty() || !observation.info.is_empty();
        check(seen || tier == Tier::Ping, || format!("{tier:?} observed nothing"))?;
        check(observation.findings.iter().all(|finding| finding.code.contains('.')), || {
            format!("a finding has no code: {:?}", observation.findings)
        })?;
    }
    same("the content after probing", &before, &instance.content().await?)
}

async fn absent(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let service = handle(instance.as_ref(), &Fault::Absent)?;
    let error = fails_fast(&service, &[ErrorKind::Unreachable, ErrorKind::NotFound]).await?;
    same("the service that the error names", &Some(service.id()), &error.service())
}

async fn refused_address(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let port = RefusedPort::bind()?;
    let service = handle(instance.as_ref(), &Fault::Address(port.address()))?;
    let error = fails_fast(&service, &[ErrorKind::Unreachable]).await?;
    let (host, port) = (port.address().ip().to_string(), port.address().port().to_string());
    let text = error.to_string();
    check(text.contains(&host) && text.contains(&port), || format!("{text:?} does not name {host} and {port}"))
}

async fn wrong_password(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let wrong = Secret::new("wrong-canary-password");
    let service = handle(instance.as_ref(), &Fault::WrongPassword(wrong.clone()))?;
    let error = fails_fast(&service, &[ErrorKind::Unauthenticated]).await?;
    check(!error.mends_by_waiting(), || "a wrong password does not mend by waiting".to_owned())?;
    let text = format!("{error} {error:?} {}", error.chain());
    check(!text.contains(wrong.expose()), || "the error tells the password".to_owned())
}

/// Contract: finishes by the deadline by itself or is dropped there, and dropping it drops the connection.
async fn black_hole(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let hole = BlackHole::open().await?;
    let service = handle(instance.as_ref(), &Fault::Address(hole.address()))?;
    // Contract: no method of a service does I/O.
    let _ = (format!("{service:?}"), service.endpoint(), service.faults());
    same("connections before the first probe", &0, &hole.accepted())?;
    for probes in 1..=2 {
        swallowed_probe(&service).await?;
        // A connection that was given up must not be used again, and must not stay open.
        let closed = async || (hole.open_connections() == 0).then_some(());
        wait_until("the connection is closed", CLOSE_DEADLINE, closed).await?;
        let accepted = hole.accepted();
        check(accepted >= probes, || format!("{probes} probes opened {accepted} connections"))?;
    }
    Ok(())
}

async fn swallowed_probe(service: &Arc<dyn Service>) -> Outcome {
    let clock = Clock::system();
    let start = clock.instant();
    let cx = ProbeContext::new(Tier::Vitals, start + SHORT_DEADLINE);
    let probe = tokio::time::timeout_at(cx.deadline() + SLACK / 2, health(service)?.probe(&cx));
    match probe.await {
        Ok(outcome) => drop(refused("a probe into a black hole", &[ErrorKind::Timeout], outcome)?),
        // Dropped: what the runner does too.
        Err(_elapsed) => {}
    }
    let took = clock.instant() - start;
    check(took <= SHORT_DEADLINE + SLACK, || format!("the probe took {took:?}, its deadline was {SHORT_DEADLINE:?}"))?;
    health(service)?.reset().await;
    Ok(())
}

async fn metrics_carry_units(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    instance.seed(Seed::Small).await?;
    let service = instance.service();
    let first = probe(&service, Tier::Inventory).await?;
    let cx = ProbeContext::new(Tier::Inventory, Clock::system().instant() + CLOSE_DEADLINE);
    let second = health(&service)?.probe(&cx.with_previous(Some(Arc::new(first.clone())))).await?;
    for observation in [&first, &second] {
        let mut seen = HashSet::new();
        for measurement in &observation.measurements {
            check_measurement(measurement)?;
            let id = (measurement.name.clone(), measurement.labels.clone().into_iter().collect::<Vec<_>>());
            check(seen.insert(id), || format!("{} is there twice", measurement.name))?;
        }
    }
    counters_only_rise(&first, &second)
}

fn check_measurement(measurement: &Measurement) -> Outcome {
    let name = &measurement.name;
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    check(plain && !name.is_empty(), || format!("{name:?} is not snake case"))?;
    let unit = name.rsplit('_').next().unwrap_or_default();
    check(UNITS.contains(&unit), || format!("{name:?} does not end in a unit: {UNITS:?}"))?;
    let MeasurementValue::Value(value) = measurement.value else { return Ok(()) };
    let whole = value.fract() == 0.0;
    let fits = match unit {
        "bytes" | "count" => whole && value >= 0.0,
        "bool" => value == 0.0 || value == 1.0,
        "percent" => (0.0..=100.0).contains(&value),
        "ratio" => value >= 0.0,
        // A duration may be negative: a clock that goes behind.
        _ => measurement.kind == MeasurementKind::Gauge || value >= 0.0,
    };
    check(value.is_finite() && fits, || format!("{name} = {value} is no value of its unit"))
}

fn counters_only_rise(first: &Observation, second: &Observation) -> Outcome {
    let counters = first.measurements.iter().filter(|measurement| measurement.kind == MeasurementKind::Counter);
    for before in counters {
        let same_one = |later: &&Measurement| later.name == before.name && later.labels == before.labels;
        let later = second.measurements.iter().find(same_one);
        let (MeasurementValue::Value(was), Some(MeasurementValue::Value(is))) =
            (&before.value, later.map(|m| &m.value))
        else {
            continue;
        };
        check(is >= was, || format!("the counter {} fell from {was} to {is}", before.name))?;
    }
    Ok(())
}

async fn reset(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let service = instance.service();
    probe(&service, Tier::Vitals).await?;
    health(&service)?.reset().await;
    released(instance.as_ref()).await?;
    probe(&service, Tier::Vitals).await.map(drop).map_err(Failure::from)
}

fn handle(instance: &dyn Instance, fault: &Fault) -> Outcome<Arc<dyn Service>> {
    instance.faulty(fault).ok_or_else(|| Failure::Broken(format!("the target makes no handle with {fault:?}")))
}

async fn fails_fast(service: &Arc<dyn Service>, kinds: &[ErrorKind]) -> Outcome<stackkit_core::Error> {
    let clock = Clock::system();
    let start = clock.instant();
    let error = refused("the probe", kinds, probe(service, Tier::Vitals).await)?;
    let took = clock.instant() - start;
    check(took < FAST, || format!("the failure took {took:?}"))?;
    Ok(error)
}
