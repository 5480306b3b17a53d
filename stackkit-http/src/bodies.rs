//! The bodies of one report, each rendered at its first use and shared by all requests after it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderValue;
use bytes::Bytes;
use stackkit_core::Report;
use stackkit_core::health::{Metric, Snapshot};
use tokio::time::Instant;

use crate::events;
use crate::health::{self, Form};
use crate::metrics::{self, TextFormat};
use crate::options::Access;
use crate::status::{self, PageView};
use crate::text::Told;

/// What `/readyz?verbose` and its like call themselves in their last line.
pub(crate) const ENDPOINTS: [(&str, &str); 3] = [("live", "livez"), ("ready", "readyz"), ("startup", "startupz")];

/// How old the page may be that is sent: it shows ages in seconds, and a report stands for as long as nothing changes, or for ever
/// if its monitor is gone.
const PAGE_AGE_MAX: Duration = Duration::from_secs(1);

/// A body that a request may ask for again by its tag.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) etag: HeaderValue,
}

/// A body that can't be written has no bytes: a report is plain data with string keys, so that would be a bug.
type Slot = OnceLock<Option<Body>>;

/// What all routes of one router share.
pub(crate) struct Cache {
    snapshot: Snapshot,
    /// Tells this router's tags from those of a process before it, whose reports were counted from 0 too.
    instance: u64,
    renderings: AtomicU64,
    latest: RwLock<Arc<Bodies>>,
    catalogues: Box<[&'static [Metric]]>,
    /// Whether a token opens what the page hides.
    has_token: bool,
}

impl Cache {
    pub(crate) fn new(snapshot: Snapshot, has_token: bool) -> Self {
        let report = snapshot.report();
        let catalogues = report.services.iter().map(|service| snapshot.metrics(service.id.as_str())).collect();
        let latest = RwLock::new(Arc::new(Bodies::new(report, 0)));
        let instance = RandomState::new().build_hasher().finish();
        Self { snapshot, instance, renderings: AtomicU64::new(0), latest, catalogues, has_token }
    }

    pub(crate) fn report(&self) -> Arc<Report> {
        self.snapshot.report()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// The bodies of the latest report. A report is known by its address, not by its sequence alone: one that aged and the next
    /// one that was published have the same.
    pub(crate) fn bodies(&self) -> Arc<Bodies> {
        let report = self.snapshot.report();
        let latest = self.latest.read().unwrap_or_else(PoisonError::into_inner).clone();
        if Arc::ptr_eq(&latest.report, &report) {
            return latest;
        }
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&latest.report, &report) {
            *latest = Arc::new(Bodies::new(report, self.count()));
        }
        latest.clone()
    }

    fn count(&self) -> u64 {
        self.renderings.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn health(&self, bodies: &Bodies, form: Form, access: Access) -> Option<Body> {
        let slot = bodies.of(access).health.get(form.index())?;
        self.body(slot, bodies, (form.word(), access), || form.render(&bodies.report, access).ok())
    }

    /// One service's own body.
    pub(crate) fn service(&self, bodies: &Bodies, position: usize, access: Access) -> Option<Body> {
        let slot = bodies.of(access).services.get(position)?;
        let service = bodies.report.services.get(position)?;
        self.body(slot, bodies, ("service", access), || health::one(service, access).ok())
    }

    pub(crate) fn metrics(&self, bodies: &Bodies, format: TextFormat, access: Access) -> Option<Body> {
        let slot = bodies.of(access).metrics.get(usize::from(format == TextFormat::OpenMetrics))?;
        let render = || metrics::render(&bodies.report, &self.catalogues, format, access).into_bytes();
        self.body(slot, bodies, (format.word(), access), || Some(render()))
    }

    pub(crate) fn page(&self, bodies: &Bodies, access: Access) -> Option<Body> {
        let render = || {
            let bytes = self.view(bodies, access, status::page).into_bytes();
            self.tagged(bytes, self.count(), ("page", access))
        };
        bodies.of(access).page.get(self.snapshot.clock().instant(), render)
    }

    /// What the page shows, as an event for those that have it open.
    pub(crate) fn event(&self, bodies: &Bodies, access: Access) -> Bytes {
        let render = || events::message(&self.view(bodies, access, status::fragment));
        bodies.of(access).event.get(self.snapshot.clock().instant(), render)
    }

    fn view(&self, bodies: &Bodies, access: Access, write: fn(&PageView<'_>) -> String) -> String {
        write(&PageView {
            report: &bodies.report,
            now: self.snapshot.clock().now(),
            history: &|id| self.snapshot.history(id),
            details: access.is_operator(),
            has_token: self.has_token,
        })
    }

    /// The variant is in the tag: one path has several bodies at a time, by what the request accepts and may see.
    fn body<F>(&self, slot: &Slot, bodies: &Bodies, variant: (&str, Access), render: F) -> Option<Body>
    where
        F: FnOnce() -> Option<Vec<u8>>,
    {
        slot.get_or_init(|| self.tagged(render()?, bodies.rendering, variant)).clone()
    }

    fn tagged(&self, bytes: Vec<u8>, rendering: u64, (form, access): (&str, Access)) -> Option<Body> {
        let seen = if access.is_operator() { "all" } else { "brief" };
        let tag = format!("\"{:x}-{rendering}-{form}-{seen}\"", self.instance);
        Some(Body { bytes: bytes.into(), etag: HeaderValue::try_from(tag).ok()? })
    }
}

/// What is rendered of one report.
#[derive(Debug)]
pub(crate) struct Bodies {
    pub(crate) report: Arc<Report>,
    /// Counts the reports that were rendered.
    pub(crate) rendering: u64,
    public: Slots,
    operator: Slots,
}

#[derive(Debug)]
struct Slots {
    health: [Slot; Form::ALL.len()],
    metrics: [Slot; TextFormat::ALL.len()],
    page: Fresh<Option<Body>>,
    event: Fresh<Bytes>,
    /// By the service's position.
    services: Box<[Slot]>,
    /// The verbose texts, by the group's position.
    groups: Box<[OnceLock<Bytes>]>,
}

/// What shows ages: rendered anew, once for all who ask then, when it is older than [`PAGE_AGE_MAX`].
#[derive(Debug)]
struct Fresh<T>(Mutex<Option<(Instant, T)>>);

impl<T: Clone> Fresh<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn get(&self, now: Instant, render: impl FnOnce() -> T) -> T {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < PAGE_AGE_MAX) {
            Some((_, kept)) => kept.clone(),
            None => held.insert((now, render())).1.clone(),
        }
    }
}

impl Bodies {
    fn new(report: Arc<Report>, rendering: u64) -> Self {
        Self { public: Slots::new(&report), operator: Slots::new(&report), report, rendering }
    }

    fn of(&self, access: Access) -> &Slots {
        match access {
            Access::Public => &self.public,
            Access::Operator => &self.operator,
        }
    }

    /// The verbose text of a group without exclusions.
    pub(crate) fn verbose(&self, position: usize, access: Access) -> Option<Bytes> {
        let slot = self.of(access).groups.get(position)?;
        let group = self.report.groups.get(position)?;
        let told = Told { endpoint: endpoint(&group.name), group, excluded: &[], access };
        Some(slot.get_or_init(|| told.verbose(&self.report).into()).clone())
    }
}

impl Slots {
    fn new(report: &Report) -> Self {
        Self {
            health: Default::default(),
            metrics: Default::default(),
            page: Fresh::new(),
            event: Fresh::new(),
            services: report.services.iter().map(|_| Slot::new()).collect(),
            groups: report.groups.iter().map(|_| OnceLock::new()).collect(),
        }
    }
}

/// What a group's probe calls itself: `readyz` for `ready`, its own name for any other.
pub(crate) fn endpoint(group: &str) -> &str {
    ENDPOINTS.iter().find(|(name, _)| *name == group).map_or(group, |(_, endpoint)| endpoint)
}
