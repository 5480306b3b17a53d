//! Waiting for a schedule, with a clock that the tests turn.

use std::num::NonZeroU16;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use stackkit_backup::{MissedRuns, Schedule, ScheduledRun, Ticker};
use stackkit_core::Clock;

/// How far the turned clock goes at a time.
const TURN: Duration = Duration::from_secs(5);

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn hourly() -> Schedule {
    Schedule::cron("@hourly", TimeZone::UTC).unwrap()
}

/// Lets the wall clock follow the runtime's, forever.
async fn turn(clock: &Clock) {
    let mut tick = tokio::time::interval(TURN);
    tick.tick().await;
    loop {
        tick.tick().await;
        clock.advance(TURN);
    }
}

/// The next run of a ticker while the wall clock goes on.
async fn next(ticker: &mut Ticker, clock: &Clock) -> ScheduledRun {
    tokio::select! {
        run = ticker.next() => run.unwrap(),
        () = turn(clock) => panic!("the clock stopped"),
    }
}

fn paused<F: Future<Output = ()>>(work: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(work);
}

/// Runs on a paused clock of its own, inside the runtime of the case.
async fn on_a_paused_clock<F: Future<Output = ()> + Send + 'static>(work: impl FnOnce() -> F + Send + 'static) {
    tokio::task::spawn_blocking(move || paused(work())).await.unwrap();
}

pub(crate) async fn runs_come_at_their_times_and_once() {
    on_a_paused_clock(|| async {
        let clock = Clock::fixed(time("2026-11-21T06:15:30Z"));
        let mut ticker = hourly().ticker(clock.clone());
        for hour in [7, 8, 9] {
            let run = next(&mut ticker, &clock).await;
            assert_eq!((run.due, run.missed), (time(&format!("2026-11-21T{hour:02}:00:00Z")), 0));
            assert!(clock.now() >= run.due && clock.now().duration_since(run.due).as_secs() < 30, "{}", clock.now());
        }
    })
    .await;
}

pub(crate) async fn jitter_delays_the_start_and_not_the_time() {
    on_a_paused_clock(|| async {
        let schedule = hourly().with_jitter(Duration::from_secs(1800), 3);
        let clock = Clock::fixed(time("2026-11-21T06:15:30Z"));
        let mut ticker = schedule.ticker(clock.clone());
        for hour in [7, 8] {
            let run = next(&mut ticker, &clock).await;
            assert_eq!(run.due, time(&format!("2026-11-21T{hour:02}:00:00Z")));
            assert!(clock.now() >= schedule.start_of(run.due));
        }
        // A backup that began in between does not stand for a run that had not started yet.
        let due = time("2026-11-21T07:00:00Z");
        let start = schedule.start_of(due);
        assert!(start > due);
        for (last_run, next_due) in [(due, due), (start, time("2026-11-21T08:00:00Z"))] {
            let clock = Clock::fixed(last_run);
            let mut ticker = schedule.ticker(clock.clone()).with_last_run(last_run);
            assert_eq!(next(&mut ticker, &clock).await.due, next_due);
        }
    })
    .await;
}

/// What is given at once after a sleep of the machine, and what comes after that.
async fn after_sleep(missed: MissedRuns, sleep: Duration) -> (Vec<ScheduledRun>, Timestamp) {
    let clock = Clock::fixed(time("2026-11-21T06:15:30Z"));
    let mut ticker = hourly().with_missed(missed).ticker(clock.clone());
    clock.advance(sleep);
    let woken = clock.now();
    let mut given = Vec::new();
    loop {
        let run = next(&mut ticker, &clock).await;
        if run.due > woken {
            return (given, run.due);
        }
        given.push(run);
    }
}

fn dues(runs: &[ScheduledRun]) -> Vec<(String, u32)> {
    runs.iter().map(|run| (run.due.strftime("%H:%M").to_string(), run.missed)).collect()
}

pub(crate) async fn a_sleep_of_the_machine_is_dealt_with_as_it_was_said() {
    on_a_paused_clock(|| async {
        let (half_a_day, hour) = (Duration::from_secs(12 * 3600), |text| time(&format!("2026-11-21T{text}:00Z")));
        let (given, after) = after_sleep(MissedRuns::RunOnce, half_a_day).await;
        assert_eq!((dues(&given), after), (vec![("18:00".to_owned(), 11)], hour("19:00")));
        let (given, after) = after_sleep(MissedRuns::Skip, half_a_day).await;
        assert_eq!((dues(&given), after), (vec![], hour("19:00")));
        let max = NonZeroU16::new(3).unwrap();
        let (given, after) = after_sleep(MissedRuns::RunAll { max }, half_a_day).await;
        let newest = vec![("16:00".to_owned(), 9), ("17:00".to_owned(), 0), ("18:00".to_owned(), 0)];
        assert_eq!((dues(&given), after), (newest, hour("19:00")));
        // Seconds after a time: it was not missed, only the ones before it.
        let (given, _) = after_sleep(MissedRuns::Skip, Duration::from_secs(3 * 3600 - 920)).await;
        assert_eq!(dues(&given), [("09:00".to_owned(), 2)]);
        // A clock that began at the wrong end of time.
        let years = Duration::from_secs(50 * 365 * 86_400);
        let (given, _) = after_sleep(MissedRuns::RunAll { max }, years).await;
        assert_eq!(given.iter().map(|run| run.missed).collect::<Vec<_>>(), [1000 - 3, 0, 0]);
        assert_eq!(given[2].due.duration_since(given[0].due).as_secs(), 2 * 3600);
    })
    .await;
}

pub(crate) async fn a_run_that_takes_long_is_never_joined_by_another() {
    on_a_paused_clock(|| async {
        for (missed, expected) in [
            (MissedRuns::RunOnce, vec![("07:00".to_owned(), 0), ("09:00".to_owned(), 1), ("10:00".to_owned(), 0)]),
            (MissedRuns::Skip, vec![("07:00".to_owned(), 0), ("10:00".to_owned(), 0), ("11:00".to_owned(), 0)]),
        ] {
            let clock = Clock::fixed(time("2026-11-21T06:15:30Z"));
            let mut ticker = hourly().with_missed(missed).ticker(clock.clone());
            let mut runs = vec![next(&mut ticker, &clock).await];
            // The work takes until ten past nine.
            clock.advance(Duration::from_secs(2 * 3600 + 600));
            runs.push(next(&mut ticker, &clock).await);
            runs.push(next(&mut ticker, &clock).await);
            assert_eq!(dues(&runs), expected, "{missed:?}");
        }
    })
    .await;
}

pub(crate) async fn what_was_missed_while_the_process_was_down_is_known() {
    on_a_paused_clock(|| async {
        let now = time("2026-11-21T06:15:30Z");
        let clock = Clock::fixed(now);
        let mut ticker = hourly().ticker(clock.clone()).with_last_run(time("2026-11-20T23:00:07Z"));
        let run = next(&mut ticker, &clock).await;
        assert_eq!((run.due, run.missed), (time("2026-11-21T06:00:00Z"), 6));
        assert_eq!(clock.now(), now, "at once");
        // Nothing was missed since.
        let clock = Clock::fixed(now);
        let mut ticker = hourly().ticker(clock.clone()).with_last_run(time("2026-11-21T06:00:07Z"));
        assert_eq!(next(&mut ticker, &clock).await.due, time("2026-11-21T07:00:00Z"));
    })
    .await;
}

pub(crate) async fn a_clock_that_is_set_back_repeats_nothing_unless_it_was_wrong() {
    on_a_paused_clock(|| async {
        // Two hours back: the three o'clock run was, and is not made again.
        let clock = Clock::fixed(time("2026-11-21T01:30:00Z"));
        let mut ticker = hourly().ticker(clock.clone()).with_last_run(time("2026-11-21T03:00:05Z"));
        assert_eq!(next(&mut ticker, &clock).await.due, time("2026-11-21T04:00:00Z"));
        // Years back: the last run was made by a wrong clock.
        let clock = Clock::fixed(time("2026-11-21T01:30:00Z"));
        let mut ticker = hourly().ticker(clock.clone()).with_last_run(time("2031-01-01T00:00:00Z"));
        assert_eq!(next(&mut ticker, &clock).await.due, time("2026-11-21T02:00:00Z"));
    })
    .await;
}

pub(crate) async fn waiting_can_be_given_up_and_taken_up_again() {
    on_a_paused_clock(|| async {
        let clock = Clock::fixed(time("2026-11-21T06:59:58Z"));
        let mut ticker = hourly().with_missed(MissedRuns::Skip).ticker(clock.clone());
        for _ in 0..2 {
            let waited = tokio::time::timeout(Duration::from_millis(10), ticker.next()).await;
            assert!(waited.is_err(), "{waited:?}");
            clock.advance(Duration::from_secs(1));
        }
        clock.advance(Duration::from_secs(1));
        // The time came while nobody waited, a second ago.
        assert_eq!(next(&mut ticker, &clock).await.due, time("2026-11-21T07:00:00Z"));
    })
    .await;
}

pub(crate) async fn work_is_driven_one_run_after_the_other() {
    on_a_paused_clock(|| async {
        let clock = Clock::fixed(time("2026-11-21T06:15:30Z"));
        let every = Schedule::every(Duration::from_secs(60)).unwrap();
        let runs = std::sync::Mutex::new(Vec::new());
        let running = std::sync::atomic::AtomicUsize::new(0);
        let (runs, running) = (&runs, &running);
        let work = every.run(clock.clone(), |run| async move {
            use std::sync::atomic::Ordering::SeqCst;
            assert_eq!(running.fetch_add(1, SeqCst), 0, "two at once");
            tokio::time::sleep(Duration::from_secs(10)).await;
            runs.lock().unwrap().push(run.due);
            running.fetch_sub(1, SeqCst);
        });
        tokio::select! {
            () = work => panic!("a schedule has no end"),
            () = turn(&clock) => {}
            () = tokio::time::sleep(Duration::from_secs(10 * 60)) => {}
        }
        let runs = runs.lock().unwrap().clone();
        assert!(runs.len() >= 9, "{runs:?}");
        assert!(runs.windows(2).all(|pair| pair[1].duration_since(pair[0]).as_secs() == 60), "{runs:?}");
    })
    .await;
}
