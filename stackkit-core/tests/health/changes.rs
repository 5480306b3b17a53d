//! The stream of transitions.

use std::time::Duration;

use futures_util::StreamExt;
use stackkit_core::health::Status;
use stackkit_core::{Intervals, Monitor, ServiceExt, Stack};
use tokio::time::timeout;

use super::{Answer, DOWN, pass, plain, scripted, stack, status, until, within_an_hour};

#[tokio::test(start_paused = true)]
async fn changes_tell_every_transition() {
    let script = [Answer::Healthy, Answer::Healthy, DOWN, Answer::Healthy];
    let (service, _) = scripted("a", script);
    let at_once = Intervals::new().with_fall(1);
    let stack = Stack::builder("s").service(service.with_intervals(at_once)).build().unwrap();
    let monitor = Monitor::start(&stack);
    let mut changes = monitor.changes();
    for (from, to) in
        [(Status::Unknown, Status::Healthy), (Status::Healthy, Status::Unhealthy), (Status::Unhealthy, Status::Healthy)]
    {
        let change = timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap();
        assert_eq!((change.from, change.to), (from, to));
    }
    drop(monitor);
    assert!(changes.next().await.is_none(), "the stream ends with the monitor");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_one_transition_to_what_is() {
    let (service, log) = plain("a");
    let monitor = Monitor::start(&stack([service.with_intervals(Intervals::new().with_fall(1))]));
    until(&monitor, |report| report.ready).await;
    let mut changes = monitor.changes();
    log.say(DOWN);
    until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    log.say(Answer::Healthy);
    until(&monitor, |report| report.ready).await;
    log.say(Answer::Load(0.5));
    assert!(timeout(Duration::from_secs(60), changes.next()).await.is_err(), "what it knows is what is");
    log.say(DOWN);
    until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    let change = within_an_hour(changes.next()).await.unwrap();
    assert_eq!((change.from, change.to), (Status::Healthy, Status::Unhealthy));
}

#[tokio::test(start_paused = true)]
async fn one_that_changes_all_the_time_does_not_keep_others_from_being_told() {
    let (services, logs): (Vec<_>, Vec<_>) = ["a", "b", "c"].into_iter().map(plain).unzip();
    let at_once = Intervals::new().with_fall(1).with_poll(Duration::from_secs(1));
    let monitor = Monitor::start(&stack(services.into_iter().map(|service| service.with_intervals(at_once))));
    until(&monitor, |report| report.ready).await;
    let mut changes = monitor.changes();
    logs.iter().for_each(|log| log.say(DOWN));
    let mut told = Vec::new();
    for turn in [Answer::Healthy, DOWN, Answer::Healthy] {
        until(&monitor, |report| report.services.iter().skip(1).all(|service| service.status == Status::Unhealthy))
            .await;
        told.push(within_an_hour(changes.next()).await.unwrap().service.to_string());
        logs[0].say(turn);
        pass(Duration::from_secs(3)).await;
    }
    told.sort();
    assert_eq!(told, ["a", "b", "c"], "each had its turn");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_loses_no_transition() {
    let (service, _) = plain("a");
    let monitor = Monitor::start(&stack([service]));
    let mut changes = monitor.changes();
    for _ in 0..3 {
        assert!(timeout(Duration::ZERO, changes.next()).await.is_err(), "no probe has ended yet");
    }
    let mut stream = Box::pin(changes.into_stream());
    assert_eq!(within_an_hour(stream.next()).await.unwrap().to, Status::Healthy);
    drop(monitor);
    assert!(stream.next().await.is_none());
}
