//! Which tier is probed when, and by whom.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use stackkit_core::health::{Axis, Finding, Rule, Severity, Status, Tier};
use stackkit_core::{Intervals, Monitor, Observation, ServiceExt, Stack};
use tokio::time::{Instant, interval, timeout};

use super::{Answer, DOWN, Log, pass, plain, scripted, stack, status, until};

#[tokio::test(start_paused = true)]
async fn callers_join_the_probe_that_runs() {
    let (healthy, log) = scripted("h", [Answer::Healthy]);
    let stack = Stack::builder("s").service(healthy).build().unwrap();
    let (first, second, third) = tokio::join!(stack.check_now(&[]), stack.check_now(&[]), stack.check_now(&[]));
    assert!(first.ready && second.ready && third.ready);
    let tiers = log.tiers.lock().unwrap();
    for tier in [Tier::Vitals, Tier::Inventory] {
        let count = tiers.iter().filter(|probed| **probed == tier).count();
        assert!(count <= 2, "at most the running one and one for all that waited: {tiers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_held_and_not_polled_holds_up_nobody() {
    let (service, log) = scripted("a", [Answer::Slow(Duration::from_millis(100))]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let _monitor = Monitor::start(&stack);
    for _ in 0..3 {
        log.probed(log.probes() + 1).await;
        let mut held = Box::pin(stack.check_now(&[]));
        assert!((&mut held).now_or_never().is_none(), "a probe takes its time");
        log.probed(log.probes() + 10).await;
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn inventory_measurements_stay_between_inventories() {
    let (service, log) = scripted("a", [Answer::Healthy]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let four_probes = async {
        let mut tick = interval(Duration::from_secs(1));
        while log.probes() < 4 {
            tick.tick().await;
        }
    };
    timeout(Duration::from_secs(60), four_probes).await.expect("the monitor stopped probing");
    assert_eq!(*log.tiers.lock().unwrap(), [Tier::Vitals, Tier::Inventory, Tier::Vitals, Tier::Vitals]);
    let report = monitor.report();
    assert_eq!(report.service("a").unwrap().observation.as_ref().unwrap().value("size_bytes"), Some(7.0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_inventory_does_not_make_a_service_unknown() {
    let (service, log) = scripted("a", [Answer::Healthy, Answer::Hangs]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    monitor.wait_ready(Duration::from_secs(1)).await.unwrap();
    let mut tick = interval(Duration::from_secs(1));
    while log.resets() == 0 {
        assert_eq!(status(&monitor.report(), "a"), Status::Healthy);
        tick.tick().await;
    }
    assert_eq!(log.tiers.lock().unwrap()[1], Tier::Inventory);
}

#[tokio::test(start_paused = true)]
async fn a_store_too_large_to_be_counted_still_serves() {
    let (service, log) = scripted("a", [Answer::Vast]);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let mut changes = monitor.changes();
    assert_eq!(changes.next().await.unwrap().to, Status::Healthy);
    let minutes = Duration::from_secs(5 * 60);
    assert!(timeout(minutes, changes.next()).await.is_err(), "a missing inventory made the service unready");
    assert_eq!(status(&monitor.report(), "a"), Status::Healthy);
    let inventories = log.tiers.lock().unwrap().iter().filter(|tier| **tier == Tier::Inventory).count();
    assert_eq!(inventories, 1, "the next inventory waits for its interval");
    let report = stack.check_now(&[]).await;
    let findings = &report.service("a").unwrap().observation.as_ref().unwrap().findings;
    assert_eq!(findings[0].message, "the inventory could not be taken: timeout");
    assert!(report.ready);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_reset_does_not_end_the_polling() {
    let (service, log) = scripted("a", [Answer::Panics, Answer::Healthy]);
    log.reset_panics.store(true, Ordering::SeqCst);
    let stack = Stack::builder("s").service(service).build().unwrap();
    let monitor = Monitor::start(&stack);
    let mut changes = monitor.changes();
    for to in [Status::Unhealthy, Status::Healthy] {
        let change = timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap();
        assert_eq!(change.to, to);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_monitor_leaves_no_task() {
    let (hanging, _) = scripted("hanging", [Answer::Hangs]);
    let (healthy, _) = scripted("healthy", [Answer::Healthy]);
    let stack = Stack::builder("s").service(hanging).service(healthy).build().unwrap();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let monitor = Monitor::start(&stack);
    let (snapshot, changes) = (monitor.snapshot(), monitor.changes());
    tokio::task::yield_now().await;
    assert!(alive() > before);
    drop(monitor);
    let gone = async {
        while alive() > before {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(1), gone).await.expect("a task is left");
    drop((snapshot, changes));
}

#[tokio::test(start_paused = true)]
async fn the_longest_duration_means_never() {
    let (service, _) = scripted("a", [DOWN, Answer::Healthy]);
    let mut intervals = Intervals::new().with_poll(Duration::MAX).with_timeout(Duration::MAX);
    intervals.inventory = Duration::MAX;
    let stack = Stack::builder("s").service(service.with_intervals(intervals)).build().unwrap();
    assert!(Monitor::start(&stack).wait_ready(Duration::MAX).await.unwrap().ready);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_cause_one_probe() {
    let (service, log) = plain("a");
    log.say(Answer::Slow(Duration::from_millis(100)));
    let stack = stack([service]);
    let reports = join_all((0..10_000).map(|_| stack.check_now(&[]))).await;
    assert!(reports.iter().all(|report| report.ready));
    assert_eq!(log.probes(), 1);
    stack.check_now(&[]).await;
    assert_eq!(log.probes(), 2, "a later one is not answered from memory");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_readers_cause_no_probe() {
    let (service, log) = plain("a");
    let monitor = Monitor::start(&stack([service]));
    until(&monitor, |report| report.ready).await;
    let snapshot = monitor.snapshot();
    let readers =
        (0..10_000).map(|_| snapshot.clone()).map(|snapshot| tokio::spawn(async move { snapshot.report().ready }));
    assert!(join_all(readers).await.into_iter().all(Result::unwrap));
    assert_eq!(log.probes(), 1);
}

/// How often each tier was probed in an hour.
async fn hour_of(tiers: &'static [Tier], intervals: Intervals) -> (Arc<Log>, Monitor) {
    let (service, log) = plain("a");
    let monitor = Monitor::start(&stack([service.on(tiers).with_intervals(intervals)]));
    pass(Duration::from_secs(3600)).await;
    (log, monitor)
}

#[tokio::test(start_paused = true)]
async fn each_tier_has_its_own_interval() {
    let minute = Duration::from_secs(60);
    let intervals = Intervals::new().with_interval(Tier::Process, minute);
    let (log, _monitor) = hour_of(&[Tier::Process, Tier::Ping, Tier::Vitals, Tier::Inventory], intervals).await;
    let of = |tier| log.probes_of(tier);
    assert!((57..=66).contains(&of(Tier::Process)), "every minute: {}", of(Tier::Process));
    assert!((230..=255).contains(&of(Tier::Vitals)), "every 15 s: {}", of(Tier::Vitals));
    assert!((6..=8).contains(&of(Tier::Inventory)), "every 10 min: {}", of(Tier::Inventory));
    // Vitals answer for the ping that they come instead of: about one in six.
    assert!((560..=650).contains(&of(Tier::Ping)), "every 5 s, but for vitals: {}", of(Tier::Ping));
}

#[tokio::test(start_paused = true)]
async fn no_tier_starves_beside_a_faster_one() {
    let intervals = Intervals::new().with_interval(Tier::Process, Duration::from_secs(30));
    let (log, _monitor) = hour_of(&[Tier::Process, Tier::Ping], intervals).await;
    assert!((114..=130).contains(&log.probes_of(Tier::Process)), "{}", log.probes_of(Tier::Process));
}

#[tokio::test(start_paused = true)]
async fn a_check_of_the_inventory_alone_is_decided_by_it() {
    let (service, log) = plain("a");
    let intervals = Intervals::new().with_interval(Tier::Inventory, Duration::from_secs(60)).with_fall(1);
    let monitor = Monitor::start(&stack([service.on(&[Tier::Inventory]).with_intervals(intervals)]));
    until(&monitor, |report| report.ready).await;
    log.say(DOWN);
    until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    assert_eq!(log.probes(), log.probes_of(Tier::Inventory));
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_looked_at_sooner_and_then_less_often() {
    let (service, log) = plain("a");
    let monitor = Monitor::start(&stack([service]));
    until(&monitor, |report| report.ready).await;
    log.say(DOWN);
    log.probed(2).await;
    let mut waits = Vec::new();
    for count in 3..9 {
        let since = Instant::now();
        log.probed(count).await;
        waits.push(since.elapsed().as_millis());
    }
    let grows = [1, 2, 3, 4, 5, 5].map(|factor| (factor * 900 - 20)..=(factor * 1100 + 20));
    assert!(grows.iter().zip(&waits).all(|(range, wait)| range.contains(wait)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn checks_that_start_together_do_not_stay_in_step() {
    let (services, logs): (Vec<_>, Vec<_>) = (0..200).map(|at| plain(&format!("s{at}"))).unzip();
    let _monitor = Monitor::start(&stack(services));
    pass(Duration::from_secs(7)).await;
    assert!(logs.iter().all(|log| log.probes() == 1), "all at the start, none again in the first half of the interval");
    let mut second = Vec::new();
    for _ in 0..9 {
        pass(Duration::from_secs(1)).await;
        second.push(logs.iter().filter(|log| log.probes() > 1).count());
    }
    assert!(second.iter().any(|count| (60..140).contains(count)), "about half of them by half of the time: {second:?}");
    assert_eq!(second.last(), Some(&200), "all within one interval");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_another_tier_ends_when_that_tier_sees_it_mended() {
    let (service, log) = scripted("a", []);
    let full = |is_full: bool| {
        Answer::Own(Arc::new(move |cx| {
            let seen = Observation::new();
            Ok(match cx.tier() {
                Tier::Inventory => seen.gauge("size_ratio", if is_full { 1.0 } else { 0.5 }),
                _ => seen,
            })
        }))
    };
    log.say(full(true));
    let rule = Rule::above("size_ratio", "a.full").critical(0.9).on(Axis::Ready).saying("full", "make room");
    let monitor = Monitor::start(&stack([service.ruled(rule).with_intervals(Intervals::new().with_fall(1))]));
    until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    log.say(full(false));
    until(&monitor, |report| status(report, "a") == Status::Healthy).await;
}

#[tokio::test(start_paused = true)]
async fn tiers_are_merged_and_the_later_of_two_wins() {
    let own = |cx: &stackkit_core::ProbeContext| {
        let finding = || Finding::new("a.seen", Axis::Risk, Severity::Info, "seen");
        Ok(match cx.tier() {
            Tier::Inventory => Observation::new().gauge("both_count", 2.0).gauge("size_bytes", 9.0).finding(finding()),
            _ => Observation::new().gauge("both_count", 1.0).gauge("load_ratio", 0.5).finding(finding()),
        })
    };
    let (service, _) = scripted("a", [Answer::Own(Arc::new(own))]);
    let report = stack([service]).check_now(&[]).await;
    let seen = report.service("a").unwrap().observation.clone().unwrap();
    let value = |name| seen.value(name).unwrap();
    assert_eq!((value("both_count"), value("size_bytes"), value("load_ratio")), (2.0, 9.0, 0.5));
    assert_eq!((seen.measurements.len(), seen.findings.len()), (3, 1));
    let tiers: Vec<Tier> = report.service("a").unwrap().tiers.iter().map(|tier| tier.tier).collect();
    assert_eq!(tiers, [Tier::Vitals, Tier::Inventory]);
}
