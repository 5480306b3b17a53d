//! A datastore in memory: the smallest thing that keeps every contract, and so the suite's own test.

mod format;
mod provider;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use stackkit_core::health::{Metric, Rule, Tier};
use stackkit_core::{
    BackupProvider, Endpoint, Error, ErrorKind, HealthCheck, Observation, Phase, ProbeContext, Result, Secret, Service,
    ServiceId,
};

/// What the store holds: values by key, both any bytes.
type Objects = BTreeMap<Vec<u8>, Vec<u8>>;

/// From this many objects on a test should ask itself what it does.
const OBJECTS_WARNING: f64 = 1e6;

/// What a probe measures.
const METRICS: &[Metric] = &[Metric::gauge("objects_count", "the map's length", "Objects in the store").on(Tier::Ping)];

/// A key-value store in memory, with a health check and a backup provider.
///
/// Cheap to clone; clones are handles on the same data. It is for tests of what is built on services: a whole stack
/// of it needs no server.
///
/// ```
/// use stackkit_core::{BackupProvider, Service, ServiceId};
/// use stackkit_fixtures::MemoryStore;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stackkit_core::Result<()> {
/// let store = MemoryStore::new(ServiceId::new("catalogue")?);
/// store.insert("book", "Middlemarch");
/// assert_eq!(store.census().await?.count("objects"), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryStore {
    id: ServiceId,
    /// `None`: nothing is there.
    data: Option<Arc<Data>>,
    password: Option<Secret>,
}

#[derive(Debug, Default)]
struct Data {
    password: Option<Secret>,
    objects: Mutex<Arc<Objects>>,
    /// How many dumps hold a snapshot.
    held: AtomicU64,
}

impl MemoryStore {
    /// An empty store that asks for no password.
    #[must_use]
    pub fn new(id: ServiceId) -> Self {
        Self { id, data: Some(Arc::default()), password: None }
    }

    /// An empty store that asks for this password, and a handle that knows it.
    #[must_use]
    pub fn with_password(id: ServiceId, password: impl Into<Secret>) -> Self {
        let password = Some(password.into());
        let data = Data { password: password.clone(), ..Data::default() };
        Self { id, data: Some(Arc::new(data)), password }
    }

    /// A handle on a store that is not there.
    #[must_use]
    pub fn absent(id: ServiceId) -> Self {
        Self { id, data: None, password: None }
    }

    /// Another handle on the same store, that knows this password.
    #[must_use]
    pub fn knowing(&self, password: impl Into<Secret>) -> Self {
        Self { password: Some(password.into()), ..self.clone() }
    }

    /// Sets a value. Does nothing in a store that is not there.
    pub fn insert(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        if let Some(data) = &self.data {
            data.objects(|objects| Arc::make_mut(objects).insert(key.into(), value.into()));
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.data.as_ref()?.objects(|objects| objects.get(key.as_ref()).cloned())
    }

    /// Removes everything.
    pub fn clear(&self) {
        if let Some(data) = &self.data {
            data.objects(|objects| *objects = Arc::default());
        }
    }

    /// A hash over all keys and values: 64 hex digits.
    #[must_use]
    pub fn content(&self) -> String {
        self.data.as_ref().map_or_else(String::new, |data| hash(&data.snapshot()))
    }

    /// How many dumps hold a snapshot.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.data.as_ref().map_or(0, |data| data.held.load(Ordering::SeqCst))
    }

    /// What a connection would find out.
    fn connect(&self) -> Result<&Arc<Data>> {
        let unreachable = || Error::new(ErrorKind::Unreachable, "no such store").with_phase(Phase::Connect);
        let data = self.data.as_ref().ok_or_else(unreachable).map_err(self.named("connect"))?;
        if data.password.is_some() && data.password != self.password {
            let wrong = Error::new(ErrorKind::Unauthenticated, "the store does not accept the password");
            return Err(self.named("connect")(wrong.with_phase(Phase::Auth)));
        }
        Ok(data)
    }

    fn named(&self, operation: &'static str) -> impl Fn(Error) -> Error + '_ {
        move |error| error.with_service(self.id.clone()).with_operation(operation)
    }
}

impl Data {
    fn objects<T>(&self, with: impl FnOnce(&mut Arc<Objects>) -> T) -> T {
        with(&mut self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn snapshot(&self) -> Arc<Objects> {
        self.objects(|objects| Arc::clone(objects))
    }
}

fn hash(objects: &Objects) -> String {
    let mut hasher = blake3::Hasher::new();
    for (key, value) in objects {
        for part in [key, value] {
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().to_hex().to_string()
}

impl Service for MemoryStore {
    fn id(&self) -> &ServiceId {
        &self.id
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::local("memory", format!("/{}", self.id))
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }

    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for MemoryStore {
    async fn probe(&self, _cx: &ProbeContext) -> Result<Observation> {
        let objects = self.connect()?.snapshot();
        let count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
        Ok(Observation::new().gauge("objects_count", count.into()).info("version", env!("CARGO_PKG_VERSION")))
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn rules(&self) -> Vec<Rule> {
        let hint = "clear the store, or keep less in it";
        let rule = Rule::above("objects_count", "memory.objects.many").warning(OBJECTS_WARNING);
        vec![rule.saying("there are too many objects for a store in memory", hint)]
    }
}
