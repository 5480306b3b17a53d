//! Fixtures as scratch stores for restore drills.

use std::sync::Arc;

use async_trait::async_trait;
use stackkit_core::backup::{ScratchRequest, ScratchStore, ScratchStores};
use stackkit_core::{Error, ErrorKind, Result, Service};

use crate::MemoryStore;

/// The fixtures of this crate as scratch stores: `postgresql`, `redis`, `volume` (each if its feature is on) and
/// `memory`.
///
/// ```
/// use stackkit_core::ServiceId;
/// use stackkit_core::backup::{ScratchRequest, ScratchStores};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stackkit_core::Result<()> {
/// let request = ScratchRequest::new("memory", ServiceId::new("catalogue")?);
/// let store = stackkit_fixtures::scratch().open(&request).await?;
/// assert_eq!(store.service().id().as_str(), "catalogue");
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn scratch() -> Scratch {
    Scratch { _private: () }
}

/// Makes scratch stores; see [`scratch`].
///
/// PostgreSQL gives a fresh database on the server that the process shares, Redis a private server, a volume a private
/// directory. `STACKKIT_POSTGRES_BIN` and `STACKKIT_REDIS_BIN` say which version, as for every fixture: it must be able
/// to read the dumps that are drilled.
#[derive(Debug, Clone)]
pub struct Scratch {
    _private: (),
}

#[async_trait]
impl ScratchStores for Scratch {
    async fn open(&self, request: &ScratchRequest) -> Result<Box<dyn ScratchStore>> {
        let id = request.service.clone();
        match request.kind.as_str() {
            #[cfg(feature = "postgres")]
            "postgresql" => {
                let fixture = crate::postgres().await?;
                let service = fixture.service()?.with_id(&id);
                Ok(Opened::boxed(service, fixture))
            }
            #[cfg(feature = "redis")]
            "redis" => {
                let fixture = crate::redis().await?;
                let service = fixture.service()?.with_id(&id);
                Ok(Opened::boxed(service, fixture))
            }
            #[cfg(feature = "volume")]
            "volume" => {
                let fixture = crate::volume()?;
                let service = fixture.service().with_id(&id);
                Ok(Opened::boxed(service, fixture))
            }
            "memory" => Ok(Opened::boxed(MemoryStore::new(id), ())),
            unknown => Err(Error::new(ErrorKind::Unsupported, "the fixtures have no scratch store of this kind")
                .with_context("kind", unknown)
                .with_service(id)),
        }
    }
}

/// A service, and the fixture that holds its store.
struct Opened<F> {
    service: Arc<dyn Service>,
    fixture: F,
}

impl<F: Send + Sync + 'static> Opened<F> {
    fn boxed(service: impl Service, fixture: F) -> Box<dyn ScratchStore> {
        Box::new(Self { service: Arc::new(service), fixture })
    }
}

#[async_trait]
impl<F: Send + Sync + 'static> ScratchStore for Opened<F> {
    fn service(&self) -> Arc<dyn Service> {
        Arc::clone(&self.service)
    }

    async fn close(self: Box<Self>) -> Result<()> {
        let Self { service, fixture } = *self;
        drop(service);
        // The drop of a fixture waits until its store is gone: up to seconds, which must not stop the runtime's thread.
        tokio::task::spawn_blocking(move || drop(fixture))
            .await
            .map_err(|e| Error::unexpected("a scratch store could not be removed").with_source(e))
    }
}
