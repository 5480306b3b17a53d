//! The health engine on a paused clock, with services that answer as a script says.

mod changes;
mod day;
mod drain;
mod graph;
mod hysteresis;
mod rates;
mod sinks;
mod steps;
mod stuck;
mod tiers;
mod verdict;
mod wait;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use stackkit_core::health::{Metric, Rule, ServiceReport, Status, Tier};
use stackkit_core::{
    Endpoint, Error, ErrorKind, HealthCheck, Monitor, Observation, ProbeContext, Report, Result, Service, ServiceId,
    Stack, StackEntry, async_trait,
};
use tokio::time::timeout;

type Own = dyn Fn(&ProbeContext) -> Result<Observation> + Send + Sync;

#[derive(Clone)]
enum Answer {
    Healthy,
    Load(f64),
    Fails(ErrorKind),
    Hangs,
    Panics,
    /// Answers, but never counts.
    Vast,
    /// Takes this long.
    Slow(Duration),
    /// Blocks its thread until the sender is gone.
    Blocks(Arc<Mutex<mpsc::Receiver<()>>>),
    /// What the function makes of the context.
    Own(Arc<Own>),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

const DOWN: Answer = Answer::Fails(ErrorKind::Unreachable);

/// What a service answers and was asked.
#[derive(Debug, Default)]
struct Log {
    answers: Mutex<VecDeque<Answer>>,
    resets: AtomicUsize,
    reset_panics: AtomicBool,
    tiers: Mutex<Vec<Tier>>,
}

impl Log {
    /// From here on it answers so.
    fn say(&self, answer: Answer) {
        *self.answers.lock().unwrap() = [answer].into();
    }

    fn probes(&self) -> usize {
        self.tiers.lock().unwrap().len()
    }

    fn probes_of(&self, tier: Tier) -> usize {
        self.tiers.lock().unwrap().iter().filter(|probed| **probed == tier).count()
    }

    fn resets(&self) -> usize {
        self.resets.load(Ordering::SeqCst)
    }

    /// Waits until it was probed so often.
    async fn probed(&self, count: usize) {
        within_an_hour(async {
            while self.probes() < count {
                pass(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// Gives its answers in turn; the last one stays.
#[derive(Debug)]
struct Scripted {
    id: ServiceId,
    tiers: &'static [Tier],
    metrics: &'static [Metric],
    rules: Vec<Rule>,
    log: Arc<Log>,
}

fn scripted(id: &str, answers: impl IntoIterator<Item = Answer>) -> (Scripted, Arc<Log>) {
    let log = Arc::new(Log { answers: Mutex::new(answers.into_iter().collect()), ..Log::default() });
    let id = ServiceId::new(id).unwrap();
    (Scripted { id, tiers: &[Tier::Vitals, Tier::Inventory], metrics: &[], rules: Vec::new(), log: log.clone() }, log)
}

/// A service that is healthy until its log says otherwise, and asked for vitals only.
fn plain(id: &str) -> (Scripted, Arc<Log>) {
    let (service, log) = scripted(id, [Answer::Healthy]);
    (service.on(&[Tier::Vitals]), log)
}

impl Scripted {
    fn on(self, tiers: &'static [Tier]) -> Self {
        Self { tiers, ..self }
    }

    fn measuring(self, metrics: &'static [Metric]) -> Self {
        Self { metrics, ..self }
    }

    fn ruled(self, rule: Rule) -> Self {
        Self { rules: vec![rule], ..self }
    }
}

impl Service for Scripted {
    fn id(&self) -> &ServiceId {
        &self.id
    }
    fn kind(&self) -> &'static str {
        "scripted"
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::new("test", "localhost", 1)
    }
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Scripted {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        self.log.tiers.lock().unwrap().push(cx.tier());
        let answer = {
            let mut answers = self.log.answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
        };
        match answer.unwrap() {
            Answer::Healthy if cx.tier() == Tier::Inventory => Ok(Observation::new().gauge("size_bytes", 7.0)),
            Answer::Healthy => Ok(Observation::new()),
            Answer::Load(load) => Ok(Observation::new().gauge("load_ratio", load)),
            Answer::Fails(kind) => Err(Error::new(kind, "as scripted").with_source(Error::config("driver text"))),
            Answer::Vast if cx.tier() < Tier::Inventory => Ok(Observation::new()),
            Answer::Hangs | Answer::Vast => std::future::pending().await,
            Answer::Panics => panic!("as scripted"),
            Answer::Slow(duration) => {
                pass(duration).await;
                Ok(Observation::new())
            }
            Answer::Blocks(until) => {
                let _ = until.lock().unwrap().recv();
                Ok(Observation::new())
            }
            Answer::Own(own) => own(cx),
        }
    }

    fn tiers(&self) -> &'static [Tier] {
        self.tiers
    }

    fn metrics(&self) -> &'static [Metric] {
        self.metrics
    }

    fn rules(&self) -> Vec<Rule> {
        self.rules.clone()
    }

    async fn reset(&self) {
        self.log.resets.fetch_add(1, Ordering::SeqCst);
        assert!(!self.log.reset_panics.load(Ordering::SeqCst), "as scripted");
    }
}

fn stack<T: Into<StackEntry>>(services: impl IntoIterator<Item = T>) -> Stack {
    services.into_iter().fold(Stack::builder("s"), |stack, service| stack.service(service)).build().unwrap()
}

fn status(report: &Report, id: &str) -> Status {
    report.service(id).unwrap().status
}

fn entry<'a>(report: &'a Report, id: &str) -> &'a ServiceReport {
    report.service(id).unwrap()
}

fn codes(report: &Report, id: &str) -> Vec<String> {
    entry(report, id).findings().map(|finding| finding.code.to_string()).collect()
}

/// Lets time pass; on a paused clock none does.
async fn pass(time: Duration) {
    let _ = timeout(time, std::future::pending::<()>()).await;
}

async fn within_an_hour<T>(wait: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(3600), wait).await.expect("it did not come within an hour")
}

/// Waits for a published report of that kind.
async fn until(monitor: &Monitor, is_so: impl Fn(&Report) -> bool) -> Arc<Report> {
    let mut snapshot = monitor.snapshot();
    within_an_hour(async {
        loop {
            let report = snapshot.report();
            if is_so(&report) {
                return report;
            }
            assert!(snapshot.changed().await, "the monitor is gone");
        }
    })
    .await
}
