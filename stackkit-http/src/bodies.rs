//! The bodies of one report, each rendered at its first use and shared by all requests after it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use axum::http::HeaderValue;
use bytes::Bytes;
use stackkit_core::Report;
use stackkit_core::health::{Metric, Snapshot};

use crate::events;
use crate::health::{self, Form};
use crate::metrics::{self, TextFormat};
use crate::options::Access;
use crate::status::{self, PageView};
use crate::text::Told;

/// What `/readyz?verbose` and its like call themselves in their last line.
pub(crate) const ENDPOINTS: [(&str, &str); 3] = [("live", "livez"), ("ready", "readyz"), ("startup", "startupz")];

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
}

impl Cache {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let report = snapshot.report();
        let catalogues = report.services.iter().map(|service| snapshot.metrics(service.id.as_str())).collect();
        let latest = RwLock::new(Arc::new(Bodies::new(report, 0)));
        let instance = RandomState::new().build_hasher().finish();
        Self { snapshot, instance, renderings: AtomicU64::new(0), latest, catalogues }
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
            let rendering = self.renderings.fetch_add(1, Ordering::Relaxed) + 1;
            *latest = Arc::new(Bodies::new(report, rendering));
        }
        latest.clone()
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
        let render = || self.view(bodies, access, status::page).into_bytes();
        self.body(&bodies.of(access).page, bodies, ("page", access), || Some(render()))
    }

    /// What the page shows, as an event for those that have it open.
    pub(crate) fn event(&self, bodies: &Bodies, access: Access) -> Bytes {
        let render = || events::message(&self.view(bodies, access, status::fragment));
        bodies.of(access).event.get_or_init(render).clone()
    }

    fn view(&self, bodies: &Bodies, access: Access, write: fn(&PageView<'_>) -> String) -> String {
        write(&PageView {
            report: &bodies.report,
            now: bodies.report.generated_at,
            history: &|id| self.snapshot.history(id),
            details: access.is_operator(),
        })
    }

    /// The variant is in the tag: one path has several bodies at a time, by what the request accepts and may see.
    fn body<F>(&self, slot: &Slot, bodies: &Bodies, variant: (&str, Access), render: F) -> Option<Body>
    where
        F: FnOnce() -> Option<Vec<u8>>,
    {
        let render = || {
            let bytes = Bytes::from(render()?);
            let (form, access) = variant;
            let seen = if access.is_operator() { "all" } else { "brief" };
            let tag = format!("\"{:x}-{}-{form}-{seen}\"", self.instance, bodies.rendering);
            Some(Body { bytes, etag: HeaderValue::try_from(tag).ok()? })
        };
        slot.get_or_init(render).clone()
    }
}

/// What is rendered of one report.
#[derive(Debug)]
pub(crate) struct Bodies {
    pub(crate) report: Arc<Report>,
    /// Counts the reports that were rendered.
    rendering: u64,
    public: Slots,
    operator: Slots,
}

#[derive(Debug)]
struct Slots {
    health: [Slot; Form::ALL.len()],
    metrics: [Slot; TextFormat::ALL.len()],
    page: Slot,
    event: OnceLock<Bytes>,
    /// By the service's position.
    services: Box<[Slot]>,
    /// The verbose texts, by the group's position.
    groups: Box<[OnceLock<Bytes>]>,
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
            page: Slot::new(),
            event: OnceLock::new(),
            services: report.services.iter().map(|_| Slot::new()).collect(),
            groups: report.groups.iter().map(|_| OnceLock::new()).collect(),
        }
    }
}

/// What a group's probe calls itself: `readyz` for `ready`, its own name for any other.
pub(crate) fn endpoint(group: &str) -> &str {
    ENDPOINTS.iter().find(|(name, _)| *name == group).map_or(group, |(_, endpoint)| endpoint)
}
