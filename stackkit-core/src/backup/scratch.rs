//! Empty stores that a restore drill fills and throws away.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backup::VendorInfo;
use crate::error::Result;
use crate::service::{Service, ServiceId};

/// What a restore drill asks for: a store that can take the dump of one service.
///
/// ```
/// use stackkit_core::ServiceId;
/// use stackkit_core::backup::ScratchRequest;
/// let request = ScratchRequest::new("redis", ServiceId::new("cache")?);
/// assert_eq!((request.kind.as_str(), request.service.as_str()), ("redis", "cache"));
/// # Ok::<(), stackkit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScratchRequest {
    /// The kind of the service that was dumped, as [`Service::kind`] says it.
    pub kind: String,
    /// Its id; the scratch store's service answers to the same one.
    pub service: ServiceId,
    /// Which software made the dump, if known: an older server may be unable to read it.
    pub vendor: Option<VendorInfo>,
}

impl ScratchRequest {
    /// A store of that kind, for the dump of `service`.
    pub fn new(kind: impl Into<String>, service: ServiceId) -> Self {
        Self { kind: kind.into(), service, vendor: None }
    }

    /// Says which software made the dump.
    #[must_use]
    pub fn with_vendor(mut self, vendor: VendorInfo) -> Self {
        self.vendor = Some(vendor);
        self
    }
}

/// Makes empty stores for restore drills: a fresh database on a private server, an empty directory.
///
/// `stackkit-fixtures` implements it for the stores of this workspace; an application implements it for its own, or
/// for a server that it keeps for drills.
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use stackkit_core::backup::{ScratchRequest, ScratchStore, ScratchStores};
/// use stackkit_core::{Error, ErrorKind, Result};
///
/// /// Knows no store at all.
/// #[derive(Debug)]
/// struct Nothing;
/// #[async_trait]
/// impl ScratchStores for Nothing {
///     async fn open(&self, request: &ScratchRequest) -> Result<Box<dyn ScratchStore>> {
///         Err(Error::new(ErrorKind::Unsupported, "there is no scratch store of this kind")
///             .with_context("kind", &request.kind))
///     }
/// }
/// let stores: Arc<dyn ScratchStores> = Arc::new(Nothing);
/// ```
#[async_trait]
pub trait ScratchStores: fmt::Debug + Send + Sync {
    /// Makes an empty store that nobody else uses.
    ///
    /// # Errors
    /// `Unsupported` for a kind that it does not know; `ToolMissing` if the server is not installed, saying what
    /// installs it; the kinds of starting a server.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing.
    async fn open(&self, request: &ScratchRequest) -> Result<Box<dyn ScratchStore>>;
}

/// One scratch store. It is gone, with all that was put into it, after [`close`](ScratchStore::close), and also when
/// it is dropped.
#[async_trait]
pub trait ScratchStore: Send + Sync {
    /// The store as a service; its [`BackupProvider`](crate::BackupProvider) restores into it. The handle is of no use
    /// once the store is gone.
    fn service(&self) -> Arc<dyn Service>;

    /// Removes the store and waits until it is gone.
    ///
    /// # Errors
    /// What kept it from being removed: then something may be left.
    ///
    /// # Cancel safety
    /// Dropping the future removes the store as dropping it does.
    async fn close(self: Box<Self>) -> Result<()>;
}
