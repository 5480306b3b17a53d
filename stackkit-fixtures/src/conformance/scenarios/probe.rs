//! What a probe promises.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use stackkit_core::health::Tier;
use stackkit_core::{Clock, ErrorKind, ProbeContext, Secret, Service};

use crate::conformance::context::{PROBE_DEADLINE, deciding_tier, health, probe, probe_within, released};
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
        name: "a_dropped_probe_does_not_delay_the_next",
        needs: &[Capability::Health],
        run: |target| Box::pin(dropped(target)),
    },
    Scenario {
        name: "probes_hold_one_connection",
        needs: &[Capability::Health],
        run: |target| Box::pin(one_connection(target)),
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
/// How long what a probe opened beside its connection may take to be gone.
const PILE_DEADLINE: Duration = Duration::from_secs(5);
/// After how many polls a probe is dropped: each one leaves it at another await.
const POLLS_BEFORE_DROP: std::ops::RangeInclusive<u32> = 1..=4;
/// How often every tier is probed before connections are counted.
const ROUNDS: usize = 3;

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
    let cx = ProbeContext::new(deciding_tier(service)?, start + SHORT_DEADLINE);
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

/// Contract: dropping the future drops the connection, so what the server still works at is nobody's wait.
async fn dropped(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    instance.seed(Seed::Small).await?;
    let service = instance.service();
    let (deciding, clock) = (deciding_tier(&service)?, Clock::system());
    for tier in health(&service)?.tiers().iter().copied() {
        for polls in POLLS_BEFORE_DROP {
            let cx = ProbeContext::new(tier, clock.instant() + PROBE_DEADLINE);
            drop_after(polls, health(&service)?.probe(&cx)).await;
            let next = probe_within(&service, deciding, FAST).await.err();
            check(next.is_none(), || format!("after a dropped probe of the tier {tier} the next one fails: {next:?}"))?;
        }
    }
    Ok(())
}

/// Polls so many times at most.
async fn drop_after<T>(polls: u32, work: impl Future<Output = T>) {
    let (mut work, mut left) = (pin!(work), polls);
    poll_fn(|cx| {
        let polled = work.as_mut().poll(cx).map(drop);
        left = left.saturating_sub(1);
        if left == 0 { Poll::Ready(()) } else { polled }
    })
    .await;
}

/// Contract: one connection per target, however often and at whatever tier it is probed; what a probe opened beside it
/// is closed with it.
async fn one_connection(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let service = instance.service();
    for _ in 0..ROUNDS {
        for tier in health(&service)?.tiers().iter().copied() {
            probe(&service, tier).await?;
        }
    }
    let one_at_most = async || match instance.held().await {
        Ok(0 | 1) => Some(Ok(())),
        Ok(_) => None,
        Err(error) => Some(Err(Failure::from(error))),
    };
    let waited = wait_until("the store holds one connection at most", PILE_DEADLINE, one_at_most).await;
    waited.unwrap_or_else(|_late| {
        check(false, || "several connections are left of probes one after the other".to_owned())
    })
}

async fn reset(target: &dyn Target) -> Outcome {
    let instance = target.instance().await?;
    let service = instance.service();
    let tier = deciding_tier(&service)?;
    probe(&service, tier).await?;
    health(&service)?.reset().await;
    released(instance.as_ref()).await?;
    probe(&service, tier).await.map(drop).map_err(Failure::from)
}

fn handle(instance: &dyn Instance, fault: &Fault) -> Outcome<Arc<dyn Service>> {
    instance.faulty(fault).ok_or_else(|| Failure::Broken(format!("the target makes no handle with {fault:?}")))
}

async fn fails_fast(service: &Arc<dyn Service>, kinds: &[ErrorKind]) -> Outcome<stackkit_core::Error> {
    let clock = Clock::system();
    let start = clock.instant();
    let error = refused("the probe", kinds, probe(service, deciding_tier(service)?).await)?;
    let took = clock.instant() - start;
    check(took < FAST, || format!("the failure took {took:?}"))?;
    Ok(error)
}
