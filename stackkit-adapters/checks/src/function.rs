//! A check that is a closure.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use stackkit_core::health::{Metric, Rule, Tier};
use stackkit_core::{
    ConfigFault, Endpoint, HealthCheck, Observation, ProbeContext, Result, Service, ServiceId, async_trait,
};

use crate::name::Name;

type Looked = Pin<Box<dyn Future<Output = Result<Observation>> + Send>>;

/// A check of one's own without a type of one's own: an async closure.
///
/// The closure keeps the contract of [`HealthCheck::probe`]: it only reads, does not retry, and an error of it means *could
/// not observe*. It is dropped at the deadline, which its argument tells.
///
/// ```
/// use stackkit_checks::FnCheck;
/// use stackkit_core::{Observation, Stack};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stackkit_core::Result<()> {
/// let queue = FnCheck::new("queue", "jobs", |_cx| async { Ok(Observation::new().gauge("waiting_count", 3.0)) });
/// let stack = Stack::builder("shop").service(queue).build()?;
/// assert!(stack.check_now(&[]).await.ready);
/// # Ok(())
/// # }
/// ```
pub struct FnCheck {
    name: Name,
    kind: &'static str,
    endpoint: Endpoint,
    look: Box<dyn Fn(ProbeContext) -> Looked + Send + Sync>,
    tiers: &'static [Tier],
    metrics: &'static [Metric],
    rules: Vec<Rule>,
}

impl FnCheck {
    /// A check called `id` in its stack, of something that is a `kind`.
    pub fn new<F, R>(id: impl AsRef<str>, kind: &'static str, look: F) -> Self
    where
        F: Fn(ProbeContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Observation>> + Send + 'static,
    {
        Self {
            name: Name::new(id.as_ref(), "check", "check.id"),
            kind,
            endpoint: Endpoint::local(kind, ""),
            look: Box::new(move |cx| Box::pin(look(cx))),
            tiers: &[Tier::Ping],
            metrics: &[],
            rules: Vec::new(),
        }
    }

    /// Says where it is; only its kind is known unless set.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Sets the tiers that the closure is called for; [`Tier::Ping`] alone unless set. A check of [`Tier::Process`] alone may be
    /// in the group `live`, and must not ask another machine.
    #[must_use]
    pub fn with_tiers(mut self, tiers: &'static [Tier]) -> Self {
        self.tiers = tiers;
        self
    }

    /// Says what it measures, for views and documents.
    #[must_use]
    pub fn with_metrics(mut self, metrics: &'static [Metric]) -> Self {
        self.metrics = metrics;
        self
    }

    /// Adds a limit on what it measures.
    #[must_use]
    pub fn with_rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }
}

impl fmt::Debug for FnCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnCheck").field("id", &self.name.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Service for FnCheck {
    fn id(&self) -> &ServiceId {
        &self.name.id
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    fn faults(&self) -> Vec<ConfigFault> {
        self.name.faults(None)
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for FnCheck {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        (self.look)(cx.clone()).await
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
}
