//! The artifacts of one service in one backup, for a provider to read.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::path::Path;
use stackkit_core::backup::{ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource};
use stackkit_core::{Clock, Result, ServiceId};

use crate::keys::Identity;
use crate::manifest::ServiceRecord;
use crate::pipeline::{Layout, read_all, read_range};
use crate::progress::{Counted, Reporter};
use crate::repository::Repository;

/// Reads from the repository; every byte is checked on its way.
#[derive(Debug)]
pub(crate) struct ServiceSource {
    store: Arc<dyn ObjectStore>,
    identity: Option<Identity>,
    infos: Vec<ArtifactInfo>,
    layouts: Vec<Layout>,
    service: ServiceId,
    /// Who is told of bytes that are read, and by which clock.
    progress: Option<(Reporter, Clock)>,
}

impl ServiceSource {
    pub(crate) fn new(repository: &Repository, folder: &Path, service: &ServiceRecord) -> Self {
        Self {
            store: Arc::clone(repository.storage().store()),
            identity: repository.identity().cloned(),
            infos: service.artifacts.iter().map(|artifact| artifact.info()).collect(),
            layouts: service.artifacts.iter().map(|artifact| artifact.layout(folder)).collect(),
            service: service.id.clone(),
            progress: None,
        }
    }

    /// Tells the bytes of artifacts that are read from their beginning.
    pub(crate) fn with_progress(mut self, progress: &Reporter, clock: &Clock) -> Self {
        self.progress = Some((progress.clone(), clock.clone()));
        self
    }

    fn layout(&self, name: &ArtifactName) -> Result<Layout> {
        // The trait's own lookup words the error.
        (self as &dyn ArtifactSource).info(name)?;
        let mut layouts = self.infos.iter().zip(&self.layouts);
        let found = layouts.find(|(info, _)| info.name() == name).map(|(_, layout)| layout.clone());
        found.ok_or_else(|| stackkit_core::Error::unexpected("an artifact without a layout"))
    }
}

#[async_trait]
impl ArtifactSource for ServiceSource {
    fn artifacts(&self) -> &[ArtifactInfo] {
        &self.infos
    }

    async fn open(&self, name: &ArtifactName) -> Result<ArtifactReader> {
        let reader = read_all(Arc::clone(&self.store), self.layout(name)?, self.identity.as_ref()).await?.0;
        Ok(match &self.progress {
            None => reader,
            Some((progress, clock)) => Counted::wrap(reader, progress, clock, &self.service, name),
        })
    }

    async fn open_range(&self, name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        read_range(Arc::clone(&self.store), self.layout(name)?, self.identity.as_ref(), plain_bytes).await
    }
}
