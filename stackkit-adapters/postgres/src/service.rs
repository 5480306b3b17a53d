//! The handle that users hold.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use stackkit_core::{BackupProvider, ConfigFault, Endpoint, Error, HealthCheck, Result, Service, ServiceId};

use crate::client::Session;
use crate::config::PostgresConfig;

/// The id of a handle that was given none.
const ID_DEFAULT: &str = "postgres";

/// One PostgreSQL database: probed, dumped and restored.
///
/// Cheap to clone; clones share the probe's warm connection. Making one does no I/O.
///
/// ```
/// use stackkit_core::Service;
/// use stackkit_postgres::Postgres;
/// let orders = Postgres::from_url("postgres://app:correct-horse@db.internal/orders")?.with_id("orders");
/// assert_eq!(orders.id().as_str(), "orders");
/// assert_eq!(orders.endpoint().to_string(), "postgres://db.internal:5432/orders");
/// # Ok::<(), stackkit_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Postgres {
    inner: Arc<Inner>,
}

struct Inner {
    id: ServiceId,
    /// What is wrong with the id that was asked for, told at the stack's build.
    id_fault: Option<ConfigFault>,
    config: PostgresConfig,
    /// The probe's connection, if the last probe ended well and none is under way.
    warm: Mutex<Option<Session>>,
}

impl Postgres {
    /// A handle on the configured database, called `postgres`.
    #[must_use]
    pub fn new(config: PostgresConfig) -> Self {
        let (id, id_fault) = ServiceId::or_fault(ID_DEFAULT, ID_DEFAULT, "postgres.id");
        Self { inner: Arc::new(Inner { id, id_fault, config, warm: Mutex::default() }) }
    }

    /// A handle on the database of a `postgres://` URL: see [`PostgresConfig::from_url`].
    ///
    /// # Errors
    /// `Config` if the URL can't be read.
    pub fn from_url(url: &str) -> Result<Self> {
        PostgresConfig::from_url(url).map(Self::new)
    }

    /// A handle on the database that the environment names: see [`PostgresConfig::from_env`].
    ///
    /// # Errors
    /// `Config` if it names none, or a value can't be read.
    pub fn from_env() -> Result<Self> {
        PostgresConfig::from_env().map(Self::new)
    }

    /// Gives the handle a name in its stack. A name that is no [`ServiceId`] is reported by [`Service::faults`].
    #[must_use]
    pub fn with_id(self, id: impl AsRef<str>) -> Self {
        let (id, id_fault) = ServiceId::or_fault(id.as_ref(), ID_DEFAULT, "postgres.id");
        Self { inner: Arc::new(Inner { id, id_fault, config: self.inner.config.clone(), warm: Mutex::default() }) }
    }

    /// What the handle is configured with.
    #[must_use]
    pub fn config(&self) -> &PostgresConfig {
        &self.inner.config
    }

    /// The slot of the probe's connection. Never held across an await.
    pub(crate) fn warm<T>(&self, with: impl FnOnce(&mut Option<Session>) -> T) -> T {
        with(&mut self.inner.warm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Names the service and the operation in an error.
    pub(crate) fn named(&self, operation: &'static str) -> impl Fn(Error) -> Error + '_ {
        move |error| error.with_service(self.inner.id.clone()).with_operation(operation)
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("id", &self.inner.id)
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl Service for Postgres {
    fn id(&self) -> &ServiceId {
        &self.inner.id
    }

    fn kind(&self) -> &'static str {
        "postgresql"
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
        let service = Postgres::new(PostgresConfig::new("localhost", "shop")).with_id("a b");
        assert_eq!(service.faults()[0].code, "postgres.id");
        assert!(service.clone().with_id("ok").faults().is_empty());
    }

    #[test]
    fn debug_hides_the_password() {
        let service = Postgres::from_url("postgres://u:p-canary@localhost/d").expect("a good URL");
        assert!(!format!("{service:?}").contains("canary"));
    }
}
