//! Rates come from the previous observation of the same tier.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stackkit_core::health::{Growth, Tier};
use stackkit_core::{Error, ErrorKind, Monitor, Observation, ProbeContext};

use super::{Answer, Log, scripted, stack};

/// What each probe saw of the counter `hits_count`.
type Seen = Arc<Mutex<Vec<(Tier, Growth)>>>;

/// Answers with the given counts in turn; `None` fails. Each tier has a counter of its own height.
async fn run(tiers: &'static [Tier], counts: &'static [Option<f64>]) -> Vec<(Tier, Growth)> {
    let (service, log): (_, Arc<Log>) = scripted("a", []);
    let seen = Seen::default();
    let (told, turn) = (seen.clone(), Mutex::new(0));
    log.say(Answer::Own(Arc::new(move |cx: &ProbeContext| {
        let mut turn = turn.lock().unwrap();
        let count = counts[(*turn).min(counts.len() - 1)]
            .ok_or_else(|| Error::new(ErrorKind::Timeout, "as scripted"))
            .inspect_err(|_| *turn += 1)?;
        *turn += 1;
        let count = if cx.tier() == Tier::Inventory { count + 1e6 } else { count };
        told.lock().unwrap().push((cx.tier(), cx.growth("hits_count", count)));
        Ok(Observation::new().counter("hits_count", count))
    })));
    let _monitor = Monitor::start(&stack([service.on(tiers)]));
    log.probed(counts.len()).await;
    seen.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_counter_grows_since_the_last_probe_and_a_reset_is_no_spike() {
    let seen = run(&[Tier::Vitals], &[Some(10.0), Some(25.0), Some(3.0), Some(5.0)]).await;
    let growth: Vec<Growth> = seen.into_iter().map(|(_, growth)| growth).collect();
    assert_eq!(growth[0], Growth::First);
    assert!(
        matches!(growth[1], Growth::Since { amount: 15.0, elapsed } if (7.0..16.6).contains(&elapsed.as_secs_f64()))
    );
    assert_eq!(growth[2], Growth::Reset);
    assert!(
        matches!(growth[3], Growth::Since { amount: 2.0, elapsed } if (13.4..16.6).contains(&elapsed.as_secs_f64()))
    );
}

#[tokio::test(start_paused = true)]
async fn failed_probes_in_between_lengthen_the_time_and_lose_nothing() {
    let seen = run(&[Tier::Vitals], &[Some(10.0), None, None, Some(40.0)]).await;
    let Growth::Since { amount, elapsed } = seen[1].1 else { panic!("{seen:?}") };
    assert_eq!(amount, 30.0);
    assert!(elapsed > Duration::from_secs(9), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn each_tier_has_its_own_past() {
    let seen = run(&[Tier::Vitals, Tier::Inventory], &[Some(1.0), Some(2.0), Some(3.0)]).await;
    let tiers: Vec<Tier> = seen.iter().map(|(tier, _)| *tier).collect();
    assert_eq!(tiers, [Tier::Vitals, Tier::Inventory, Tier::Vitals]);
    assert_eq!((seen[0].1, seen[1].1), (Growth::First, Growth::First));
    assert_eq!(seen[2].1.amount(), Some(2.0), "since the vitals, not since the inventory");
}
