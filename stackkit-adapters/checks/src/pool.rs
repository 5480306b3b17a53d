//! The application's own connection pool.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use stackkit_core::health::{Metric, Rule, Tier};
use stackkit_core::{
    BoxError, ConfigFault, Endpoint, Error, ErrorKind, HealthCheck, Observation, Phase, ProbeContext, Result, Service,
    ServiceId, async_trait,
};

use crate::name::{Name, answer_by, ms_since};
use crate::net::within;

/// From here on a checkout is slow: a free connection is there in microseconds, and with a ping over a network in a few
/// milliseconds, so a tenth of a second means waiting for somebody else's.
const CHECKOUT_MS_WARNING: f64 = 100.0;

const METRICS: &[Metric] = &[Metric::gauge(
    "checkout_ms",
    "the closure's start and end",
    "Time to get a connection of the pool, with its ping",
)
.on(Tier::Ping)];

type CheckedOut = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// Whether the application's own pool still gives connections: what a probe of the database itself can't tell.
///
/// The closure takes a connection out, perhaps pings with it, and gives it back; so a pool check holds one connection of the
/// pool for a moment. A pool that gives none in time is a `Timeout` in the phase `checkout`.
///
/// ```
/// use std::sync::Arc;
/// use stackkit_checks::PoolCheck;
/// use stackkit_core::{Endpoint, Stack};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stackkit_core::Result<()> {
/// // The pool of your driver: `pool.get().await?` and drop, or `pool.acquire().await?.ping().await`.
/// let pool = Arc::new(tokio::sync::Semaphore::new(10));
/// let check = PoolCheck::new("orders-pool", Endpoint::new("postgres", "db.internal", 5432), move || {
///     let pool = pool.clone();
///     async move {
///         let _connection = pool.acquire().await?;
///         Ok(())
///     }
/// });
/// let stack = Stack::builder("shop").service(check).build()?;
/// assert!(stack.check_now(&[]).await.ready);
/// # Ok(())
/// # }
/// ```
pub struct PoolCheck {
    name: Name,
    endpoint: Endpoint,
    check_out: Box<dyn Fn() -> CheckedOut + Send + Sync>,
}

impl PoolCheck {
    /// A pool of connections to `endpoint`, called `id` in its stack.
    ///
    /// The closure's error may be a stackkit [`Error`], whose kind then counts; any other is taken for `Unreachable`.
    pub fn new<F, R>(id: impl AsRef<str>, endpoint: Endpoint, check_out: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let name = Name::new(id.as_ref(), "pool", "pool.id");
        Self { name, endpoint, check_out: Box::new(move || Box::pin(check_out())) }
    }
}

/// The pool's error; its text is a driver's, so it is only a cause.
fn failed(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) if error.phase().is_some() => *error,
        Ok(error) => error.with_phase(Phase::Checkout),
        Err(error) => Error::new(ErrorKind::Unreachable, "the pool gives no connection")
            .with_phase(Phase::Checkout)
            .with_source(error),
    }
}

impl fmt::Debug for PoolCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolCheck").field("id", &self.name.id).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Service for PoolCheck {
    fn id(&self) -> &ServiceId {
        &self.name.id
    }

    fn kind(&self) -> &'static str {
        "pool"
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
impl HealthCheck for PoolCheck {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        let start = cx.clock().instant();
        let out = within(answer_by(cx), Phase::Checkout, (self.check_out)()).await;
        let out = out.map_err(Error::from).and_then(|out| out.map_err(failed));
        out.map_err(|error| error.with_operation("probe"))?;
        Ok(Observation::new().gauge("checkout_ms", ms_since(cx, start)))
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        vec![Rule::above("checkout_ms", "pool.checkout.slow").warning(CHECKOUT_MS_WARNING).saying(
            "the pool is slow to give a connection",
            "look for connections that are held for long, or enlarge the pool",
        )]
    }
}
