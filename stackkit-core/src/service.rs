//! What every datastore is: a [`Service`].

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backup::BackupProvider;
use crate::error::{Error, Result};
use crate::health::HealthCheck;

/// The longest [`ServiceId`] in bytes: it is a folder name in a repository and a label in metrics.
pub const SERVICE_ID_BYTES_MAX: usize = 64;

/// The name of one service in its stack: 1 to 64 of `a-z A-Z 0-9 . _ -`, not starting with a dot or a dash. Cheap to clone.
///
/// ```
/// use stackkit_core::ServiceId;
/// assert_eq!(ServiceId::new("cache").unwrap().as_str(), "cache");
/// assert!(ServiceId::new("../etc").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceId(Arc<str>);

impl ServiceId {
    /// Checks and takes over an id.
    ///
    /// # Errors
    /// `Config` if it is empty, too long, or holds another character.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        match is_safe_name(&id, SERVICE_ID_BYTES_MAX) {
            true => Ok(Self(id.into())),
            false => Err(Error::config(format!(
                "service id {id:?} is not 1 to {SERVICE_ID_BYTES_MAX} of a-z A-Z 0-9 . _ - with a letter, digit or underscore first"
            ))),
        }
    }

    /// The id, or `default` with the fault that says what is wrong: for constructors that can't fail, whose
    /// [`Service::faults`] tells it. `default` is a literal of the adapter, such as `redis`; so is `code`.
    ///
    /// ```
    /// use stackkit_core::ServiceId;
    /// let (id, fault) = ServiceId::or_fault("a b", "redis", "redis.id");
    /// assert_eq!((id.as_str(), fault.unwrap().code.as_str()), ("redis", "redis.id"));
    /// ```
    #[must_use]
    pub fn or_fault(id: &str, default: &'static str, code: &'static str) -> (Self, Option<ConfigFault>) {
        debug_assert!(is_safe_name(default, SERVICE_ID_BYTES_MAX), "{default:?} can't be a default id");
        match Self::new(id) {
            Ok(id) => (id, None),
            Err(error) => (Self(default.into()), Some(ConfigFault::error(code, error.message()))),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `name` is safe as one path segment everywhere: on a disk, in a bucket, in a URL, as a label.
pub(crate) fn is_safe_name(name: &str, bytes_max: usize) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= bytes_max && !name.starts_with(['.', '-']) && name.chars().all(plain)
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ServiceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ServiceId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for ServiceId {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for ServiceId {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl TryFrom<String> for ServiceId {
    type Error = Error;
    fn try_from(id: String) -> Result<Self> {
        Self::new(id)
    }
}

impl std::str::FromStr for ServiceId {
    type Err = Error;
    fn from_str(id: &str) -> Result<Self> {
        Self::new(id)
    }
}

impl From<ServiceId> for String {
    fn from(id: ServiceId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// Where a service is, with nothing in it that must stay secret: there is no field for a user or a password.
///
/// ```
/// use stackkit_core::Endpoint;
/// let endpoint = Endpoint::new("postgres", "db.internal", 5432).with_database("shop");
/// assert_eq!(endpoint.to_string(), "postgres://db.internal:5432/shop");
/// assert_eq!(Endpoint::local("file", "/srv/uploads").to_string(), "file:///srv/uploads");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Endpoint {
    /// The URL scheme.
    pub scheme: String,
    /// The host name or address; empty for a local path.
    pub host: String,
    /// The port, if the service has one.
    pub port: Option<u16>,
    /// A path on this machine: a directory, or a Unix socket.
    pub path: Option<String>,
    /// The database inside the service, if it has such.
    pub database: Option<String>,
}

impl Endpoint {
    /// A service at a host and port.
    pub fn new(scheme: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        Self { scheme: scheme.into(), host: host.into(), port: Some(port), path: None, database: None }
    }

    /// A service at a path of this machine.
    pub fn local(scheme: impl Into<String>, path: impl Into<String>) -> Self {
        Self { scheme: scheme.into(), host: String::new(), port: None, path: Some(path.into()), database: None }
    }

    /// Names the database.
    #[must_use]
    pub fn with_database(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if let Some(path) = &self.path {
            f.write_str(path)?;
        }
        match (&self.database, &self.path) {
            (Some(database), None) => write!(f, "/{database}"),
            (Some(database), Some(_)) => write!(f, "?database={database}"),
            (None, _) => Ok(()),
        }
    }
}

/// Whether a configuration fault stops the stack from being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultSeverity {
    /// It works, but should not stay so: a default password.
    Warning,
    /// It can't work.
    Error,
}

/// One thing that is wrong in a service's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConfigFault {
    /// A stable code such as `postgres.password.default`.
    pub code: String,
    /// How bad it is.
    pub severity: FaultSeverity,
    /// What is wrong, where, and what to do; never a secret.
    pub message: String,
}

impl ConfigFault {
    /// A fault that stops the stack from being built.
    pub fn error(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), severity: FaultSeverity::Error, message: message.into() }
    }

    /// A fault that is only told.
    pub fn warning(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), severity: FaultSeverity::Warning, message: message.into() }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

/// One datastore of a stack.
///
/// No method does I/O; all are cheap and answer the same for the life of the value. `Debug` shows no secret.
///
/// What a service can do, it says itself: [`health_check`](Service::health_check) and
/// [`backup_provider`](Service::backup_provider) return `Some(self)`, so one list of `Arc<dyn Service>` carries
/// every store, whatever it can do.
///
/// ```
/// use stackkit_core::{Endpoint, Service, ServiceId};
/// #[derive(Debug)]
/// struct Search { id: ServiceId }
/// impl Service for Search {
///     fn id(&self) -> &ServiceId { &self.id }
///     fn kind(&self) -> &'static str { "search" }
///     fn endpoint(&self) -> Endpoint { Endpoint::new("http", "127.0.0.1", 7700) }
/// }
/// let search = Search { id: ServiceId::new("search").unwrap() };
/// assert!(search.health_check().is_none());
/// ```
pub trait Service: fmt::Debug + Send + Sync + 'static {
    /// The name in the stack.
    fn id(&self) -> &ServiceId;

    /// What it is: OpenTelemetry's `db.system.name` where there is one.
    fn kind(&self) -> &'static str;

    /// Where it is, redacted by type.
    fn endpoint(&self) -> Endpoint;

    /// Everything that is wrong in its configuration, warnings included; found without I/O.
    fn faults(&self) -> Vec<ConfigFault> {
        Vec::new()
    }

    /// Its health check, if it has one.
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        None
    }

    /// Its backup provider, if it has one.
    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_path_segments() {
        for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "ü", &"x".repeat(65)] {
            assert!(ServiceId::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "a.b-c_9", "_x", &"x".repeat(64)] {
            assert!(ServiceId::new(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn deserialising_checks_the_id() {
        assert!(serde_json::from_str::<ServiceId>("\"../x\"").is_err());
    }

    #[test]
    fn endpoints_print_as_urls() {
        assert_eq!(Endpoint::new("redis", "::1", 6379).to_string(), "redis://[::1]:6379");
        let socket = Endpoint::local("redis+unix", "/run/r.sock").with_database("1");
        assert_eq!(socket.to_string(), "redis+unix:///run/r.sock?database=1");
    }
}
