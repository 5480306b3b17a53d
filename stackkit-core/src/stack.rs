//! A stack: the services of one application, what they mean for it, and what comes before what.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use serde::Serialize;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::graph::{check_faults, graph_faults, group_faults};
use crate::health::Intervals;
use crate::health::{Moment, Prober, READY, Report, STARTUP, ServiceReport, Shape, Thresholds};
use crate::service::{ConfigFault, FaultSeverity, SERVICE_ID_BYTES_MAX, Service, ServiceId, is_safe_name};

/// What a service's failure means for its stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Criticality {
    /// The stack is not ready without it.
    #[default]
    Required,
    /// The stack is degraded without it.
    Optional,
    /// It is shown, and changes nothing.
    Informational,
}

impl Criticality {
    /// The criticality as the word that views print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
            Self::Informational => "informational",
        }
    }
}

/// A service together with what it means for its stack.
#[derive(Debug, Clone)]
pub struct StackEntry {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) criticality: Criticality,
    pub(crate) after: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) intervals: Intervals,
    pub(crate) thresholds: Thresholds,
}

impl StackEntry {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &Arc<dyn Service> {
        &self.service
    }

    /// What its failure means.
    #[must_use]
    pub fn criticality(&self) -> Criticality {
        self.criticality
    }

    /// The ids of the services that must be ready before it.
    #[must_use]
    pub fn dependencies(&self) -> &[String] {
        &self.after
    }

    /// The groups that it is in.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.groups
    }
}

impl From<Arc<dyn Service>> for StackEntry {
    fn from(service: Arc<dyn Service>) -> Self {
        Self {
            service,
            criticality: Criticality::default(),
            after: Vec::new(),
            groups: vec![READY.to_owned(), STARTUP.to_owned()],
            intervals: Intervals::default(),
            thresholds: Thresholds::default(),
        }
    }
}

impl<S: Service> From<S> for StackEntry {
    fn from(service: S) -> Self {
        let service: Arc<dyn Service> = Arc::new(service);
        Self::from(service)
    }
}

/// Says what a service means for its stack: `Redis::from_url(…)?.optional().after(["postgres"])`.
pub trait ServiceExt: Into<StackEntry> {
    /// The stack is degraded, not unready, without it.
    #[must_use]
    fn optional(self) -> StackEntry {
        StackEntry { criticality: Criticality::Optional, ..self.into() }
    }

    /// It is shown, and changes nothing.
    #[must_use]
    fn informational(self) -> StackEntry {
        StackEntry { criticality: Criticality::Informational, ..self.into() }
    }

    /// It needs the services with these ids first.
    #[must_use]
    fn after<I, T>(self, ids: I) -> StackEntry
    where
        I: IntoIterator<Item = T>,
        T: Into<String>,
    {
        StackEntry { after: ids.into_iter().map(Into::into).collect(), ..self.into() }
    }

    /// Puts it in these groups instead of [`ready`](crate::health::READY) and [`startup`](crate::health::STARTUP). A group of
    /// one's own passes as `ready` does: while each required member is ready. In [`live`](crate::health::LIVE) a check may
    /// look at this machine only.
    #[must_use]
    fn in_groups<I, T>(self, groups: I) -> StackEntry
    where
        I: IntoIterator<Item = T>,
        T: Into<String>,
    {
        StackEntry { groups: groups.into_iter().map(Into::into).collect(), ..self.into() }
    }

    /// Sets how often it is probed.
    #[must_use]
    fn with_intervals(self, intervals: Intervals) -> StackEntry {
        StackEntry { intervals, ..self.into() }
    }

    /// Sets limits on its measurements.
    #[must_use]
    fn with_thresholds(self, thresholds: Thresholds) -> StackEntry {
        StackEntry { thresholds, ..self.into() }
    }
}

impl<T: Into<StackEntry>> ServiceExt for T {}

/// Collects the services of a stack.
#[derive(Debug)]
pub struct StackBuilder {
    name: String,
    entries: Vec<StackEntry>,
    clock: Clock,
}

impl StackBuilder {
    /// Adds a service: an adapter, an `Arc<dyn Service>`, or one with [`ServiceExt`]'s words on it.
    #[must_use]
    pub fn service(mut self, service: impl Into<StackEntry>) -> Self {
        self.entries.push(service.into());
        self
    }

    /// Takes time from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks everything that can be checked without I/O.
    ///
    /// # Errors
    /// `Config`, listing every fault at once: of the name, of each service, its intervals and groups, of double ids, of unknown
    /// or circular dependencies. A threshold on what a service does not measure is a [warning](Stack::warnings).
    pub fn build(self) -> Result<Stack> {
        let mut faults = Vec::new();
        if !is_safe_name(&self.name, SERVICE_ID_BYTES_MAX) {
            let message = format!("stack name {:?} is not 1 to 64 of a-z A-Z 0-9 . _ -", self.name);
            faults.push(ConfigFault::error("stack.name", message));
        }
        for entry in &self.entries {
            let id = entry.service.id();
            let prefixed = |fault: ConfigFault| ConfigFault { message: format!("{id}: {}", fault.message), ..fault };
            faults.extend(entry.service.faults().into_iter().map(prefixed));
            faults.extend(entry.intervals.faults(id));
            faults.extend(group_faults(entry));
            faults.extend(check_faults(entry));
        }
        faults.extend(graph_faults(&self.entries));
        let (errors, warnings): (Vec<_>, Vec<_>) =
            faults.into_iter().partition(|fault| fault.severity == FaultSeverity::Error);
        if !errors.is_empty() {
            let all: Vec<String> = errors.iter().map(ConfigFault::to_string).collect();
            let word = if all.len() == 1 { "fault" } else { "faults" };
            let message = format!("the stack has {} {word}: {}", all.len(), all.join("; "));
            return Err(Error::config(message).with_operation("build stack"));
        }
        let clock = self.clock;
        let probers = self.entries.into_iter().map(|entry| Arc::new(Prober::new(entry, clock.clone()))).collect();
        Ok(Stack(Arc::new(Inner { name: self.name, probers, warnings, clock })))
    }
}

struct Inner {
    name: String,
    probers: Vec<Arc<Prober>>,
    warnings: Vec<ConfigFault>,
    clock: Clock,
}

/// The services of one application; cheap to clone.
///
/// ```no_run
/// # use stackkit_core::{Monitor, Stack};
/// # async fn run(stack: Stack) -> stackkit_core::Result<()> {
/// let report = stack.check_now(&[]).await;            // probes now
/// let monitor = Monitor::start(&stack);               // probes in the background
/// monitor.wait_ready(std::time::Duration::from_secs(30)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Stack(Arc<Inner>);

impl Stack {
    /// Starts to collect the services of a stack. The name is a folder name in a repository: 1 to 64 of
    /// `a-z A-Z 0-9 . _ -`.
    pub fn builder(name: impl Into<String>) -> StackBuilder {
        StackBuilder { name: name.into(), entries: Vec::new(), clock: Clock::system() }
    }

    /// The stack's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The entries in the order in which they were added.
    pub fn entries(&self) -> impl Iterator<Item = &StackEntry> {
        self.0.probers.iter().map(|prober| prober.entry())
    }

    /// The services in the order in which they were added.
    pub fn services(&self) -> impl Iterator<Item = &Arc<dyn Service>> {
        self.entries().map(|entry| &entry.service)
    }

    /// The service with this id.
    #[must_use]
    pub fn service(&self, id: &str) -> Option<&Arc<dyn Service>> {
        self.services().find(|service| *service.id() == id)
    }

    /// Where time comes from.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Faults of the configuration that do not stop it, such as a default password.
    #[must_use]
    pub fn warnings(&self) -> &[ConfigFault] {
        &self.0.warnings
    }

    /// Probes on demand, all services at once or only those named; a probe that runs already is joined.
    ///
    /// A service that answers is also asked for what its other tiers tell, the inventory among them; one that does not has
    /// failed at its deadline already. Each result stands by itself: rise, fall and grace are for polling. Services without a
    /// health check do not appear in the report. Never fails: what can't be observed is an entry with a failure.
    ///
    /// # Cancel safety
    /// Cancel safe: probes that were started are dropped with their connections.
    pub async fn check_now(&self, only: &[ServiceId]) -> Report {
        let wanted = |id: &ServiceId| only.is_empty() || only.contains(id);
        let probes = self.probers().filter(|prober| wanted(prober.id())).map(|prober| look_apart(prober.clone()));
        let services = join_all(probes).await;
        let entries = self.probers().filter(|prober| wanted(prober.id())).map(|prober| prober.entry());
        let moment = Moment { now: self.0.clock.now(), instant: self.0.clock.instant(), draining: false, sequence: 0 };
        Shape::new(&self.0.name, entries).fold(services, moment, None)
    }

    /// What probes each service that can be probed.
    pub(crate) fn probers(&self) -> impl Iterator<Item = &Arc<Prober>> {
        self.0.probers.iter().filter(|prober| prober.entry().service.health_check().is_some())
    }
}

/// [`look_at_all`] in a task of its own: a caller that holds the future and does not poll it must not keep the monitor from
/// probing the same service.
async fn look_apart(prober: Arc<Prober>) -> Arc<ServiceReport> {
    let task = AbortOnDropHandle::new(tokio::spawn({
        let prober = prober.clone();
        async move { look_at_all(&prober).await }
    }));
    // A panic of a probe stays in its own task, so this is the end of the runtime.
    task.await.unwrap_or_else(|_ended| Arc::new(prober.report().at_face_value()))
}

/// Probes the deciding tier, then, if there is an answer, the others that tell more.
async fn look_at_all(prober: &Prober) -> Arc<ServiceReport> {
    let deciding = prober.deciding_tier();
    let mut seen = prober.probe(deciding).await;
    for tier in prober.tiers().iter().copied().filter(|tier| *tier != deciding && prober.tells_more(*tier)) {
        if seen.failure.is_none() {
            seen = prober.probe(tier).await;
        }
    }
    Arc::new(seen.at_face_value())
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("name", &self.0.name)
            .field("services", &self.services().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Endpoint;

    #[derive(Debug)]
    struct Named(ServiceId, Vec<ConfigFault>);

    impl Service for Named {
        fn id(&self) -> &ServiceId {
            &self.0
        }
        fn kind(&self) -> &'static str {
            "named"
        }
        fn endpoint(&self) -> Endpoint {
            Endpoint::local("test", "/")
        }
        fn faults(&self) -> Vec<ConfigFault> {
            self.1.clone()
        }
    }

    fn named(id: &str) -> Named {
        Named(ServiceId::new(id).unwrap(), Vec::new())
    }

    #[test]
    fn build_lists_every_fault_at_once() {
        let broken = Named(ServiceId::new("b").unwrap(), vec![ConfigFault::error("b.host", "the host is empty")]);
        let error = Stack::builder("bad name")
            .service(named("a").after(["missing"]))
            .service(broken)
            .service(named("b").optional())
            .build()
            .unwrap_err()
            .to_string();
        for code in ["stack.name", "b.host", "stack.id.double", "stack.after.unknown"] {
            assert!(error.contains(code), "{code} is missing in: {error}");
        }
    }

    #[test]
    fn a_circle_is_named() {
        let error = Stack::builder("s")
            .service(named("a").after(["b"]))
            .service(named("b").after(["a"]))
            .service(named("c").after(["a"]))
            .service(named("d"))
            .build()
            .unwrap_err();
        assert!(error.to_string().contains("in a circle: a -> b -> a"), "{error}");
    }

    #[test]
    fn warnings_do_not_stop_the_build() {
        let weak = Named(ServiceId::new("a").unwrap(), vec![ConfigFault::warning("a.password.default", "weak")]);
        assert_eq!(Stack::builder("s").service(weak).build().unwrap().warnings().len(), 1);
    }
}
