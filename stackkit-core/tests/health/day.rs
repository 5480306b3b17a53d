//! A day over many services.

use std::time::Duration;

use super::{Answer, DOWN, pass, plain, stack, until};
use stackkit_core::health::{HISTORY_MINUTES, Status};
use stackkit_core::{Intervals, Monitor, ServiceExt};

const SERVICES: usize = 500;
const INTERVAL: Duration = Duration::from_secs(900);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_day_over_500_services_keeps_its_pace_and_tells_each_transition_once() {
    let (services, logs): (Vec<_>, Vec<_>) = (0..SERVICES).map(|at| plain(&format!("s{at}"))).unzip();
    let intervals = Intervals::new().with_poll(INTERVAL).with_poll_failing(INTERVAL).with_fall(2);
    let monitor = Monitor::start(&stack(services.into_iter().map(|service| service.with_intervals(intervals))));
    until(&monitor, |report| report.ready).await;
    let changes = monitor.changes();
    let listening = tokio::spawn(async move {
        let mut changes = changes;
        let mut told = Vec::new();
        while let Some(change) = changes.next().await {
            told.push((change.service.to_string(), change.to));
        }
        told
    });
    pass(HOUR * 8).await;
    logs.iter().step_by(5).for_each(|log| log.say(DOWN));
    pass(HOUR * 2).await;
    assert_eq!(count(&monitor, Status::Unhealthy), SERVICES / 5);
    logs.iter().for_each(|log| log.say(Answer::Healthy));
    pass(HOUR * 14).await;
    assert_eq!(count(&monitor, Status::Healthy), SERVICES);

    for (at, log) in logs.iter().enumerate() {
        let probes = log.probes();
        assert!((94..=101).contains(&probes), "96 in a day: s{at} had {probes}");
    }
    let history = monitor.history("s5").unwrap();
    assert!(history.minutes.len() == HISTORY_MINUTES && history.changes.len() == 3);
    let ratio = history.availability.day_ratio.unwrap();
    assert!((0.90..0.95).contains(&ratio), "two of 24 hours were lost: {ratio}");
    assert_eq!(monitor.history("s4").unwrap().availability.day_ratio, Some(1.0));

    drop(monitor);
    let mut told = listening.await.unwrap();
    told.sort();
    let expected =
        (0..SERVICES).step_by(5).flat_map(|at| [Status::Healthy, Status::Unhealthy].map(|to| (format!("s{at}"), to)));
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    assert_eq!(told, expected);
}

fn count(monitor: &Monitor, status: Status) -> usize {
    monitor.report().services.iter().filter(|service| service.status == status).count()
}
