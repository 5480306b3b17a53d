//! The handle that users hold.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use stackkit_core::{
    BackupProvider, Clock, ConfigFault, Endpoint, Error, HealthCheck, Result, Service, ServiceId, tls,
};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::client::Connection;
use crate::config::RedisConfig;
use crate::metrics::{Info, Refusals};

/// The id of a handle that was given none.
const ID_DEFAULT: &str = "redis";

/// One Redis server, all its databases: probed, dumped and restored.
///
/// Cheap to clone; clones share the probe's warm connection. Making one does no I/O.
///
/// ```
/// use stackkit_core::Service;
/// use stackkit_redis::Redis;
/// let cache = Redis::from_url("rediss://app:correct-horse@cache.internal/1")?.with_id("cache");
/// assert_eq!(cache.id().as_str(), "cache");
/// assert_eq!(cache.endpoint().to_string(), "rediss://cache.internal:6379/1");
/// # Ok::<(), stackkit_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    id: ServiceId,
    /// What is wrong with the id that was asked for, told at the stack's build.
    id_fault: Option<ConfigFault>,
    config: RedisConfig,
    /// Read from the CA file or the system once; both are slow beside a round trip.
    tls: OnceCell<Arc<ClientConfig>>,
    /// The probe's connection, if the last probe ended well and none is under way.
    warm: Mutex<Option<Connection>>,
    /// What the server refused to tell the probe.
    refusals: Mutex<Refusals>,
}

impl Redis {
    /// A handle on the configured server, called `redis`.
    #[must_use]
    pub fn new(config: RedisConfig) -> Self {
        Self::build(ID_DEFAULT, config)
    }

    /// A handle on the server of a `redis://`, `rediss://` or `redis+unix://` URL: see [`RedisConfig::from_url`].
    ///
    /// # Errors
    /// `Config` if the URL can't be read.
    pub fn from_url(url: &str) -> Result<Self> {
        RedisConfig::from_url(url).map(Self::new)
    }

    /// A handle on the server that the environment names: see [`RedisConfig::from_env`].
    ///
    /// # Errors
    /// `Config` if it names none, or a value can't be read.
    pub fn from_env() -> Result<Self> {
        RedisConfig::from_env().map(Self::new)
    }

    /// Gives the handle a name in its stack. A name that is no [`ServiceId`] is reported by [`Service::faults`].
    #[must_use]
    pub fn with_id(self, id: impl AsRef<str>) -> Self {
        Self::build(id.as_ref(), self.inner.config.clone())
    }

    fn build(id: &str, config: RedisConfig) -> Self {
        let (id, id_fault) = ServiceId::or_fault(id, ID_DEFAULT, "redis.id");
        let (warm, refusals) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { id, id_fault, config, tls: OnceCell::new(), warm, refusals }) }
    }

    /// What the handle is configured with.
    #[must_use]
    pub fn config(&self) -> &RedisConfig {
        &self.inner.config
    }

    /// Opens a connection of its own.
    pub(crate) async fn connect(&self, deadline: Instant) -> Result<Connection> {
        let config = &self.inner.config;
        let tls = match config.tls {
            true => {
                let load = || async { tls::client_config(config.ca_file.as_deref()) };
                Some(self.inner.tls.get_or_try_init(load).await?.clone())
            }
            false => None,
        };
        Connection::open(config, tls, deadline).await
    }

    /// When opening a connection must be done.
    pub(crate) fn connect_deadline(&self) -> Instant {
        Clock::system().instant() + self.inner.config.connect_timeout
    }

    /// When the answer to a short command must be there.
    pub(crate) fn command_deadline(&self) -> Instant {
        Clock::system().instant() + self.inner.config.command_timeout
    }

    /// All sections of `INFO`.
    pub(crate) async fn info(&self, connection: &mut Connection) -> Result<Info> {
        Info::from_reply(connection.call(&[b"INFO"], self.command_deadline()).await?)
    }

    /// The slot of the probe's connection. Never held across an await.
    pub(crate) fn warm<T>(&self, with: impl FnOnce(&mut Option<Connection>) -> T) -> T {
        with(&mut self.inner.warm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the server refused to tell. Never held across an await.
    pub(crate) fn refusals<T>(&self, with: impl FnOnce(&mut Refusals) -> T) -> T {
        with(&mut self.inner.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Names the service and the operation in an error.
    pub(crate) fn named(&self, operation: &'static str) -> impl Fn(Error) -> Error + '_ {
        move |error| error.with_service(self.inner.id.clone()).with_operation(operation)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("id", &self.inner.id).field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Service for Redis {
    fn id(&self) -> &ServiceId {
        &self.inner.id
    }

    fn kind(&self) -> &'static str {
        "redis"
    }

    fn endpoint(&self) -> Endpoint {
        self.inner.config.endpoint()
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = self.inner.config.validate();
        faults.extend(self.inner.id_fault.clone());
        faults
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }

    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_id_is_a_fault_not_a_panic() {
        let service = Redis::new(RedisConfig::new("localhost", 6379)).with_id("a b");
        assert_eq!(service.faults()[0].code, "redis.id");
        assert!(service.with_id("ok").faults().is_empty());
    }

    #[test]
    fn debug_hides_the_password() {
        let service = Redis::from_url("redis://u:p-canary@localhost").expect("a good URL");
        assert!(!format!("{service:?}").contains("canary"));
    }
}
