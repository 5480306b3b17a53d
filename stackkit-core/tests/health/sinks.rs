//! Where transitions go, and that nothing there delays or ends anything.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stackkit_core::health::{
    ChannelSink, CommandSink, Event, HealthCheck as _, LogSink, MonitorOptions, Sink, Status, Tier,
};
use stackkit_core::{Intervals, Monitor, Result, ServiceExt, async_trait};
use tokio::time::{Instant, interval, timeout};
use tracing::field::{Field, Visit};

use super::{Answer, DOWN, Log, Scripted, pass, plain, stack, status, until, within_an_hour};

/// What a sink does with its first events.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Hangs,
    Panics,
}

/// Which service turned from what to what.
type Told = Arc<Mutex<Vec<(String, Status, Status)>>>;

#[derive(Debug)]
struct Recording {
    faults: Mutex<Vec<Fault>>,
    told: Told,
}

fn recording(faults: &[Fault]) -> (Recording, Told) {
    let told = Told::default();
    (Recording { faults: Mutex::new(faults.to_vec()), told: told.clone() }, told)
}

#[async_trait]
impl Sink for Recording {
    fn name(&self) -> &'static str {
        "recording"
    }
    fn timeout(&self) -> Duration {
        Duration::from_secs(5)
    }
    async fn publish(&self, event: &Event) -> Result<()> {
        let fault = self.faults.lock().unwrap().pop().unwrap_or(Fault::None);
        match fault {
            Fault::Hangs => std::future::pending().await,
            Fault::Panics => panic!("as scripted"),
            Fault::None => {}
        }
        let change = &event.transition;
        self.told.lock().unwrap().push((change.service.to_string(), change.from, change.to));
        Ok(())
    }
}

fn quick(id: &str) -> (stackkit_core::StackEntry, Arc<Log>) {
    let (service, log): (Scripted, _) = plain(id);
    assert_eq!(service.tiers(), [Tier::Vitals]);
    (service.with_intervals(Intervals::new().with_fall(1).with_poll(Duration::from_secs(1))), log)
}

#[tokio::test(start_paused = true)]
async fn hanging_and_panicking_sinks_delay_nothing_and_go_on() {
    let (service, log) = quick("a");
    let (hanging, told_late) = recording(&[Fault::Hangs]);
    let (panicking, told_after) = recording(&[Fault::Panics]);
    let (good, told) = recording(&[]);
    let options = MonitorOptions::new().with_sink(hanging).with_sink(panicking).with_sink(good);
    let monitor = Monitor::start_with(&stack([service]), options);
    let since = Instant::now();
    until(&monitor, |report| report.ready).await;
    log.say(DOWN);
    until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    assert!(since.elapsed() < Duration::from_secs(3), "a sink delayed the probes");
    pass(Duration::from_secs(10)).await;
    let (up, down) = ((Status::Unknown, Status::Healthy), (Status::Healthy, Status::Unhealthy));
    let all = |told: &Told| -> Vec<(Status, Status)> {
        told.lock().unwrap().iter().map(|(_, from, to)| (*from, *to)).collect()
    };
    assert_eq!(all(&told), [up, down]);
    assert_eq!(all(&told_late), [down], "the first was given up after its time");
    assert_eq!(all(&told_after), [down], "the first was lost in the panic");
}

#[tokio::test(start_paused = true)]
async fn a_full_channel_keeps_the_newest_of_each_service() {
    let (a, a_log) = quick("a");
    let (b, b_log) = quick("b");
    let (sink, mut events) = ChannelSink::new(1);
    let monitor = Monitor::start_with(&stack([a, b]), MonitorOptions::new().with_sink(sink));
    until(&monitor, |report| report.ready).await;
    for _ in 0..2 {
        for (answer, to) in [(DOWN, Status::Unhealthy), (Answer::Healthy, Status::Healthy)] {
            [&a_log, &b_log].iter().for_each(|log| log.say(answer.clone()));
            until(&monitor, |report| report.services.iter().all(|service| service.status == to)).await;
        }
    }
    a_log.say(DOWN);
    until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    let mut told = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_secs(60), events.recv()).await {
        told.push((event.transition.service.to_string(), event.transition.to));
    }
    let [a, b] =
        ["a", "b"].map(|id| told.iter().filter(|(service, _)| service == id).map(|(_, to)| *to).collect::<Vec<_>>());
    assert_eq!(a.last(), Some(&Status::Unhealthy), "{told:?}");
    assert_eq!(b.last(), Some(&Status::Healthy), "{told:?}");
    assert!(told.len() <= 4, "one waits in the channel, one in the sink, and one a service comes after: {told:?}");
}

#[tokio::test]
async fn a_command_gets_the_facts_in_its_environment() {
    let (service, _) = quick("a");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let script = "env | grep ^STACKKIT_ | sort > \"$0.part\" && mv \"$0.part\" \"$0\"";
    let sink = CommandSink::new("/bin/sh", ["-c", script, out.to_str().unwrap()]);
    let _monitor = Monitor::start_with(&stack([service]), MonitorOptions::new().with_sink(sink));
    let written = async {
        let mut tick = interval(Duration::from_millis(5));
        while !out.exists() {
            tick.tick().await;
        }
        std::fs::read_to_string(&out).unwrap()
    };
    let text = timeout(Duration::from_secs(20), written).await.expect("the command did not run");
    for line in [
        "STACKKIT_FLAPPING=false",
        "STACKKIT_FROM=unknown",
        "STACKKIT_MESSAGE=s: a turned from unknown to healthy",
        "STACKKIT_SERVICE=a",
        "STACKKIT_STACK=s",
        "STACKKIT_TO=healthy",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in {text}");
    }
    assert!(text.contains("STACKKIT_AT=20"), "{text}");
}

#[tokio::test]
async fn a_command_that_fails_or_hangs_is_an_error_in_time() {
    let (service, log) = quick("a");
    let (sink, mut events) = ChannelSink::new(1);
    let _monitor = Monitor::start_with(&stack([service]), MonitorOptions::new().with_sink(sink));
    let event = timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap();
    assert!(log.probes() > 0);
    assert!(CommandSink::new("/bin/false", [""; 0]).publish(&event).await.is_err());
    assert!(CommandSink::new("/bin/true", [""; 0]).publish(&event).await.is_ok());
    let hanging = CommandSink::new("/bin/sleep", ["60"]).with_timeout(Duration::from_millis(50));
    let since = Instant::now();
    assert_eq!(hanging.publish(&event).await.unwrap_err().kind(), stackkit_core::ErrorKind::Timeout);
    assert!(since.elapsed() < Duration::from_secs(20));
}

/// Collects what is logged, one line a record.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _span: &tracing::span::Id) {}
    fn exit(&self, _span: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn the_log_tells_transitions_at_their_level_without_drivers_text() {
    let lines = Lines::default();
    let _subscriber = tracing::subscriber::set_default(lines.clone());
    let (service, log) = quick("a");
    let (echo, mut events) = ChannelSink::new(16);
    let options = MonitorOptions::new().with_sink(LogSink::new()).with_sink(echo);
    let monitor = Monitor::start_with(&stack([service]), options);
    within_an_hour(events.recv()).await.unwrap();
    log.say(DOWN);
    until(&monitor, |report| status(report, "a") == Status::Unhealthy).await;
    within_an_hour(events.recv()).await.unwrap();
    let lines = lines.0.lock().unwrap().clone();
    assert_eq!(
        lines[0],
        "INFO message=s: a turned from unknown to healthy stack=\"s\" service=\"a\" from=\"unknown\" to=\"healthy\""
    );
    assert!(lines[1].starts_with("ERROR message=s: a turned from healthy to unhealthy: a: as scripted"), "{lines:?}");
    assert!(!lines.concat().contains("driver text"));
}
