//! Where the poll loops put their results, and from where reports are published.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::clock::Clock;
use crate::health::fold::{Moment, Shape};
use crate::health::{Prober, Report, ServiceReport, Snapshot};
use crate::stack::Stack;

/// How long after a publication the next one waits, for each service: making a report costs about 100 ns a service, so
/// that publishing takes 1 % of a core at most.
const PUBLISH_PAUSE_PER_SERVICE: Duration = Duration::from_micros(10);
/// How long a result that changes no verdict waits for others to be published with, for each service: so a large stack at
/// rest spends a tenth of that.
const PUBLISH_REST_PER_SERVICE: Duration = Duration::from_micros(100);
/// A pause below this is not worth a timer.
const PUBLISH_PAUSE_MIN: Duration = Duration::from_millis(1);

/// The results of a stack's probes.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) clock: Clock,
    pub(crate) probers: Arc<[Arc<Prober>]>,
    pub(crate) shape: Arc<Shape>,
    posts: Mutex<Posts>,
    /// Something that changes a verdict was put up.
    changed: Notify,
    /// Something else was.
    refreshed: Notify,
    publish: watch::Sender<Arc<Report>>,
}

#[derive(Debug)]
struct Posts {
    services: Vec<Arc<ServiceReport>>,
    draining: bool,
    /// Which services are worked on, by position, and until when.
    maintenance: BTreeMap<usize, (Instant, Timestamp)>,
}

impl Posts {
    fn put(&mut self, position: usize, mut service: Arc<ServiceReport>) {
        if let Some((_, until)) = self.maintenance.get(&position) {
            Arc::make_mut(&mut service).maintenance_until = Some(*until);
        }
        if let Some(slot) = self.services.get_mut(position) {
            *slot = service;
        }
    }

    /// Sets or ends the maintenance of one service.
    fn maintain(&mut self, position: usize, until: Option<(Instant, Timestamp)>) {
        match until {
            Some(until) => self.maintenance.insert(position, until),
            None => self.maintenance.remove(&position),
        };
        if let Some(service) = self.services.get_mut(position) {
            Arc::make_mut(service).maintenance_until = until.map(|(_, until)| until);
        }
    }

    fn end_maintenance(&mut self, now: Instant) {
        let ended = self.maintenance.iter().filter(|(_, (end, _))| *end <= now);
        for position in ended.map(|(position, _)| *position).collect::<Vec<_>>() {
            self.maintain(position, None);
        }
    }
}

impl Board {
    /// An empty board, and the handle that reads what is published on it.
    pub(crate) fn new(stack: &Stack) -> (Self, Snapshot) {
        let probers: Arc<[Arc<Prober>]> = stack.probers().cloned().collect();
        probers.iter().for_each(|prober| prober.forget());
        let clock = stack.clock().clone();
        let shape = Arc::new(Shape::new(stack.name(), probers.iter().map(|prober| prober.entry())));
        let services: Vec<_> = probers.iter().map(|prober| Arc::new(prober.report())).collect();
        let moment = Moment { now: clock.now(), instant: clock.instant(), draining: false, sequence: 0 };
        let (publish, reports) = watch::channel(Arc::new(shape.fold(services.clone(), moment, None)));
        let snapshot = Snapshot {
            clock: clock.clone(),
            shape: shape.clone(),
            probers: probers.clone(),
            reports,
            aged: Arc::default(),
        };
        let posts = Mutex::new(Posts { services, draining: false, maintenance: BTreeMap::new() });
        let (changed, refreshed) = (Notify::new(), Notify::new());
        (Self { clock, probers, shape, posts, changed, refreshed, publish }, snapshot)
    }

    fn posts(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts up what is known of one service; it is published soon.
    pub(crate) fn put(&self, position: usize, service: ServiceReport) {
        let service = Arc::new(service);
        let mut posts = self.posts();
        let is_news = posts.services.get(position).is_some_and(|before| is_news(before, &service));
        posts.put(position, service);
        drop(posts);
        if is_news { self.changed.notify_one() } else { self.refreshed.notify_one() }
    }

    pub(crate) fn begin_drain(&self) {
        self.posts().draining = true;
        self.publish_now();
    }

    /// Begins the maintenance of a service, or ends it; false if there is no such service.
    pub(crate) fn set_maintenance(&self, id: &str, lasting: Option<Duration>) -> bool {
        let Some(position) = self.shape.positions.get(id).copied() else { return false };
        let until = lasting.map(|lasting| {
            let until = self.clock.now().checked_add(lasting).unwrap_or(Timestamp::MAX);
            (self.clock.deadline(lasting), until)
        });
        self.posts().maintain(position, until);
        self.publish_now();
        // The publisher counts the time until its end.
        self.changed.notify_one();
        true
    }

    /// Publishes whenever something changed: a result, a report that grows too old, the end of a maintenance.
    pub(crate) async fn publish_changes(&self) {
        let services = u32::try_from(self.probers.len()).unwrap_or(u32::MAX);
        let refresh = async || {
            self.refreshed.notified().await;
            pause(PUBLISH_REST_PER_SERVICE * services).await;
        };
        loop {
            let next = self.publish_now();
            tokio::select! {
                () = self.changed.notified() => {}
                () = refresh() => {}
                () = until(next) => {}
            }
            pause(PUBLISH_PAUSE_PER_SERVICE * services).await;
        }
    }

    /// Publishes what is known, and tells when it changes by itself.
    fn publish_now(&self) -> Option<Instant> {
        let mut posts = self.posts();
        let instant = self.clock.instant();
        posts.end_maintenance(instant);
        let before = self.publish.borrow().clone();
        let sequence = before.sequence + 1;
        let moment = Moment { now: self.clock.now(), instant, draining: posts.draining, sequence };
        let report = self.shape.fold(posts.services.clone(), moment, Some(&before));
        let ends = posts.maintenance.values().map(|(end, _)| *end);
        let next = ends.chain(report.stale_at).min();
        // Sent under the lock: otherwise an older report could overtake a newer one.
        self.publish.send_replace(Arc::new(report));
        next
    }
}

/// Whether a result changes a verdict, so that it is published without waiting for others.
fn is_news(before: &ServiceReport, now: &ServiceReport) -> bool {
    let verdict = |report: &ServiceReport| {
        (
            report.status,
            report.axes,
            report.last,
            report.flapping,
            report.stuck_since.is_some(),
            report.checked_at.is_some(),
        )
    };
    let codes = |report: &ServiceReport| report.failure.as_ref().map(|failure| (failure.kind, failure.code.clone()));
    verdict(before) != verdict(now) || codes(before) != codes(now)
}

async fn pause(pause: Duration) {
    if pause >= PUBLISH_PAUSE_MIN {
        sleep(pause).await;
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
